"""Exports checkpoints in formats of other programs: safetensors, the original's `.pth`, a folder for `transformers`.

`modeling_tidal` is copied into a folder for `transformers` and never imported here, so exporting does not need
transformers.
"""

from common.export.checkpoint import ExportFormat, ExportResult, export_checkpoint

__all__ = ["ExportFormat", "ExportResult", "export_checkpoint"]
