"""Checkpoints in forms that others read: safetensors, the original's `.pth`, a folder for `transformers`.

`modeling_tidal` is written into such a folder and never imported here; transformers is not needed to export.
"""

from common.export.checkpoint import Exported, ExportFormat, export_checkpoint

__all__ = ["ExportFormat", "Exported", "export_checkpoint"]
