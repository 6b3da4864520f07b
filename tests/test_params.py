"""What a user reads when a parameter file is wrong, and what a right one means."""

# One message is one row, as long as the user reads it.
# ruff: noqa: E501

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm.params import LocalFile, ParameterError, Params, load, rebase
from gfm.params.remarks import remarks

ROOT = Path(__file__).parents[1]
SHARES = {"val_share": 0.2, "test_share": 0.3}


def valid() -> dict[str, Any]:
    """A small parameter file whose source, task and model names are also format names, as users choose them."""
    return {
        "geopile": {
            "sources": {
                "scenes": {"format": "scenes", "root": "a", "licence": "x", "gsd_m": 1.0},
                "images": {"format": "images", "root": "b", "licence": "x"},
                "labelled": {"format": "class-folders", "root": "c", "licence": "x"},
            }
        },
        "teacher": {"kind": "supervised", "architecture": {}, "sources": ["labelled"]},
        "pretrain": {"gfm": {"recipe": "gfm"}},
        "tasks": {
            "scenes": {"kind": "classification", "data": {"format": "class-folders", "root": "u", "split": SHARES}},
            "change": {"kind": "change", "data": {"format": "oscd", "root": "o", "split": SHARES}},
            "buildings": {"kind": "segmentation", "data": {"format": "image-masks", "root": "w", "split": SHARES}},
        },
    }


MISSING = object()
FINER = {"kind": "super-resolution", "data": {"format": "spacenet2", "root": "u", "split": SHARES}}
BIOMASS = {
    "kind": "regression",
    "data": {
        "format": "image-targets", "root": "u", "split": SHARES, "target": {"dtype": "uint16", "nodata": -9999.0}
    },
}  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    raw = copy.deepcopy(valid())
    node = raw
    *way, last = path.split("/")
    for key in way:
        node = node.setdefault(key, {})
    if value is MISSING:
        del node[last]
    else:
        node[last] = value
    return raw


def message(tmp_path: Path, raw: Any) -> str:
    """The one line that `load` answers, without the file's name."""
    path = tmp_path / "params.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    with pytest.raises(ParameterError) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


