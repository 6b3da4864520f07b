"""GEO-Bench-2's data sets as the public code makes them, in miniature, through configs/geobench2.yaml."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import yaml

from gfm.downstream.table import read_index
from gfm.params import GeoBench2, Task

ROOT = Path(__file__).parents[2]
WHOLE = yaml.safe_load((ROOT / "configs/geobench2.yaml").read_text(encoding="utf-8"))
DAYS = [(f"planet_{day}", "uint16", 4) for day in range(8)]
MONTHS = ("September", "October", "November", "May", "June")

# Files of a sample: name, type and bands, or the values of a map. As generate_benchmark/NAME.py writes them.
LAYOUTS = {
    "benv2": [("s1", "float32", 2), ("s2", "uint16", 12)],
    "treesatai": [("aerial", "uint8", 4), ("s1", "uint16", 3), ("s2", "uint16", 12)],
    "forestnet": [("image", "uint8", 6)],
    "so2sat": [("s1", "float32", 2), ("s2", "float32", 10)],
    "burn_scars": [("image", "float32", 6), ("label", "int16", range(-1, 2))],
    "cloudsen12": [("s2l2a", "uint16", 14), ("target", "uint8", range(4))],
    "flair2": [("aerial", "uint8", 5), ("mask", "uint8", range(1, 20))],
    "fotw": [
        ("win_a", "uint16", 4),
        ("win_b", "uint16", 4),
        ("instance_mask", "uint8", range(9)),
        ("semantic_3class_mask", "uint8", range(4)),
    ],
    "spacenet2": [
        ("ps-ms", "uint16", 8),
        ("pan", "uint16", 1),
        ("semantic_mask", "uint8", range(2)),
        ("instance_mask", "uint16", range(5)),
    ],
    "spacenet7": [("images", "uint8", 4), ("mask", "uint8", range(2))],
    "dynamic_earthnet": [*DAYS, ("s1", "float32", 8), ("s2", "uint16", 12), ("label", "uint8", range(7))],
    "biomassters": [
        *[(f"0a1b_S1_{month}", "float32", 4) for month in MONTHS],
        *[(f"0a1b_S2_{month}", "uint16", 11) for month in MONTHS[1:]],
        ("0a1b_AGBM", "float32", 1),
    ],
}
# What says the label: of the sample itself, and of its files. Those of GEO-Bench 1 are numbers in the files.
LABELS = {
    "benv2": ("labels", lambda n: ["Pastures", "Mixed forest"][: 1 + n % 2], None),
    "treesatai": ("species_labels", lambda n: ["Abies", "Tilia"][: 1 + n % 2], None),
    "forestnet": ("labels", lambda n: ("Mining", "Other")[n % 2], lambda n: (7, 11)[n % 2]),
    "so2sat": ("labels", lambda n: ("Water", "Heavy industry")[n % 2], lambda n: (16, 9)[n % 2]),
}
PUBLISHED_PARTS = ("train", "validation", "test")


def _sample(name, number, dice, tortillas):
    field, own, inner = LABELS.get(name, (None, None, None))
    fields = {} if field is None else {field: (inner or own)(number)}
    files = []
    for file, kind, bands in LAYOUTS[name]:
        if isinstance(bands, range):
            pixels = dice.choice(list(bands), (16, 16)).astype(kind)
        elif kind == "float32":
            pixels = dice.random((16, 16, bands), np.float32)
        else:
            pixels = dice.integers(1, 250 if kind == "uint8" else 10_000, (16, 16, bands)).astype(kind)
        files.append((file, tortillas.tiff(pixels, east=500_000 + 400 * number), fields))
    return tortillas.pack(files), {} if field is None else {field: own(number)}


def _write(folder, name, tortillas):
    dice = np.random.default_rng(sorted(LAYOUTS).index(name))
    samples = []
    for number in range(6):
        data, fields = _sample(name, number, dice, tortillas)
        samples.append((f"sample_{number}", data, {"tortilla:data_split": PUBLISHED_PARTS[number % 3], **fields}))
    folder.mkdir(parents=True)
    if name in ("biomassters", "dynamic_earthnet"):  # published in parts
        for part in range(3):
            pack = tortillas.pack(samples[2 * part : 2 * part + 2], parts=3)
            (folder / f"geobench_{name}.{part:04}.part.tortilla").write_bytes(pack)
    else:
        (folder / f"geobench_{name}.tortilla").write_bytes(tortillas.pack(samples))


def test_the_declarations_are_of_these_data_sets():
    assert set(WHOLE["tasks"]) == set(LAYOUTS)
    known = WHOLE["evaluate"]["geobench2"]
    assert {name: entry["dataset"] for name, entry in known.items()} == {name: name for name in LAYOUTS}


def test_every_data_set_is_indexed_as_published_and_declared(workplace, tortillas):
    for name in LAYOUTS:
        _write(workplace.raw / "geobench2" / name, name, tortillas)
    whole = WHOLE | {"paths": {"raw": "raw"}, "device": "cpu"}
    (workplace.folder / "params.yaml").write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    code, printed = workplace.gfm("index")
    assert code == 0, printed
    assert workplace.quarantined() == {}
    for name, task in WHOLE["tasks"].items():
        summary = json.loads((workplace.folder / f"data/tasks/{name}.json").read_text())
        assert summary["counts"] == {"train": 2, "val": 2, "test": 2}, name
        assert summary["split_by"] == "tortilla:data_split"
        assert summary["classes"] == list(task["data"].get("classes", []))
    dates = {name: {len(row.sample.inputs) for row in read_index(name).rows} for name in LAYOUTS}
    assert {name: count for name, count in dates.items() if count != {1}} == {
        "biomassters": {4},
        "dynamic_earthnet": {6},
        "fotw": {2},
    }
    assert {row.sample.labels for row in read_index("so2sat").rows} == {("Water",), ("Heavy industry",)}


def test_the_data_sets_of_other_sensors_are_declared_in_the_documentation():
    text = (ROOT / "docs/benchmark.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(tasks:\n  caffe:.*?)```", text, re.DOTALL)
    declared = yaml.safe_load(block)
    assert set(declared["tasks"]) == {"caffe", "kuro_siwo"} == set(declared["evaluate"]["geobench2"])
    for name, task in declared["tasks"].items():
        data_set = GeoBench2.model_validate(declared["evaluate"]["geobench2"][name])
        assert not data_set.misfit(Task.model_validate(task).kind, None)
