"""Where Lightning writes a checkpoint: at once into the file that it is told, and nowhere else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO


class InPlaceCheckpoints(TorchCheckpointIO):  # type: ignore[misc]  # lightning is untyped here
    """Writes a checkpoint in its place; `TimedCheckpoint` gives it its name when it is whole.

    Lightning's own way goes by the system's folder for temporary files: it needs the room there too, and a kill in the
    midst leaves the file there for good.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write it; OSError where the disk is full, and then nothing is left of it."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.write_bytes(content.getbuffer())
        except OSError:
            file.unlink(missing_ok=True)
            raise
