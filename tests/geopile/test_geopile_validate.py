"""What `gfm validate` must see: each planted defect gives the finding that names it, and stops the chain."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from gfm.errors import DataError
from gfm.geopile.splits import split
from gfm.geopile.validate import FAILED, validate
from gfm.layout import (
    COLLECTION,
    COLLECTION_SPLIT,
    DATA_DOCS,
    EXPECTATIONS,
    MANIFEST,
    STATISTICS,
    VALIDATION,
    VALIDATION_PASSED,
)
from gfm.params import Params

ROOT = Path(__file__).parents[2]
SUITES = ROOT / "expectations"
TRAININGS = ("teacher", "pretrain", "finetune")
INDEX = Path("data/tasks/t.parquet")
SUMMARY = COLLECTION / "summary.json"


@pytest.fixture
def whole(chain: Any, picture: Callable[..., Any]) -> Params:
    """Outputs of every stage before validation, without a defect; returns their parameters."""
    for number in range(24):
        chain.image(f"i{number:03d}", picture(number), place=f"block-{number // 2}", bounds=(7.0, 50.0, 7.1, 50.1))
    for number in range(12):
        chain.sample(f"s{number:02d}", [picture(500 + number)], ("train", "val", "test")[number % 3])
    chain.write()
    split(chain.params)
    EXPECTATIONS.mkdir()
    for suite in SUITES.glob("*.json"):
        (EXPECTATIONS / suite.name).write_text(suite.read_text())
    params: Params = chain.params
    return params


def findings(params: Params) -> list[str]:
    """The critical findings' lines, after the chain was stopped for them."""
    with pytest.raises(DataError, match="validation failed"):
        validate(params)
    assert not VALIDATION.exists() and not VALIDATION_PASSED.exists()
    report = json.loads(FAILED.read_text())
    assert report["success"] is False
    return list(report["critical"])


