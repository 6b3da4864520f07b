"""How diverse images are as an encoder sees them: Vendi scores, principal components, nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

FEW = 20  # images of a source: fewer say nothing about it
QUERIES = 2000  # images of a source, whose nearest neighbour is looked for among all
_AT_ONCE = 256

Features = NDArray[np.float32]  # (N, C), rows of unit length
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class EmbeddedSource:
    """One source, or all of them together, in an encoder's eyes."""

    name: str
    images: int
    vendi: float  # of all its images
    vendi_of_equal: float | None  # of as many images as every source has; None where it has fewer
    mean_cosine: float  # of all its pairs
    nearest: NDArray[np.float64]  # cosine of its images (a sample of QUERIES) to the most alike of the whole collection


@dataclass(frozen=True)
class EmbeddingFacts:
    """The whole collection in an encoder's eyes."""

    sources: list[EmbeddedSource]
    whole: EmbeddedSource
    equal: int  # images drawn of each source for `vendi_of_equal`
    components: NDArray[np.float64]  # (N, 2)
    explained: tuple[float, float]  # share of the variance along each


def embedding_facts(
    features: NDArray[np.float16], ids: Sequence[str], sources: NDArray[np.object_], names: Sequence[str]
) -> EmbeddingFacts:
    """Compare the features (N, C) of images of the sources `names`, which are drawn in this order.

    Samples are of the images whose ids hash lowest: the same ones whenever an image is added or left out.
    """
    unit = unit_rows(features)
    chance = np.array([xxhash.xxh3_64_intdigest(identity.encode()) for identity in ids], np.uint64)
    members = {name: _drawn(np.flatnonzero(sources == name), chance) for name in names}
    sizes = [len(rows) for rows in members.values() if len(rows) >= FEW]
    equal = min(sizes, default=0)
    everything = _drawn(np.arange(len(unit)), chance)
    components, explained = principal_components(unit)
    return EmbeddingFacts(
        sources=[_source(name, unit, rows, equal) for name, rows in members.items() if len(rows)],
        whole=_source("all", unit, everything, equal),
        equal=equal,
        components=components,
        explained=explained,
    )


def unit_rows(features: NDArray[np.float16]) -> Features:
    """The rows at unit length; one that is all zeros stays so."""
    wide = features.astype(np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(lengths > 0, lengths, 1), np.float32)


def vendi_score(unit: Features) -> float:
    """The effective number of unlike images among the rows: 1 where all are the same, N where no two have anything
    in common.

    exp(-sum(l ln l)) over the eigenvalues l of K / N, K the cosines of all pairs (Friedman and Dieng, The Vendi Score,
    TMLR 2023, equation 2); K / N and the C x C matrix used here have the same eigenvalues but for zeros. At most C.
    """
    if not len(unit):
        return 0.0
    wide = unit.astype(np.float64)
    eigenvalues = np.clip(np.linalg.eigvalsh(wide.T @ wide / len(wide)), 0, None)
    shares = eigenvalues[eigenvalues > 1e-12]
    shares = shares / shares.sum() if len(shares) else np.ones(1)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def principal_components(unit: Features) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """The rows along the two directions in which they differ most, and each one's share of the variance.

    By the eigenvectors of the C x C covariance; a direction's sign is that of its largest loading, so that the picture
    does not flip from one machine to the next.
    """
    centred = unit.astype(np.float64)
    centred -= centred.mean(axis=0) if len(centred) else 0.0
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    total = float(np.clip(values, 0, None).sum()) or 1.0
    shares = [float(max(value, 0.0)) / total for value in values[::-1][:2]]
    return centred @ axes, (shares[0], shares[1])


def nearest_cosines(unit: Features, queries: Numbers) -> NDArray[np.float64]:
    """The cosine of each of these rows to the most alike other row."""
    found = np.empty(len(queries))
    for start in range(0, len(queries), _AT_ONCE):
        rows = queries[start : start + _AT_ONCE]
        cosines = unit[rows] @ unit.T
        cosines[np.arange(len(rows)), rows] = -1.0
        found[start : start + len(rows)] = cosines.max(axis=1)
    return found


def _drawn(rows: Numbers, chance: NDArray[np.uint64]) -> Numbers:
    """The rows in an order of chance that depends on each one's id alone."""
    return rows[np.argsort(chance[rows], kind="stable")]


def _source(name: str, unit: Features, rows: Numbers, equal: int) -> EmbeddedSource:
    """Of the source whose images are these rows, in an order of chance."""
    own = unit[rows]
    count = len(rows)
    pairs = float(np.square(own.sum(axis=0, dtype=np.float64)).sum()) - count
    return EmbeddedSource(
        name=name,
        images=count,
        vendi=vendi_score(own),
        vendi_of_equal=vendi_score(own[:equal]) if equal and count >= equal else None,
        mean_cosine=pairs / (count * (count - 1)) if count > 1 else 1.0,
        nearest=nearest_cosines(unit, rows[:QUERIES]) if len(unit) > 1 else np.empty(0),
    )
