"""`gfm arp` on the tables that users bring, through the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

Gfm = Callable[..., tuple[int, str, str]]
# The paper's downstream tables, as in test_arp.
PUBLISHED = """model,task,metric,score
swin,oscd,f1,52.35
swin,dsifn,f1,69.62
swin,ucm,accuracy,99.0
swin,ben,map 10 %,85.7
swin,ben,map 1 %,79.5
swin,whu,iou,90.4
swin,vaihingen,miou,74.7
swin,spacenet2,psnr,21.655
gfm,oscd,f1,59.82
gfm,dsifn,f1,71.24
gfm,ucm,accuracy,99.0
gfm,ben,map 10 %,86.3
gfm,ben,map 1 %,80.7
gfm,whu,iou,90.7
gfm,vaihingen,miou,75.3
gfm,spacenet2,psnr,22.599
matter,oscd,f1,59.37
"""


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_published_table_gives_the_papers_number(gfm: Gfm) -> None:
    Path("published.csv").write_text(PUBLISHED)
    code, out, _ = gfm("arp", "published.csv", "--baseline", "swin", "--json", "out/arp.json")
    assert code == 0
    found = json.loads(Path("out/arp.json").read_text())
    assert round(found["gfm"]["arp"], 2) == 3.31
    assert sum(found["gfm"]["contributions"].values()) == pytest.approx(found["gfm"]["arp"])
    assert found["gfm"]["low"] is None  # one score a task: no spread
    assert found["matter"]["arp"] is None and len(found["matter"]["lacks"]) == 7
    assert "matter: no ARP, it lacks dsifn f1, ucm accuracy" in out
    assert "ben is the mean of map 10 %, map 1 %" in out


def test_seeds_give_an_interval_that_is_the_same_every_time(gfm: Gfm) -> None:
    scores = {"a": (0.5, 0.6, 0.4), "b": (0.6, 0.7, 0.5)}
    rows = [f"{model},t,f1,{score},{seed}" for model, own in scores.items() for seed, score in enumerate(own)]
    Path("seeds.csv").write_text("\n".join(["model,task,metric,score,seed", *rows]))
    first = gfm("arp", "seeds.csv", "--baseline", "a", "--json", "1.json")
    assert first[:1] == (0,) and first == gfm("arp", "seeds.csv", "--baseline", "a", "--json", "1.json")
    b = json.loads(Path("1.json").read_text())["b"]
    assert b["arp"] == pytest.approx(20.0) and b["low"] < b["arp"] < b["high"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model,task,score\na,t,1\n", "has no column metric; it has model, task, score"),
        ("model,task,metric,score\n", "has no rows"),
        ("model,task,metric,score\nbase,t,f1,1\na,t,f1,high\n", "line 3: score = 'high' is no finite number"),
        ("model,task,metric,score\nbase,t,f1,1\na,t,f1,\n", "line 3: score = '' is no finite number"),
        ("model,task,metric,score\nbase,t,f1,1\na,t,f1,nan\n", "line 3: score = 'nan' is no finite number"),
        ("model,task,metric,score\nbase,,f1,1\n", "line 2: task is empty"),
        ("\nmodel,task,metric,score\n\nbase,t,f1,1\n \n\na,t,f1,x\n", "line 7: score = 'x' is no finite number"),
        ("model,task,metric,score\na,t,f1,1\nb,t,f1,1\n", "has no model base; --baseline can be one of a, b"),
        ("model,task,metric,score\nbase,t,f1,1\na,t,f1,1\na,u,f1,1\n", "base has no f1 on u, which a has"),
        ("model,task,metric,score\nbase,t,f1,0\na,t,f1,1\n", "base scores 0 on task t, and ARP divides by it"),
        ('model,task\n"', "cannot be read as a CSV table"),
        ("model,task,metric,score,seed\nbase,t,f1,1,s0\n", "row 1: seed = 's0' is no whole number"),
        ("model,task,metric,score,seed\nbase,t,f1,1,0\nbase,t,f1,2,0\n", "base has two scores of f1 on t with seed 0"),
        (
            "model,task,metric,score,seed\nbase,t,f1,1,0\nbase,t,f1,1,1\nbase,t,iou,1,0\n",
            "base on t has fewer seeds of iou than of its other metrics",
        ),
        ("model,task,metric,score\nbase,t,f1,1e300\n", "is no finite number"),
        ("model,task,metric,score,score\nbase,t,f1,1,2\n", "has the column score twice"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(gfm: Gfm, text: str, told: str) -> None:
    Path("bad.csv").write_text(text)
    code, out, err = gfm("arp", "bad.csv", "--baseline", "base", "--json", "out.json")
    assert (code, out) == (2, "") and told in err and len(err.splitlines()) == 1
    assert not Path("out.json").exists()


def test_a_pipe_is_written_to_and_a_folder_is_refused(gfm: Gfm) -> None:
    Path("published.csv").write_text(PUBLISHED)
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert gfm("arp", "published.csv", "--baseline", "swin", "--json", "pipe")[0] == 0
    assert Path("pipe").is_fifo() and json.loads(os.read(reader, 100_000))["gfm"]
    os.close(reader)
    code, _, err = gfm("arp", "published.csv", "--baseline", "swin", "--json", ".")
    assert code == 2 and "is a folder; give the path of a file" in err


def test_a_model_without_a_training_fraction_is_not_compared(gfm: Gfm) -> None:
    Path("f.csv").write_text(
        "model,task,metric,score,fraction\nbase,t,f1,0.4,0.01\nbase,t,f1,0.8,0.1\nmine,t,f1,0.8,0.1\n"
    )
    code, out, _ = gfm("arp", "f.csv", "--baseline", "base")
    assert code == 0 and "mine: no ARP, it lacks t f1 at 0.01" in out


def test_spaces_make_no_other_model_and_seeds_may_be_written_large(gfm: Gfm) -> None:
    rows = ["base , t,f1,1.0,0", "base,t ,f1,2.0,1", "mine,t,f1,1.5,0", "mine,t,f1,2.5,1"]
    Path("s.csv").write_text("\n".join(["model,task,metric,score,Seed", *rows]))
    assert gfm("arp", "s.csv", "--baseline", "base", "--json", "s.json")[0] == 0
    found = json.loads(Path("s.json").read_text())
    assert list(found) == ["base", "mine"] and found["mine"]["low"] is not None


def test_the_table_itself_is_never_overwritten(gfm: Gfm) -> None:
    Path("published.csv").write_text(PUBLISHED)
    code, _, err = gfm("arp", "published.csv", "--baseline", "swin", "--json", "./published.csv")
    assert code == 2 and "is the results table itself" in err
    assert Path("published.csv").read_text() == PUBLISHED


def test_an_error_is_no_score(gfm: Gfm) -> None:
    Path("errors.csv").write_text("model,task,metric,score\na,biomass,RMSE,50\nb,biomass,RMSE,40\n")
    code, _, err = gfm("arp", "errors.csv", "--baseline", "a")
    assert code == 2 and "errors.csv: holds RMSE, of which less is better; turn it into a score (1 - RMSE /" in err
