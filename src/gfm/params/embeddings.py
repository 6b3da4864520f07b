"""Features of the collection's images as an encoder sees them: how diverse they are, and which repeat others."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from gfm.params.section import OpenShare, Section


class Embedding(Section):
    """One encoder's look at every image that trains or is held out for the pretraining loss."""

    image_px: PositiveInt | None = None  # side of the whole image as the encoder gets it; None: the encoder's own
    batch_size: PositiveInt = 64
    workers: NonNegativeInt = 0  # data loading processes
    duplicate_cosine: OpenShare | None = 0.98  # training images at least so alike are listed; None: none are looked for
