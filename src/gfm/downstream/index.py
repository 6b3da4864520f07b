"""List, check and split the labelled samples of every task: `gfm index`."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfm.downstream.across_parts import Pair, near_duplicates, same_ground
from gfm.downstream.bands import collection_wavelengths, matching_bands
from gfm.downstream.classes import positive_id
from gfm.downstream.formats import TaskFormat, open_format, read_in_threads
from gfm.downstream.moments import Moments
from gfm.downstream.requirements import check_requirements
from gfm.downstream.sample import Cut, Refused, Sample, Scene
from gfm.downstream.split import PARTS, Part, doubles, split_places
from gfm.downstream.table import Row, write_rows
from gfm.errors import DataError
from gfm.imagery.hashing import dihedral_dhashes, pixel_hash
from gfm.imagery.keypoints import Keypoints, both_ways, save_keypoints
from gfm.imagery.raster import ImageError
from gfm.layout import TASKS, task_corners
from gfm.output_folder import new_folder
from gfm.params import CLASS_MAPS, NUMBERS, Params, Task
from gfm.progress import say


@dataclass(frozen=True, slots=True)
class Seen:
    """A sample with everything that was learned from its pixels, which are no longer held."""

    sample: Sample
    classes: tuple[str, ...]
    pixel_hashes: tuple[str, ...]
    dhashes: tuple[tuple[str, ...], ...]
    content: str
    numbers: Moments | None


def index_tasks(params: Params) -> None:
    """Write `data/tasks` anew: an index and a summary per task, and the files that cannot be used.

    A bad file is quarantined with its reason; what stops is a missing package or root, dates of different size that the
    parameters do not allow, a split with an empty part, a validation part that cannot choose an epoch, or a task
    without any usable sample.
    """
    check_requirements(params)
    refused: list[tuple[str, Refused]] = []
    with new_folder(TASKS) as folder:
        for name, task in params.tasks.items():
            refused += [(name, item) for item in _index_task(params, name, task, folder)]
        with (folder / "quarantine.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("task", "file", "reason"))
            table.writerows((name, item.file, item.reason) for name, item in refused)
    if refused:
        say(f"{len(refused)} files cannot be used: see {TASKS / 'quarantine.csv'}")


def _index_task(params: Params, name: str, task: Task, folder: Path) -> list[Refused]:
    collection_um = collection_wavelengths(params)
    bands = matching_bands(params, name, params.geopile.bands, collection_um)
    data = open_format(name, task, Path(params.paths.raw))
    scenes, refused = data.scenes()
    met = len(scenes) + len(refused)
    seen, unreadable = _look(name, data, scenes, bands)
    misfits = data.misfits([item.sample for item in seen])
    unfit = [Refused(data.shown(seen[at].sample.inputs[0][0]), reason) for at, reason in misfits.items()]
    seen = [item for position, item in enumerate(seen) if position not in misfits]
    refused = sorted(refused + unreadable + unfit, key=lambda item: (item.file, item.reason))
    if not seen:
        raise data.none_usable(refused)
    if refused:  # before anything that follows from it is said
        say(_commonest(name, refused, met))
    classes = data.classes([item.sample for item in seen])
    positive_id(name, task, classes)
    parts, split_by = _parts(name, task, data, [item.sample for item in seen])
    if len(classes) < 2 and task.kind not in NUMBERS:
        raise DataError(
            f"{data.root}: all samples of tasks.{name} are of one class, {classes[0]}; nothing to tell apart"
        )
    left_out = doubles(parts, [item.pixel_hashes for item in seen])
    kept, doubled = _without(left_out, list(zip(seen, parts, strict=True)))
    ground = _ground(kept, data)
    overlaps: Counter[Part] = Counter()
    if task.data.split.overlap == "drop":
        kept, overlaps = _without({pair.sample for pair in ground}, kept)
        ground = []
    summary = _summary(name, task, classes, kept)
    bits = task.data.split.near_duplicate_bits
    looks = near_duplicates([part for _, part in kept], [item.dhashes for item, _ in kept], bits)
    summary |= {
        "duplicates": _by_part(doubled),  # left out
        "overlaps": _by_part(overlaps),  # left out
        "same_ground": _listed(ground, kept),
        "near_duplicates": _listed(looks, kept),
        "met": met,  # files, or sets of files that make a sample
        "quarantined": len(refused),
        "collection_um": collection_um,  # here, so that what reads the index needs nothing else of the collection
        **({"split_by": split_by} if split_by else {}),
    }
    write_rows(
        folder / f"{name}.parquet",
        [Row(item.sample, part, item.pixel_hashes, item.dhashes, item.content) for item, part in kept],
    )
    if params.splits.find_shifted:
        held_out = {item.sample.id for item, part in kept if part != "train"}
        _write_corners(folder / task_corners(name).name, name, data, scenes, bands, held_out)
    (folder / f"{name}.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    counts = ", ".join(f"{part} {summary['counts'][part]} in {len(summary['places'][part])} places" for part in PARTS)
    how = f"split by {split_by}" if split_by else "split by place"
    say(
        f"{name}: {counts}, {how}; {len(refused)} files quarantined, "
        f"{len(left_out)} duplicates of held-out samples dropped"
    )
    if overlaps:
        say(f"{name}: {overlaps.total()} samples on the ground of a part that counts more dropped")
    _say_shared(name, "lie on the ground of", ground, kept)
    _say_shared(name, "look like", looks, kept)
    return refused


def _parts(name: str, task: Task, data: TaskFormat[Any], samples: Sequence[Sample]) -> tuple[list[Part], str]:
    """The part of every sample, and the files that say so; "" where the rule of places does."""
    given = [sample.part for sample in samples if sample.part is not None]
    if not given:
        part_of = split_places(name, (sample.place for sample in samples), task.data.split)
        return [part_of[sample.place] for sample in samples], ""
    source = data.split_source()
    for part in PARTS:
        if part not in given:
            raise DataError(f"tasks.{name}: the split by {source} leaves no sample to {part}; complete the data or it")
    return given, source


def _commonest(name: str, refused: Sequence[Refused], met: int) -> str:
    """How many files cannot be used, and the reason of most of them."""
    ((reason, count),) = Counter(item.reason for item in refused).most_common(1)
    file = next(item.file for item in refused if item.reason == reason)
    alike = f", {count} of them for the same reason" if count > 1 else ""
    return f"{name}: {len(refused)} of {met} cannot be used{alike}: {file}: {reason}"


def _without(left_out: set[int], samples: Sequence[tuple[Seen, Part]]) -> tuple[list[tuple[Seen, Part]], Counter[Part]]:
    """The samples that stay, and how many of each part do not."""
    kept = [pair for position, pair in enumerate(samples) if position not in left_out]
    return kept, Counter(samples[position][1] for position in left_out)


def _ground(samples: Sequence[tuple[Seen, Part]], data: TaskFormat[Any]) -> list[Pair]:
    return same_ground([part for _, part in samples], [item.sample for item, _ in samples], data.corners)


def _listed(pairs: Sequence[Pair], samples: Sequence[tuple[Seen, Part]]) -> dict[str, Any]:
    """How many samples of each part are in a pair with one that counts more, and the pairs by id."""
    return {
        **_by_part(Counter(samples[position][1] for position in {pair.sample for pair in pairs})),
        "pairs": [
            {"sample": samples[one][0].sample.id, "held_out": samples[other][0].sample.id, "split": samples[other][1]}
            for one, other in pairs
        ],
    }


def _by_part(counts: Counter[Part]) -> dict[str, int]:
    return {part: counts[part] for part in PARTS if part != "test"}


def _say_shared(name: str, how: str, pairs: Sequence[Pair], samples: Sequence[tuple[Seen, Part]]) -> None:
    if not pairs:
        return
    one, other = (samples[position] for position in pairs[0])
    say(
        f"warning: {name}: {len({pair.sample for pair in pairs})} samples {how} samples of a part that counts more, "
        f"the first: {one[0].sample.id} ({one[1]}) and {other[0].sample.id} ({other[1]}); "
        f"all: {TASKS / f'{name}.json'}"
    )


def _look(
    name: str, data: TaskFormat[Any], scenes: Sequence[Scene], bands: Sequence[str]
) -> tuple[list[Seen], list[Refused]]:
    """Read every scene once; results are in the scenes' order."""

    def look(scene: Scene) -> list[Seen] | Refused:
        try:
            cuts = data.cut(scene, bands)
            content = data.content(scene)
        except ImageError as error:
            return Refused(Path(error.path).relative_to(data.raw).as_posix(), error.reason)
        return [_fingerprint(cut, content) for cut in cuts]

    seen: list[Seen] = []
    refused: list[Refused] = []
    for result in read_in_threads(look, scenes, f"{name}: reading", "scenes"):
        if isinstance(result, Refused):
            refused.append(result)
        else:
            seen += result
    return seen, refused


