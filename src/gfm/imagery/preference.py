"""Which of several images that show the same is kept."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gfm.imagery.alike import Numbers


def by_preference(labelled: npt.NDArray[np.bool_], area: Numbers, source: npt.NDArray[np.integer]) -> Numbers:
    """The images' numbers, the preferred first: labelled, then larger, then of an earlier source, then of smaller id.

    One entry an image, in the order of their ids; `area` in pixels, `source` its place among the declared ones.
    """
    return np.asarray(np.lexsort((source, -area, ~labelled)))  # stable
