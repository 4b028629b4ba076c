"""An analysis result with known numbers, and the checkpoints that it refers to."""

from __future__ import annotations

from typing import Any

MODEL, POLICY = "exp-1/model.safetensors", "exp-2/rl_checkpoint_final.pth"

RESULT: dict[str, Any] = {
    "kind": "single",
    "request": {"checkpoint": MODEL, "rlCheckpoint": None, "prompts": ["Tom"], "seed": 3},
    "trajectories": [
        {
            "prompt": "Tom",
            "analysis": {"signalStats": {"modulation": {"mean": 0.25}}},
            "samples": [
                {
                    "seed": 3,
                    "text": "\x00 ran",
                    "finishReason": "length",
                    "tokenIds": [188, 4966],
                    "tokenTexts": ["\x00", " ran"],
                    "modulation": [0.125, 0.375],
                }
            ],
        }
    ],
    "batchAnalysis": None,
    "sweepAnalysis": None,
    "tokensGenerated": 2,
    "elapsedMs": 1.5,
}