def change(path: Path, edit: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    table = pd.read_parquet(path)
    edited = edit(table)
    (table if edited is None else edited).to_parquet(path, index=False)


def put(column: str, row: int, value: Any) -> Callable[[pd.DataFrame], None]:
    def edit(table: pd.DataFrame) -> None:
        table.loc[row, column] = value

    return edit


def repeat(column: str) -> Callable[[pd.DataFrame], None]:
    def edit(table: pd.DataFrame) -> None:
        table.loc[1, column] = table.loc[0, column]

    return edit


def empty(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.assign(**{column: None})


def moved(column: str, value: str) -> Callable[[pd.DataFrame], None]:
    """One of two rows that share a place goes to another split."""

    def edit(table: pd.DataFrame) -> None:
        table.loc[0, "place"] = table.loc[1, "place"] = "shared"
        table.loc[0, column], table.loc[1, column] = "train", value

    return edit


IMAGES, SPLIT = MANIFEST, COLLECTION_SPLIT
# What is done to which output, then where and how the finding must name it.
DEFECTS: dict[str, tuple[Path, Callable[[pd.DataFrame], Any], str, str]] = {
    "a lost row": (IMAGES, lambda table: table.drop(index=23), "manifest", "as many rows as the assembly counted"),
    "one id twice": (IMAGES, repeat("id"), "manifest.id", "drawn/i000.jpg"),
    "a picture twice": (IMAGES, repeat("pixel_hash"), "manifest.pixel_hash", "drawn/i000.jpg"),
    "an empty column": (IMAGES, empty("licence"), "manifest.licence", "rows"),
    "a missing column": (
        IMAGES,
        lambda table: table.drop(columns="nodata_share"),
        "manifest.nodata_share",
        "could not run",
    ),
    "a foreign source": (IMAGES, put("source", 3, "elsewhere"), "manifest.source", "drawn/i003.jpg: elsewhere"),
    "impossible entropy": (IMAGES, put("entropy_bits", 4, 9.5), "manifest.entropy_bits", "drawn/i004.jpg: 9.5"),
    "impossible contrast": (IMAGES, put("contrast", 10, 130.0), "manifest.contrast", "drawn/i010.jpg: 130"),
    "impossible sharpness": (IMAGES, put("sharpness", 11, -1.0), "manifest.sharpness", "drawn/i011.jpg: -1"),
    "bytes behind the shard": (IMAGES, put("offset", 5, 5000), "manifest.shard_bytes, end", "drawn/i005.jpg"),
    "a missing shard": (IMAGES, put("shard", 6, "00009.tar"), "manifest.shard_bytes", "drawn/i006.jpg"),
    "beyond the pole": (IMAGES, put("north", 7, 95.0), "manifest.north", "drawn/i007.jpg: 95"),
    "upside down": (IMAGES, put("north", 8, 49.0), "manifest.north, south", "drawn/i008.jpg"),
    "a source miscounted": (IMAGES, lambda table: table.drop(index=22), "sources.kept, rows", "drawn"),
    "an unknown split": (SPLIT, put("split", 9, "test"), "splits.split", "drawn/i009.jpg: test"),
    "an image without split": (SPLIT, lambda table: table.drop(index=21), "splits", "every image of the manifest"),
    "a divided place": (SPLIT, moved("split", "val"), "splits.splits_of_place", "drawn/i000.jpg: 2"),
    "of another manifest": (SPLIT, put("id", 2, "drawn/gone.jpg"), "splits.manifest_place", "drawn/gone.jpg"),
    "an unlisted leak": (SPLIT, put("split", 3, "leak"), "splits.is_leak, listed_leak", "drawn/i003.jpg"),
    "a task's divided place": (INDEX, moved("split", "test"), "tasks.splits_of_place", "s00: 2"),
    "a task's chip twice": (INDEX, repeat("pixel_hashes"), "tasks.splits_of_pixels", "s00: 2"),
    "a task without tests": (INDEX, lambda table: table[table["split"] != "test"], "tasks.splits_of_task", "2"),
    "a label of no class": (INDEX, put("labels", 4, '["sea"]'), "tasks.unknown_labels", "s04: 1"),
}
TOGETHER = [name for name in DEFECTS if name not in ("a task without tests", "an image without split")]


def test_many_defects_at_once_are_all_named(whole: Params) -> None:
    for name in TOGETHER:
        path, edit, _, _ = DEFECTS[name]
        change(path, edit)
    lines = findings(whole)
    for name in TOGETHER:
        _, _, where, what = DEFECTS[name]
        assert any(line.startswith(f"{where}:") and what in line for line in lines), (name, lines)


def test_nothing_to_validate_on_is_named(whole: Params) -> None:
    change(COLLECTION_SPLIT, lambda table: table.assign(split="train"))
    [line] = findings(whole)
    assert line.startswith("splits.split: not so: there is something to train on")


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_stops_the_chain_and_is_named(whole: Params, defect: str) -> None:
    path, edit, where, what = DEFECTS[defect]
    change(path, edit)
    assert any(line.startswith(f"{where}:") and what in line for line in findings(whole)), findings(whole)


def test_the_error_is_a_short_list_of_what_and_where(whole: Params) -> None:
    change(MANIFEST, put("entropy_bits", 4, 9.5))
    with pytest.raises(DataError) as error:
        validate(whole)
    first, *lines = str(error.value).splitlines()
    assert str(FAILED) in first
    assert len(lines) == 1
    assert "manifest.entropy_bits: not so: entropy of a grey histogram" in lines[0]
    assert "drawn/i004.jpg: 9.5" in lines[0]


def test_a_leak_left_in_training_is_found_even_when_the_guard_missed_it(whole: Params) -> None:
    held_out = json.loads(pd.read_parquet(INDEX).query("split == 'test'")["pixel_hashes"].iloc[0])[0]
    change(MANIFEST, put("pixel_hash", 0, held_out))
    assert any(line.startswith("splits.shows_held_out:") and "drawn/i000.jpg" in line for line in findings(whole))


def test_too_many_unusable_files_stop_the_chain(whole: Params) -> None:
    summary = json.loads(SUMMARY.read_text())
    summary["sources"]["drawn"] |= {"met": 26, "quarantined": 2}
    SUMMARY.write_text(json.dumps(summary))
    [line] = findings(whole)
    assert line.startswith("sources.quarantined_share: not so: files that cannot be used are few of all files")
    assert "all: 0.07692" in line


def test_a_source_that_gave_too_few_images_is_named(whole: Params) -> None:
    demanding = whole.model_copy(
        update={"validation": whole.validation.model_copy(update={"min_images_per_source": 30})}
    )
    assert any("drawn: 24" in line and "validation.min_images_per_source" in line for line in findings(demanding))


def test_what_was_wanted_stands_beside_what_was_found(whole: Params) -> None:
    validation = whole.validation.model_copy(update={"min_images": 200, "min_images_per_source": 30})
    change(COLLECTION_SPLIT, lambda table: table.assign(split="val"))
    lines = findings(whole.model_copy(update={"validation": validation}))
    assert "manifest: not so: enough usable images (validation.min_images); found 24, wanted at least 200" in lines
    assert any(line.endswith("found 2 of 2 rows, wanted at least 30 (drawn: 24; all: 24)") for line in lines)
    warnings = json.loads(FAILED.read_text())["warnings"]
    assert any("found 1 of 2 rows, wanted above 0 and at most 0.5 (drawn: 1)" in line for line in warnings)


def test_a_source_with_no_image_or_most_of_them_in_val_is_a_warning_with_its_name(whole: Params) -> None:
    few = set(pd.read_parquet(COLLECTION_SPLIT).query("place == 'block-1'")["id"])
    sources = whole.geopile.sources | {"few": whole.geopile.sources["drawn"]}
    two = whole.model_copy(update={"geopile": whole.geopile.model_copy(update={"sources": sources})})
    for path in (MANIFEST, COLLECTION_SPLIT):
        change(path, lambda table: table.assign(source=table["source"].where(~table["id"].isin(few), "few")))
    change(COLLECTION_SPLIT, lambda table: table.assign(split=table["source"].map({"few": "train", "drawn": "val"})))
    counts = {"drawn": {"met": 22, "kept": 22, "quarantined": 0}, "few": {"met": 2, "kept": 2, "quarantined": 0}}
    SUMMARY.write_text(json.dumps({"images": 24, "sources": counts}))
    validate(two)
    [line] = json.loads(VALIDATION.read_text())["warnings"]
    assert line.startswith("sources.val_share: not so: some images of every source are in val, and not most of them")
    assert "(drawn: 1; few: 0)" in line


def shown(kind: str) -> None:
    """The index says that a training sample shares something with a test sample."""
    meta = json.loads(INDEX.with_suffix(".json").read_text())
    meta[kind] = {"train": 1, "val": 0, "pairs": [{"sample": "s00", "held_out": "s02", "split": "test"}]}
    INDEX.with_suffix(".json").write_text(json.dumps(meta))


def test_ground_in_two_splits_of_a_task_stops_the_chain_and_names_both_samples(whole: Params) -> None:
    shown("same_ground")
    [line] = findings(whole)
    assert line.startswith("tasks.ground_of_held_out: not so: no ground is in two splits of a task")
    assert "data.split.overlap = drop" in line
    assert "s00: shows test s02" in line


def test_look_alikes_in_two_splits_of_a_task_are_a_warning(whole: Params) -> None:
    shown("near_duplicates")
    validate(whole)
    [line] = json.loads(VALIDATION.read_text())["warnings"]
    assert line.startswith("tasks.looks_like_held_out:")
    assert "s00: shows test s02" in line


def test_an_index_that_never_looked_for_shared_ground_does_not_pass(whole: Params) -> None:
    meta = json.loads(INDEX.with_suffix(".json").read_text())
    del meta["same_ground"]
    INDEX.with_suffix(".json").write_text(json.dumps(meta))
    assert any(line.startswith("tasks.ground_of_held_out:") and "could not run" in line for line in findings(whole))


def test_a_warning_is_shown_and_does_not_stop_the_chain(whole: Params, capsys: pytest.CaptureFixture[str]) -> None:
    change(MANIFEST, put("gsd_m", 2, 5000.0))
    validate(whole)
    report = json.loads(VALIDATION.read_text())
    assert report["success"] is True
    assert report["critical"] == []
    assert ["drawn/i002.jpg: 5000" in line for line in report["warnings"]] == [True]
    assert "warning" in capsys.readouterr().out
    assert not FAILED.exists()


def test_files_that_a_task_cannot_use_are_a_warning_with_its_name_once(whole: Params) -> None:
    meta = json.loads(INDEX.with_suffix(".json").read_text())
    INDEX.with_suffix(".json").write_text(json.dumps(meta | {"met": 128, "quarantined": 39}))
    for suffix in (".json", ".parquet"):
        shutil.copy(INDEX.with_suffix(suffix), INDEX.with_name(f"t-knn{suffix}"))
    raw = whole.model_dump(mode="json", exclude_unset=True)
    raw["tasks"]["t-knn"] = raw["tasks"]["t"] | {"variant_of": "t", "finetune": {"mode": "knn"}}
    validate(Params.model_validate(raw))
    report = json.loads(VALIDATION.read_text())
    (line,) = report["warnings"]
    assert line.startswith("task_files.quarantined_share: ") and "1 of 1 rows, wanted at most 0.05 (t: 0.3047)" in line
    assert "see data/tasks/quarantine.csv" in line


def test_the_same_data_give_the_same_report(whole: Params) -> None:
    validate(whole)
    first = VALIDATION.read_bytes()
    validate(whole)
    assert VALIDATION.read_bytes() == first
    checks = json.loads(first)["checks"]
    assert {check["suite"] for check in checks} == {path.stem for path in SUITES.glob("*.json")}
    assert set(checks[0]) >= {"suite", "expectation", "column", "severity", "success", "observed", "unexpected"}


def test_one_more_task_leaves_what_trainings_depend_on_as_it_was(whole: Params) -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    deps = {dep for stage in TRAININGS for dep in stages[stage]["deps"] if dep.startswith(("data/splits", "reports/"))}
    assert len(deps) == 2  # the split, and that the data were found good

    def made(params: Params) -> dict[str, bytes]:
        split(params)
        validate(params)
        return {dep: Path(dep).read_bytes() for dep in deps}

    before, validated = made(whole), VALIDATION.read_bytes()
    for suffix in (".parquet", ".json"):
        shutil.copy(INDEX.with_suffix(suffix), INDEX.with_name(f"another{suffix}"))
    assert made(whole.model_copy(update={"tasks": {**whole.tasks, "another": whole.tasks["t"]}})) == before
    assert VALIDATION.read_bytes() != validated  # it was looked at


def test_a_mended_chain_leaves_no_failure_report(whole: Params) -> None:
    good = MANIFEST.read_bytes()
    change(MANIFEST, put("entropy_bits", 4, 9.5))
    findings(whole)
    MANIFEST.write_bytes(good)
    validate(whole)
    assert not FAILED.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": "splits", "expectations": []}', "holds no expectation"),
        ("{", "not a suite of Great Expectations"),
        ('{"name": "splits", "expectations": [{"type": "expect_nonsense", "kwargs": {}}]}', "is not valid"),
        (
            '{"name": "splits", "expectations": [{"type": "expect_table_row_count_to_equal", '
            '"kwargs": {"value": {"$PARAMETER": "rowz"}}}]}',
            r"names \$rowz; known are rows",
        ),
    ],
)
def test_a_suite_that_asks_nothing_sensible_is_refused(whole: Params, content: str, message: str) -> None:
    (EXPECTATIONS / "splits.json").write_text(content)
    with pytest.raises(DataError, match=rf"splits\.json: .*{message}"):
        validate(whole)