TIMM = {"kind": "timm", "architecture": {}, "licence": "x"}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        # unknown keys
        ("sed", 1, "sed: unknown key; did you mean seed?"),
        ("geopile/sources/scenes/rooot", "x", "geopile.sources.scenes.rooot: unknown key; did you mean root?"),
        ("geopile/sources/images/limits", 3, "geopile.sources.images.limits: unknown key; did you mean limit?"),
        ("geopile/sources/images/images", 3, "geopile.sources.images.images: unknown key; did you mean imagery?"),
        ("tasks/change/data/chip", 3, "tasks.change.data.chip: unknown key; did you mean chip_px?"),
        ("teacher/weights", "x", "teacher.weights: unknown key; did you mean weight_decay?"),
        ("tasks/change/xyzzy", "x", "tasks.change.xyzzy: unknown key"),
        ("tasks/change/lr", 0.1, "tasks.change.lr: unknown key; did you mean finetune.lr?"),
        ("tasks/change/too_small", "x", "tasks.change.too_small: unknown key; did you mean evaluate.too_small?"),
        # missing
        ("geopile", MISSING, "geopile is missing"),
        ("geopile/sources/scenes/licence", MISSING, "geopile.sources.scenes.licence is missing"),
        ("geopile/sources/scenes/format", MISSING, "geopile.sources.scenes.format is missing"),
        ("tasks/scenes/data/split", MISSING, "tasks.scenes.data.split is missing"),
        ("tasks/scenes/kind", MISSING, "tasks.scenes.kind is missing"),
        # empty
        ("tracking", None, "tracking is empty: give a value, or leave the key out"),
        ("pretrain/gfm", None, "pretrain.gfm is empty: give a value, or leave the key out"),
        ("paths/raw", "", "paths.raw = '': must not be empty"),
        ("geopile/sources", {}, "geopile.sources = {}: needs at least 1 entry, not 0"),
        ("geopile/bands", [], "geopile.bands = []: needs at least 1 entry, not 0"),
        ("geopile/sources/scenes/licence", " ", "geopile.sources.scenes.licence = ' ': must be the terms of use, in words"),
        ("geopile/land_cover", {"root": "lc", "classes": {1: ""}}, "geopile.land_cover.classes.1 = '': must be the name of a class, which does not begin with a blank"),
        # wrong types and ranges
        ("seed", "x", "seed = 'x': must be a whole number"),
        ("seed", -1, "seed = -1: must be greater than or equal to 0"),
        ("device", "gpu", "device = 'gpu': must be 'auto', 'cpu' or 'cuda'"),
        ("geopile", 3, "geopile = 3: must be a mapping of keys"),
        ("models", "gfm", "models = 'gfm': must be a list"),
        ("pretrain/gfm/epochs", 1.5, "pretrain.gfm.epochs = 1.5: must be a whole number"),
        ("pretrain/gfm/epochs", True, "pretrain.gfm.epochs = True: must be a whole number"),
        ("pretrain/gfm/epochs", "3", "pretrain.gfm.epochs = '3': must be a whole number"),
        ("pretrain/gfm/recipe", "gmf", "pretrain.gfm.recipe = 'gmf': must be one of gfm, simmim, simmim-continual, distill, gfm-fast"),
        ("tasks/scenes/finetune/lr", "1e-3", "tasks.scenes.finetune.lr = '1e-3': must be a number; YAML takes it for text, write 1.0e-3"),
        ("tasks/scenes/finetune/lr", ".1.", "tasks.scenes.finetune.lr = '.1.': must be a number"),
        ("tasks/scenes/finetune/lr", float("inf"), "tasks.scenes.finetune.lr = inf: must be a finite number"),
        ("tasks/scenes/finetune/seeds", [1, -2], "tasks.scenes.finetune.seeds.1 = -2: must be greater than or equal to 0"),
        ("tasks/buildings/data/classes", ["no", False], "tasks.buildings.data.classes: names False, which YAML does not take for text: write it in quotes"),
        ("tasks/buildings/data/classes", ["no", {"yes": 1}], "tasks.buildings.data.classes: lists names alone; with their values it is a mapping: {background: 0, roof: [1, 2]}"),
        ("geopile/sources/scenes/imagery/bands", {"R": "red"}, "geopile.sources.scenes.imagery.bands.R = 'red': must be a number"),
        ("pretrain/my model", {"recipe": "gfm"}, "pretrain.my model = 'my model': must be a name of letters, digits, - and _"),
        ("carbon/country_iso", "us", "carbon.country_iso = 'us': must be three capital letters, such as FRA"),
        ("tracking/uri", "http://me:secret@host:5000", "tracking.uri: holds a password, which would be recorded and shown; take it out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (for a database PGPASSWORD) in the environment"),
        # unions
        ("geopile/sources/scenes/format", "scene", "geopile.sources.scenes.format = 'scene': must be one of scenes, class-folders, images, band-files, archive, webdataset"),
        ("tasks/scenes/data/format", "ucm", "tasks.scenes.data.format = 'ucm': must be one of class-folders, image-masks, oscd, bigearthnet, spacenet2, image-targets, labels-table, dated-folders, geobench-2"),
        ("teacher/kind", "hub", "teacher.kind = 'hub': must be one of supervised, timm"),
        ("geopile/sources/scenes/weight", 0, "geopile.sources.scenes.weight = 0: must be greater than 0"),
        ("geopile/sources/scenes/weight", -1.5, "geopile.sources.scenes.weight = -1.5: must be greater than 0"),
        ("geopile/sources/scenes/weight", float("inf"), "geopile.sources.scenes.weight = inf: must be a finite number"),
        ("geopile/sources/scenes/resample_m", 0, "geopile.sources.scenes.resample_m = 0: must be greater than 0"),
        ("geopile/sources/scenes/crs", "EPSG:3035", "geopile.sources.scenes: crs = EPSG:3035 is for scenes that are reprojected: give resample_m too"),
        ("geopile/sources/scenes/crs", "Lambert", "geopile.sources.scenes.crs = 'Lambert': must be a registered coordinate system, such as EPSG:3035"),
        ("geopile/sources/scenes/store", "bucket/x", "geopile.sources.scenes.store = 'bucket/x': must be an address, such as s3://bucket/folder"),
        ("geopile/sources/scenes/store", "s3://me:secret@bucket", "geopile.sources.scenes.store: must not hold a password: credentials come from the environment"),
        ("geopile/sources/scenes/store", "https://h/x?sig=1", "geopile.sources.scenes.store: must be an address without ? and #: signatures and keys come from the environment"),
        ("geopile/sources/scenes/gsd_m", "ten", "geopile.sources.scenes.gsd_m = 'ten': must be a number or a list"),
        ("geopile/sources/scenes/gsd_m", [1.0], "geopile.sources.scenes.gsd_m.1 is missing"),
        ("geopile/sources/scenes/gsd_m", [1, 2, 3], "geopile.sources.scenes.gsd_m = [1, 2, 3]: must be a number or needs at most 2 entries, not 3"),
        ("pretrain/gfm/crop", {"scale": [0.5, 2]}, "pretrain.gfm.crop.scale.1 = 2: must be less than 1 or 1"),
        ("student/architecture/args", {"depths": {"a": 1}}, "student.architecture.args.depths = {'a': 1}: must be true or false, a whole number, a number, text or a list"),
        ("teacher", TIMM | {"weights": 3}, "teacher.weights = 3: must be 'hub' or text in quotes"),
        ("teacher", TIMM | {"weights": "a.safetensors", "sha256": 0}, "teacher.sha256: must be text in quotes"),
        ("teacher", TIMM, "teacher.weights is missing"),
        (
            "teacher",
            TIMM | {"weights": "a.safetensors"},
            "teacher: sha256 is missing; give that of the weights file, so that another file is noticed",
        ),
        (
            "teacher",
            TIMM | {"weights": "hub", "sha256": "ab" * 32},
            "teacher: sha256 is for a local weights file; timm checks what it fetches from the hub",
        ),
    ],
)  # fmt: skip
def test_a_wrong_key_or_value_is_one_line_with_the_keys_that_stand_in_the_file(
    tmp_path: Path, path: str, value: Any, expected: str
) -> None:
    assert message(tmp_path, changed(path, value)) == expected


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            "tasks/scenes/data/root",
            "../x",
            "tasks.scenes.data.root: must name a folder below paths.raw, without .. and not from the root",
        ),
        (
            "geopile/sources/scenes/root",
            "/etc",
            "geopile.sources.scenes.root: must name a folder below paths.raw, without .. and not from the root",
        ),
        ("geopile/bands", ["R", "R"], "geopile.bands: names R twice"),
        ("pretrain/gfm/crop", {"scale": [1, 0.5]}, "pretrain.gfm.crop.scale: the smaller value first: 0.5, 1"),
        (
            "tasks/scenes/data/split",
            {"val": ["a"], "test": ["a"]},
            "tasks.scenes.data.split: a is named in test and in val; a place is in one part only",
        ),
        (
            "tasks/scenes/data/split",
            {"val_share": 0.5, "test_share": 0.5},
            "tasks.scenes.data.split: val_share + test_share = 1 leaves nothing to train on",
        ),
        (
            "tasks/scenes/metric",
            "macro_map",
            "tasks.scenes: metric = macro_map: a classification task takes accuracy or mean_class_accuracy",
        ),
        ("tasks/scenes/metric", "psnr", "tasks.scenes: metric = psnr: a classification task takes accuracy or mean_class_accuracy"),
        ("tasks/scenes/loss", "l1", "tasks.scenes: loss = l1 is for super-resolution and regression; leave it out"),
        ("tasks/scenes", FINER | {"positive_class": "roof"}, "tasks.scenes: positive_class = roof: a super-resolution task has no classes; leave it out"),
        ("tasks/scenes", FINER | {"metric": "r2"}, "tasks.scenes: metric = r2: a super-resolution task takes psnr or ssim"),
        ("tasks/scenes", FINER | {"kind": "regression"}, "tasks.scenes: a regression task reads image-targets or labels-table or dated-folders or geobench-2, not spacenet2"),
        ("tasks/scenes", FINER | {"finetune": {"mode": "knn"}}, "tasks.scenes: finetune.mode = knn is for classification and multilabel; a super-resolution task takes frozen, lora or full"),
        ("tasks/scenes", BIOMASS, "tasks.scenes.data.target: nodata = -9999 cannot be stored as uint16, 0 to 65535"),
        ("tasks/scenes/kind", "change", "tasks.scenes: a change task reads oscd, not class-folders"),
        ("tasks/change/kind", "multilabel", "tasks.change: a multilabel task reads bigearthnet or labels-table or dated-folders or geobench-2, not oscd"),
        ("tasks/buildings/positive_class", "zebra", "tasks.buildings: positive_class = zebra is not one of background, foreground"),
        ("tasks/scenes/data/split", {}, "tasks.scenes.data.split: give either test (names of places) or test_share (above 0), not both or neither"),
        ("evaluate/too_small", {"change": " "}, "evaluate.too_small.change: is empty; say why, in a few words"),
        ("tasks/scenes/data/split", SHARES | {"val": ["a"]}, "tasks.scenes.data.split: give either val (names of places) or val_share (above 0), not both or neither"),
        ("tasks/scenes/finetune/seeds", [1, 1], "tasks.scenes.finetune: seeds names a seed twice; the same run twice is no second opinion"),
        ("geopile/sources/scenes/imagery/bands", {"R": 0.6, "NIR": 0.8}, "geopile.sources.scenes.imagery.bands lacks G, B, which geopile.bands asks for; it has R, NIR: add it, or say in geopile.sources.scenes.composite which stored band stands for it"),
        ("geopile/sources/scenes/composite", {"X": "R"}, "geopile.sources.scenes.composite.X is not one of geopile.bands"),
        ("teacher/sources", ["nope"], "teacher.sources names nope, which is not in geopile.sources"),
        ("teacher/sources", ["scenes"], "teacher.sources names scenes, which carries no labels (declare class-folders, webdataset, or archive with labels: folders)"),
        ("pretrain/random", {"recipe": "gfm"}, "pretrain.random is a reserved model name; choose another"),
        ("models", ["x", "teacher"], "models names x; known are gfm, random, teacher"),
        ("models", ["gfm", "gfm", "teacher"], "models names a model twice"),
        ("models", ["random", "gfm"], "evaluate.baseline = teacher is not one of models"),
        ("evaluate/baseline", "other", "evaluate.baseline = other is not one of models"),
        ("pretrain/gfm/masking", {"unit": 20}, "pretrain.gfm.masking.unit = 20 is not a multiple of the backbone's stride 32; use 32 or 64"),
        ("student/architecture/image_px", 100, "student.architecture.image_px = 100 is not a multiple of pretrain.gfm.masking.unit = 32"),
        ("geopile/sources/scenes/imagery/nodata", 256, "geopile.sources.scenes.imagery: nodata = 256 cannot be stored as uint8, 0 to 255"),
        ("tasks/change/data/imagery/nodata", 0.5, "tasks.change.data.imagery: nodata = 0.5 cannot be stored as uint8, 0 to 255"),
        ("geopile/sources/scenes/imagery/nodata", float("nan"), "geopile.sources.scenes.imagery: nodata = nan cannot be stored as uint8, 0 to 255"),
        ("pretrain/gfm/schedule", {"min_lr": 1.0}, "pretrain.gfm.schedule: min_lr = 1 is above base_lr = 0.0002, the highest rate; lower it"),
        ("pretrain/gfm/schedule", {"warmup_lr": 1.0}, "pretrain.gfm.schedule: warmup_lr = 1 is above base_lr = 0.0002, the highest rate; lower it"),
        ("pretrain/gfm/epochs", 5, "pretrain.gfm.schedule.warmup_epochs = 10 is more than pretrain.gfm.epochs = 5; warm up for fewer"),
        ("pretrain/Teacher", {"recipe": "gfm"}, "pretrain.Teacher is a reserved model name; choose another"),
        ("geopile/store_px", 16, "geopile: store_px = 16 is below quality.min_px = 32: every image would be dropped as too small; raise one or lower the other"),
        ("geopile/scheduler", "node0:8786", "geopile.scheduler: node0:8786 is no address of a Dask scheduler, such as tcp://node0:8786"),
        ("geopile/scheduler", "http://node0:80", "geopile.scheduler: http://node0:80: a Dask scheduler is not found by http, only by tcp, tls, ucx, ws, wss"),
        ("pretrain/gfm/decoded_px", 256, "pretrain.gfm.decoded_px = 256 needs pretrain.gfm.decoded_cache: true"),
        ("pretrain/gfm", {"recipe": "gfm", "decoded_cache": True, "reduced_decoding": True}, "pretrain.gfm.reduced_decoding has no JPEGs to decode with pretrain.gfm.decoded_cache: true; use pretrain.gfm.decoded_px"),
        ("pretrain/gfm", {"recipe": "gfm", "resize_on": "device", "crop": {"interpolation": "linear"}}, "pretrain.gfm.resize_on = device resizes as published; leave out pretrain.gfm.crop.interpolation, the loader's"),
        ("pretrain/decoded-images", {"recipe": "gfm"}, "pretrain.decoded-images is a reserved model name; choose another"),
        ("pretrain/teacher-features", {"recipe": "gfm"}, "pretrain.teacher-features is a reserved model name; choose another"),
        ("student/architecture/name", "hf-hub:a/b", "student.architecture: name = hf-hub:a/b: give timm's own name; weights from elsewhere are a kind of encoder"),
        ("student/architecture/args", {"drop_path_rate": 1.5}, "student.architecture: args.drop_path_rate = 1.5: is a share from 0 to below 1"),
        ("teacher/sources", ["scenes", "scenes"], "teacher.sources: names scenes twice"),
        ("seed", 2**32, "seed = 4294967296: must be less than 4294967296"),
        ("pretrain/GFM", {"recipe": "gfm"}, "pretrain.GFM and pretrain.gfm differ in case only; rename one"),
        ("geopile/sources/images/root", "a/", "geopile.sources.images.root = a/ is the root of scenes too; leave one out, or tell them apart by include or composite"),
        ("student/normalisation/mean", [0.5], "student.normalisation has 1 means and 3 stds for 3 bands"),
        ("tasks/change/data/imagery", {"bands": {"B04": 0.6}}, "tasks.change.data.imagery has fewer bands than geopile.bands"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_together_are_named_with_what_would_fit(
    tmp_path: Path, path: str, value: Any, expected: str
) -> None:
    assert message(tmp_path, changed(path, value)) == expected


def test_a_student_of_another_architecture_cannot_start_from_the_teachers_weights(tmp_path: Path) -> None:
    raw = changed("pretrain/gfm/start", "teacher")
    raw["teacher"]["architecture"] = {"name": "resnet50"}
    expected = "pretrain.gfm.start = teacher needs the student to have the teacher's architecture"
    assert message(tmp_path, raw) == expected


def test_several_mistakes_show_the_first_and_how_many_more(tmp_path: Path) -> None:
    raw = changed("seed", "x") | {"sed": 1, "device": "gpu"}
    assert message(tmp_path, raw) == "seed = 'x': must be a whole number (and 2 more; `gfm check` tells them)"


def faults(tmp_path: Path, raw: Any) -> list[str]:
    message(tmp_path, raw)
    with pytest.raises(ParameterError) as caught:
        load(tmp_path / "params.yaml")
    return [fault.removeprefix(f"{tmp_path / 'params.yaml'}: ") for fault in caught.value.faults]


def test_every_wrong_key_and_value_has_a_line_and_the_branches_of_a_union_share_one(tmp_path: Path) -> None:
    raw = changed("seed", "x") | {"sed": 1}
    raw["geopile"]["sources"]["scenes"] |= {"gsd_m": "ten", "rooot": "x"}
    raw["tasks"]["scenes"]["data"]["split"] = {}
    assert faults(tmp_path, raw) == [
        "seed = 'x': must be a whole number",
        "geopile.sources.scenes.gsd_m = 'ten': must be a number or a list",
        "geopile.sources.scenes.rooot: unknown key; did you mean root?",
        "tasks.scenes.data.split: give either test (names of places) or test_share (above 0), not both or neither",
        "sed: unknown key; did you mean seed?",
    ]


def test_everything_that_does_not_agree_between_sections_has_a_line(tmp_path: Path) -> None:
    raw = changed("models", ["x", "y", "gfm"])
    raw["teacher"]["sources"] = ["nope", "scenes"]
    raw["evaluate"] = {"geobench2": {"lost": {"dataset": "caffe"}}}
    raw["pretrain"]["gfm"] |= {"batch_size": 5, "accumulate": 2}
    assert faults(tmp_path, raw) == [
        "teacher.sources names nope, which is not in geopile.sources",
        "teacher.sources names scenes, which carries no labels (declare class-folders, webdataset, or archive with labels: folders)",
        "models names x; known are gfm, random, teacher",
        "models names y; known are gfm, random, teacher",
        "evaluate.baseline = teacher is not one of models",
        "evaluate.geobench2 names lost, which is not in tasks; it has scenes, change, buildings",
        "pretrain.gfm.accumulate = 2 does not divide pretrain.gfm.batch_size = 5",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must hold a mapping of parameters, but holds nothing"),
        ("- 1", "must hold a mapping of parameters, but holds a list"),
        ("seed: 1\nseed: 2", "not valid YAML: line 2: key 'seed' stands twice"),
        ("geopile:\n  bands: []\n  bands: []", "not valid YAML: line 3: key 'bands' stands twice"),
        ("a: [", "not valid YAML: line 1: expected the node content, but found '<stream end>'"),
        ("? [a]\n: 1", "not valid YAML: line 1: a list or mapping cannot be a key"),
        ("a: *b", "not valid YAML: line 1: found undefined alias 'b'"),
        ("a: 2020-13-45", "not valid YAML: month must be in 1..12"),
    ],
)
def test_a_file_that_is_not_a_parameter_file_says_where(tmp_path: Path, text: str, expected: str) -> None:
    assert message(tmp_path, text) == expected


