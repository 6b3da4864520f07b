"""The code of a registered encoder: MLflow copies this file beside the weights and runs it without gfm installed.

predict takes a float32 image (B, C, H, W), values in [0, 1], C and H = W as the card says, and returns pooled
features, float32 (B, D). Weights are safetensors read by timm; nothing is unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np


class EncoderModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # mlflow carries no types
    """A timm encoder with its own normalisation."""

    def load_context(self, context: Any) -> None:
        import timm
        import torch

        folder = context.artifacts["encoder"]
        self.network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        for stage in json.loads(Path(folder, "config.json").read_text())["gfm"].get("unshifted_stages", []):
            for block in self.network.layers[stage - 1].blocks:  # as it was trained; timm's own would shift windows
                block.shift_size, block.attn_mask = (0, 0), None
        self.size = tuple(self.network.pretrained_cfg["input_size"])
        shape = (1, -1, 1, 1)
        self.mean = torch.tensor(self.network.pretrained_cfg["mean"]).view(shape)
        self.std = torch.tensor(self.network.pretrained_cfg["std"]).view(shape)

    # An array says nothing of the input's schema, which the signature states, and keeps MLflow from asking for hints.
    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Pooled features (B, D) of images (B, C, H, W); ValueError for another size or values outside [0, 1]."""
        import torch

        if model_input.ndim != 4 or model_input.shape[1:] != self.size:
            raise ValueError(f"images are (B, {', '.join(map(str, self.size))}), not {model_input.shape}")
        low, high = float(model_input.min()), float(model_input.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"values lie in [0, 1], not [{low:g}, {high:g}]; divide 8-bit images by 255")
        image = torch.from_numpy(np.ascontiguousarray(model_input, dtype=np.float32))
        with torch.inference_mode():
            features: np.ndarray = self.network((image - self.mean) / self.std).float().numpy()
        return features


mlflow.models.set_model(EncoderModel())