def test_a_deleted_suite_is_missed(whole: Params) -> None:
    (EXPECTATIONS / "tasks.json").unlink()
    with pytest.raises(DataError, match=r"expectations/tasks\.json: no such suite"):
        validate(whole)


def test_a_users_own_expectation_is_run(whole: Params) -> None:
    suite = json.loads((EXPECTATIONS / "manifest.json").read_text())
    mine = {
        "type": "expect_column_max_to_be_between",
        "kwargs": {"column": "width", "max_value": 50},
        "severity": "critical",
    }
    suite["expectations"].append(mine)
    (EXPECTATIONS / "manifest.json").write_text(json.dumps(suite))
    assert findings(whole) == ["manifest.width: not so: expect_column_max_to_be_between; found 96, wanted at most 50"]


def test_an_empty_collection_never_passes(whole: Params) -> None:
    change(MANIFEST, lambda table: table.iloc[:0])
    change(COLLECTION_SPLIT, lambda table: table.iloc[:0])
    SUMMARY.write_text(json.dumps({"images": 0, "sources": {}}))
    assert any("validation.min_images" in line for line in findings(whole))


def test_a_manifest_of_an_older_version_says_what_to_run(whole: Params) -> None:
    change(MANIFEST, lambda table: table.drop(columns=["contrast", "sharpness"]))
    assert any(line.startswith("manifest.contrast:") and "dvc repro -f assemble" in line for line in findings(whole))