def test_a_python_object_in_the_file_is_refused_not_made(tmp_path: Path) -> None:
    assert "could not determine a constructor" in message(tmp_path, "a: !!python/object/apply:os.getcwd []")


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no such file; run in a folder that has one, or give --params FILE"):
        load(tmp_path / "params.yaml")


def test_a_file_that_is_not_text_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParameterError, match="cannot be read"):
        load(path)


def test_a_key_of_a_merged_anchor_may_be_overridden(tmp_path: Path) -> None:
    text = yaml.safe_dump(valid()).replace(
        "pretrain:\n  gfm:\n    recipe: gfm", "pretrain:\n  gfm: &a {recipe: gfm, epochs: 30}\n  b: {<<: *a, alpha: 2}"
    )
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert load(path).pretrain["b"].epochs == 30


def test_nodata_may_be_nan_in_floating_point_imagery(tmp_path: Path) -> None:
    raw = changed("geopile/sources/scenes/imagery", {"dtype": "float32", "nodata": float("nan")})
    nodata = Params.model_validate(raw).geopile.sources["scenes"].imagery.nodata
    assert nodata is not None
    assert nodata != nodata


@pytest.mark.parametrize(
    "path", [ROOT / "params.yaml", *sorted((ROOT / "configs").glob("*.yaml"))], ids=lambda p: p.name
)
def test_the_parameter_files_of_the_repository_load(path: Path) -> None:
    assert load(path).models


