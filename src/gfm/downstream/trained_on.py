"""What an adapted model was trained on, as far as somebody must know who feeds it: bands, storage, size of a chip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gfm.params import Imagery


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """The images of a task, as one model's encoder saw them."""

    bands: tuple[str, ...]  # the task's names, in the order of the encoder's
    imagery: Imagery  # how they were stored
    chip: tuple[int, int]  # width and height of the largest chip, px

    @classmethod
    def of(cls, bands: Sequence[str], imagery: Imagery, sizes: Sequence[tuple[int, int]]) -> TrainedOn:
        """What is to be remembered of a task's chips of these sizes (width, height)."""
        return cls(tuple(bands), imagery, (max(width for width, _ in sizes), max(height for _, height in sizes)))

    def as_json(self) -> dict[str, Any]:
        """For the metadata of a weights file, whose keys may be sorted: the stored bands are a list, to keep theirs."""
        imagery = self.imagery.model_dump()
        imagery["bands"] = [list(band) for band in imagery["bands"].items()]
        return {"bands": list(self.bands), "imagery": imagery, "chip": list(self.chip)}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> TrainedOn:
        """What `as_json` gave."""
        width, height = found["chip"]
        imagery = Imagery.model_validate({**found["imagery"], "bands": dict(found["imagery"]["bands"])})
        return cls(tuple(found["bands"]), imagery, (width, height))