def _write_corners(
    path: Path, name: str, data: TaskFormat[Any], scenes: Sequence[Scene], bands: Sequence[str], held_out: set[str]
) -> None:
    """Keep the corners of every date of the held-out samples, and of its mirror image, sorted by id.

    Their scenes are read once more: corners of training samples, which nobody needs, would fill the memory.
    """

    def look(scene: Scene) -> list[tuple[str, Keypoints]]:
        try:
            cuts = [cut for cut in data.cut(scene, bands) if cut.sample.id in held_out]
        except ImageError:  # it was refused before
            return []
        return [(cut.sample.id, one) for cut in cuts for image in cut.images for one in both_ways(image)]

    found = [pair for pairs in read_in_threads(look, scenes, f"{name}: corners", "scenes") for pair in pairs]
    found.sort(key=lambda pair: pair[0])
    save_keypoints(path, [sample for sample, _ in found], [one for _, one in found])


def _fingerprint(cut: Cut, content: str) -> Seen:
    return Seen(
        sample=cut.sample,
        classes=cut.classes,
        pixel_hashes=tuple(pixel_hash(image) for image in cut.images),
        dhashes=tuple(tuple(dihedral_dhashes(image)) for image in cut.images),
        content=content,
        numbers=cut.numbers,
    )


def _summary(name: str, task: Task, classes: list[str], kept: Sequence[tuple[Seen, Part]]) -> dict[str, Any]:
    counts = Counter(part for _, part in kept)
    empty = [part for part in PARTS if not counts[part]]
    if empty:
        raise DataError(
            f"tasks.{name}: every {' and '.join(empty)} sample shows what a held-out one shows; "
            "take the copies out of the data, or divide its places otherwise (data.split)"
        )
    having: dict[Part, Counter[str]] = {part: Counter() for part in PARTS}
    for item, part in kept:
        having[part].update(item.classes)
    absent = {part: [label for label in classes if not having[part][label]] for part in PARTS}
    for part, why in (("train", "cannot be learned"), ("test", "cannot be scored")):
        if absent[part]:
            say(f"warning: {name}: {part} has no {', '.join(absent[part])}, which {why}")
    numbers = {part: _numbers(item for item, where in kept if where == part) for part in PARTS}
    if task.kind in NUMBERS:
        _check_numbers(name, task, numbers)
    else:
        _check_validation(name, task, [label for label in classes if having["val"][label]])
    return {
        "kind": task.kind,
        "classes": classes,
        "counts": {part: counts[part] for part in PARTS},
        "places": {part: sorted({item.sample.place for item, where in kept if where == part}) for part in PARTS},
        "samples_with_class": {part: {label: having[part][label] for label in classes} for part in PARTS},
        "absent": absent,
        **({"numbers": numbers} if task.kind in NUMBERS else {}),
    }