def test_values_cannot_change_after_loading() -> None:
    params = Params.model_validate(valid())
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 3  # type: ignore[misc]


def test_moving_a_file_moves_the_paths_relative_to_it_and_nothing_else(tmp_path: Path) -> None:
    raw = changed("teacher", TIMM | {"weights": "weights/a.safetensors", "sha256": "ab" * 32}) | {
        "paths": {"raw": "../imagery"}
    }
    moved = rebase(raw, tmp_path / "configs", tmp_path / "work" / "space")
    assert moved["paths"]["raw"] == "../../imagery"
    assert moved["teacher"]["weights"] == "../../configs/weights/a.safetensors"
    moved["paths"], moved["teacher"]["weights"] = raw["paths"], raw["teacher"]["weights"]
    assert moved == raw


def test_moving_a_file_keeps_absolute_paths_and_the_word_hub(tmp_path: Path) -> None:
    raw = changed("teacher", TIMM | {"weights": "hub"}) | {"paths": {"raw": "/imagery"}}
    assert rebase(raw, tmp_path / "a", tmp_path / "b") == raw


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True).filter(lambda n: n not in ("random", "teacher"))


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    tasks=st.lists(names, min_size=1, max_size=3, unique_by=str.lower),
    pretrain=names,
    lr=st.floats(1e-9, 10, allow_nan=False),
    gsd=st.one_of(st.none(), st.floats(0.01, 100), st.tuples(st.floats(0.01, 1), st.floats(1, 100))),
    raw_folder=st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable()),
)
def test_a_valid_file_written_and_read_again_means_the_same(
    seed: int, tasks: list[str], pretrain: str, lr: float, gsd: Any, raw_folder: str
) -> None:
    raw = valid()
    task = raw["tasks"]["scenes"] | {"finetune": {"lr": lr}}
    raw |= {
        "seed": seed,
        "tasks": dict.fromkeys(tasks, task),
        "pretrain": {pretrain: {"recipe": "gfm"}},
        "models": ["teacher", pretrain],
    }
    raw |= {"paths": {"raw": raw_folder}}
    raw["geopile"]["sources"]["scenes"]["gsd_m"] = gsd
    params = Params.model_validate(raw)
    again = Params.model_validate(yaml.safe_load(yaml.safe_dump(params.model_dump(mode="json"), allow_unicode=True)))
    assert again == params
    assert isinstance(again.paths.raw, LocalFile)


