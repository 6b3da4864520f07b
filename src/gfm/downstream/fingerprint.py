"""What the scores of a training depend on, as one digest."""

from __future__ import annotations

import json
from typing import Any

import xxhash

from gfm.layout import encoder_folder
from gfm.models.encoder_file import WEIGHTS, read_card
from gfm.params import Task

# Of a task's settings: what the score of one training does not depend on.
INDIFFERENT: dict[str, Any] = {
    "variant_of": True,
    "search": {"trials"},
    "finetune": {"seeds", "workers"},
}


def fingerprint(task: Task, index: str, model_name: str) -> str:
    """Of a task's settings, its index (the digest of its table) and the encoder; code and seed are not in it."""
    folder = encoder_folder(model_name)
    card, weights = read_card(folder), folder / WEIGHTS
    known = {
        "task": task.model_dump(mode="json", exclude=INDIFFERENT),
        "index": index,
        "encoder": [
            card.architecture,
            card.model_args,
            card.image_px,
            card.bands,
            card.mean,
            card.std,
            card.batch_norm,
        ],
        "weights": xxhash.xxh3_128_hexdigest(weights.read_bytes()) if weights.exists() else None,
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(known, sort_keys=True).encode())