def _numbers(seen: Iterable[Seen]) -> dict[str, float]:
    """What the targets of some samples hold; empty where they hold no numbers."""
    own = [item.numbers for item in seen if item.numbers is not None]
    return Moments.together(own).as_dict() if own else {}


def _check_numbers(name: str, task: Task, numbers: Mapping[Part, Mapping[str, float]]) -> None:
    """DataError where the numbers of a part are all the same: nothing to learn, or R2 that is not defined."""
    if task.kind != "regression":
        return
    what = "number" if task.numbers_images else "measured pixel"
    why: Mapping[Part, str] = {
        "train": "there is nothing to learn",
        "val": "no epoch can be chosen",
        "test": "R2 is not defined",
    }
    for part in PARTS:
        if numbers[part]["min"] == numbers[part]["max"]:
            raise DataError(
                f"tasks.{name}: every {what} of {part} is {numbers[part]['min']:g}, so that {why[part]}; "
                f"check the data, or divide its places otherwise (data.split)"
            )


def _check_validation(name: str, task: Task, shown: Sequence[str]) -> None:
    """DataError where every epoch would score the same on the validation part, which shows these classes."""
    lacking = None
    pixels_of = task.positive_class if task.kind in CLASS_MAPS else None
    if pixels_of is not None and pixels_of not in shown:
        lacking = f"no {pixels_of}, the positive_class"
    elif not shown:
        lacking = "none of the classes"
    if lacking is not None:
        raise DataError(
            f"tasks.{name}: the validation part shows {lacking}, so that no epoch can be chosen; "
            f"give tasks.{name}.data.split.val places that do, or change its val_share"
        )
    if len(shown) == 1 and pixels_of is None:
        say(f"warning: {name}: val shows {shown[0]} only, by which epochs can hardly be told apart; see data.split")
