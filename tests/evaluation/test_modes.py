"""One data set in several adaptation modes: side by side, and once in ARP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gfm.evaluation.evaluate import evaluate

SPLIT = {"val_share": 0.2, "test_share": 0.3}
SCENES = {"kind": "classification", "data": {"format": "class-folders", "root": "ucm", "split": SPLIT}}
BUILDINGS = {"kind": "segmentation", "data": {"format": "image-masks", "root": "whu", "split": SPLIT}}


def _tasks(**changes: Any) -> dict[str, Any]:
    knn = {**SCENES, "finetune": {"mode": "knn", "seeds": [0, 1, 2]}, "variant_of": "scenes", **changes}
    return {"scenes": {**SCENES, "finetune": {"seeds": [0, 1, 2]}}, "buildings": BUILDINGS, "scenes-knn": knn}


@pytest.fixture
def modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fabricate: Any) -> Any:
    monkeypatch.chdir(tmp_path)
    made = fabricate.workspace(fabricate.params(tasks=_tasks()))
    made.write_all()
    for model, scores in (("random", (0.9, 0.9, 0.8)), ("gfm", (0.1, 0.2, 0.1))):
        made.write_run("scenes-knn", model, scores)
    return made


def test_results_say_mode_and_data_set_and_arp_takes_each_data_set_once(modes: Any, gfm: Any) -> None:
    evaluate(modes.params)
    table = pd.read_csv("reports/results.csv")
    said = table.drop_duplicates("task").set_index("task")[["mode", "dataset"]]
    assert said.loc["scenes-knn"].tolist() == ["knn", "scenes"] and said.loc["scenes"].tolist() == ["full", "scenes"]
    arp = json.loads(Path("reports/arp.json").read_text())["models"]["gfm"]
    assert list(arp["contributions"]) == ["scenes", "buildings"] and arp["arp"] > 0
    page = Path("reports/report.html").read_text()
    table_of_modes = page[page.index("scenes by adaptation mode") : page.index('id="learning"')]
    assert "full<small>counted in ARP" in table_of_modes and ">knn</th>" in table_of_modes
    assert "0.133" in table_of_modes and "data of scenes, not counted in ARP" in page
    code, out, _ = gfm("results")
    assert code == 0 and "scenes-knn (accuracy), not in ARP" in out
    code, out, _ = gfm("arp", "reports/results.csv", "--baseline", "teacher")
    assert code == 0 and "left out, as variants of other tasks: scenes-knn" in out


def test_data_that_several_tasks_share_is_counted_once_and_the_page_says_so(modes: Any) -> None:
    leaks = pd.read_csv("data/splits/leaks.csv")
    again = leaks[leaks["task"] == "scenes"].assign(task="scenes-knn")
    pd.concat([leaks, again]).to_csv("data/splits/leaks.csv", index=False)
    rows = [(task, "ucm/a.png", "truncated") for task in ("scenes", "scenes-knn")]
    pd.DataFrame(rows, columns=["task", "file", "reason"]).to_csv("data/tasks/quarantine.csv", index=False)
    evaluate(modes.params)
    page = Path("reports/report.html").read_text()
    data = page[page.index('id="data"') : page.index('id="provenance"')]
    assert "scenes with its variants scenes-knn: of the same data, which is counted once, here and above." in data
    assert data.count("scenes-knn") == 1 and "and 1 of the tasks could not be used" in data


def test_a_mode_in_which_nothing_learns_has_no_empty_curves(modes: Any) -> None:
    for model in modes.params.models:
        columns = ["seed", "epoch", "step", "train_loss", "val_score"]
        pd.DataFrame(columns=columns).to_csv(f"models/tasks/scenes-knn/{model}/history.csv", index=False)
    evaluate(modes.params)
    assert not Path("reports/figures/learning-scenes-knn.png").exists()
    assert Path("reports/figures/learning-scenes.png").exists()
    assert "No curves of scenes-knn, where nothing learns by epochs." in Path("reports/report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"variant_of": "roofs"}, "variant_of = roofs: is not in tasks"),
        ({"image_px": 128}, "variant_of = scenes: differs in image_px"),
        ({"finetune": {}}, "scenes is in mode full too; give each variant a mode of its own"),
        ({"variant_of": "scenes-knn"}, "scenes-knn: is a variant itself"),
    ],
)
def test_a_variant_that_is_none_is_refused(fabricate: Any, changes: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        fabricate.params(tasks=_tasks(**changes))