def next_version(params: Params, edit: Callable[[pd.DataFrame], Any]) -> None:
    """Another collection that passed assembly and split."""
    change(MANIFEST, edit)
    count = len(pd.read_parquet(MANIFEST))
    counts = {"met": count, "quarantined": 0, "images": count, "kept": count, "dropped": {}}
    SUMMARY.write_text(json.dumps({"images": count, "sources": {"drawn": counts}}))
    split(params)


def test_what_moved_since_the_version_before_is_a_warning_that_names_source_and_number(whole: Params) -> None:
    validate(whole)
    next_version(whole, lambda table: table.iloc[::2].assign(sharpness=20.0, gsd_m=10.0))
    validate(whole)
    lost, sharpness, gsd = warnings = json.loads(VALIDATION.read_text())["warnings"]
    assert lost.startswith("drift.lost_share: not so:") and "drawn: 0.5" in lost
    assert sharpness.startswith("drift.sharpness_shift: not so: median sharpness")
    assert gsd.startswith("drift.gsd_m_shift: not so: median resolution")
    validate(whole)  # the same version again is compared with the one before it, not with itself
    assert json.loads(VALIDATION.read_text())["warnings"] == warnings


def test_a_version_that_fails_is_not_what_the_next_is_compared_with(whole: Params) -> None:
    validate(whole)
    kept = STATISTICS.read_bytes()
    change(MANIFEST, lambda table: table.assign(entropy_bits=9.5))
    assert any(line.startswith("manifest.entropy_bits:") for line in findings(whole))
    assert STATISTICS.read_bytes() == kept


def test_data_docs_show_every_suite_and_fetch_nothing(whole: Params) -> None:
    change(MANIFEST, put("entropy_bits", 4, 9.5))
    findings(whole)
    pages = {path.stem: path.read_text() for path in DATA_DOCS.glob("*.html")}
    assert set(pages) == {"index", "manifest", "sources", "splits", "tasks", "task_files", "drift"}
    assert "9.5" in pages["manifest"] and "entropy_bits" in pages["manifest"]
    for page in pages.values():
        assert not re.search(r"""(?:src|href)=["']https?:|url\(['"]?https?:""", page)
        linked = re.findall(r'href="([^"#]+)"', page)
        assert all((DATA_DOCS / name).is_file() for name in linked), linked
    findings(whole)
    assert pages == {path.stem: path.read_text() for path in DATA_DOCS.glob("*.html")}


def test_nan_hides_nothing(whole: Params) -> None:
    change(MANIFEST, lambda table: table.assign(entropy_bits=np.nan))
    assert any(line.startswith("manifest.entropy_bits: not so: every row says") for line in findings(whole))
