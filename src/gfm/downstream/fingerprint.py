"""What the scores of a training depend on, as one digest."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import xxhash

from gfm.layout import encoder_folder
from gfm.models.encoder_file import WEIGHTS, read_card
from gfm.params import Task
from gfm.tracking.provenance import content_hash

# Of a task's settings: what the score of one training does not depend on.
INDIFFERENT: dict[str, Any] = {
    "variant_of": True,
    "search": {"trials"},
    "finetune": {"seeds", "workers"},
}

HISTORY = ("licence", "parents", "provenance", "energy")  # of an encoder's card: nothing that it computes with


def fingerprint(task: Task, index: str, model_name: str) -> str:
    """Of a task's settings, its index (the digest of its table) and the encoder; code and seed are not in it."""
    folder = encoder_folder(model_name)
    known = {
        "task": task.model_dump(mode="json", exclude=INDIFFERENT),
        "index": index,
        "encoder": {name: value for name, value in asdict(read_card(folder)).items() if name not in HISTORY},
        "weights": content_hash(folder / WEIGHTS),
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(known, sort_keys=True).encode())