def test_weights_cannot_come_in_through_a_networks_arguments(tmp_path: Path) -> None:
    raw = changed("student/architecture/args", {"checkpoint_path": "x.pth"})
    assert message(tmp_path, raw).startswith("student.architecture: args.checkpoint_path is not the network's")


def test_statistics_of_8_bit_values_are_refused(tmp_path: Path) -> None:
    raw = changed("student/normalisation/mean", [123, 116, 103])
    assert message(tmp_path, raw).startswith("student.normalisation.mean.0 = 123: must be less than or equal to 1")


@pytest.mark.parametrize(
    ("run", "models", "told"),
    [
        ({"batch_size": 32}, ["teacher", "gfm"], ["pretrain.gfm.schedule.base_lr = 0.0002, the published rate"]),
        ({"batch_size": 512}, ["teacher", "gfm"], []),
        ({"batch_size": 32, "schedule": {"base_lr": 1e-2}}, ["teacher", "gfm"], []),
        (
            {"batch_size": 512, "resize_on": "device"},
            ["teacher", "gfm"],
            ["pretrain.gfm.resize_on = device takes far longer than the loader"],
        ),
        ({"batch_size": 512}, ["teacher"], ["pretrain.gfm is not among models: it is pretrained and never scored"]),
    ],
)
def test_what_is_rarely_meant_is_noted(run: dict[str, Any], models: list[str], told: list[str]) -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["pretrain"] = {"gfm": {"recipe": "gfm", "teacher_px": raw["pretrain"]["gfm"].get("teacher_px")} | run}
    noted = remarks(Params.model_validate(raw | {"models": models}))
    assert len(noted) == len(told) and all(line.startswith(start) for line, start in zip(noted, told, strict=True))
