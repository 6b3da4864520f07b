"""The report and the files beside it, as whoever receives them sees them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from gfm.errors import DataError
from gfm.evaluation.evaluate import evaluate
from gfm.evaluation.pictures import picture_address
from gfm.evaluation.table import print_results
from gfm.params import Tracking


@pytest.fixture(scope="module")
def evaluated(fabricate: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fabricated folder after `gfm evaluate`; read it, do not change it."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        evaluate(fabricate().params)
    yield folder


@pytest.fixture(scope="module")
def page(evaluated: Path) -> str:
    return (evaluated / "reports/report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects what a browser would fetch, and checks that tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]
        if tag not in ("meta", "img", "br", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def words(page: str) -> str:
    """The text of the page on one line, without style, tags and pictures."""
    text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", text)


def test_the_page_carries_everything_inside_and_is_small_enough_to_mail(evaluated: Path, page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert all(address.startswith(("data:image/", "#", "collection/")) for address in parsed.addresses)
    assert "@import" not in page
    assert "<script" not in page
    assert (evaluated / "reports/report.html").stat().st_size < 6_000_000


def test_the_page_opens_with_the_verdict_and_its_interval(page: str) -> None:
    text = words(page)
    assert "gfm is ahead of teacher with 3 seeds: ARP +10.39 %, not conclusive 95 % interval +9.12 to +11.51." in text
    assert "Without change, too small to conclude from: ARP +6.93 %" in text


def test_few_seeds_are_called_not_conclusive_with_the_number_that_would_do(page: str) -> None:
    text = words(page)
    assert "A bootstrap interval over fewer than 5 seeds is too narrow to conclude from" in text
    assert "with fewer than 5 seeds it is too narrow and not conclusive" in text


def test_the_grid_that_turned_kwh_into_kg_is_said(page: str) -> None:
    assert "Grid: 0.400 kg CO2eq per kWh (USA, stated in carbon.intensity_kg_per_kwh)." in words(page)


def test_a_failed_evaluation_closes_the_pipelines_run_as_failed(
    fabricate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gfm.errors import DataError
    from gfm.params import Tracking
    from gfm.tracking.runs import child_run
    from gfm.tracking.store import import_mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GFM_PIPELINE_RUN", raising=False)
    params = fabricate().params.model_copy(update={"tracking": Tracking()})
    with child_run(params, "scenes/gfm", "finetune", {}):
        pass
    (tmp_path / "models/tasks/scenes/gfm/scores.csv").unlink()
    with pytest.raises(DataError, match=r"scores\.csv"):
        evaluate(params)
    client = import_mlflow().MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("gfm").experiment_id])
    found = {run.info.run_name: run for run in runs}
    assert found["pipeline"].info.status == "FAILED"
    assert "scores.csv" in found["pipeline"].data.tags["error"]


def test_every_score_stands_beside_its_spread_and_the_best_is_bold(page: str) -> None:
    assert re.search(r'class="n best">0\.870 <small>± 0\.010</small>', page)
    assert re.search(r'class="n">0\.810 <small>± 0\.010</small>', page)
    assert "too small to conclude from: two test cities" in page


def test_the_data_section_counts_what_was_left_out_and_why(page: str) -> None:
    text = words(page)
    assert "naip 320 2 318 15 303 low entropy 4, duplicate 11 public domain" in text
    assert "280 images train, 20 are held out for the pretraining loss, 3 were taken out as leaks" in text
    assert "change val footprint 1" in text  # one image that matches two samples is one image
    assert "3 images in all" in text
    assert "Passed. 7 of 8 checks hold." in text
    assert "manifest: gsd_m is missing for 12 %" in text
    assert "change two test cities no yes in val 2 copies of held-out samples left out" in text
    assert "1 on the ground of held-out samples left out 4 look like held-out samples" in text
    assert "4 files of the collection and 1 of the tasks could not be used" in text


def test_names_and_reasons_from_files_cannot_inject_markup(page: str) -> None:
    assert "truncated &lt;after&gt; 812 bytes" in page
    assert "research &lt;only&gt;" in page
    assert "vega &amp; co" in page


def test_provenance_names_code_data_hardware_and_energy_method(page: str) -> None:
    text = words(page)
    for expected in ("a" * 32 + ".dir", "Some CPU @ 2.20GHz", "2.15.0", "codecarbon 3.3.2: CPU by its load"):
        assert expected in text


def test_arp_json_holds_the_figures_in_the_order_of_the_parameters(evaluated: Path) -> None:
    content = json.loads((evaluated / "reports/arp.json").read_text())
    assert list(content) == ["baseline", "undefined", "confidence", "tasks", "models", "spent", "parameters"]
    assert list(content["models"]) == ["random", "teacher", "gfm"]
    gfm = content["models"]["gfm"]
    figures = ["kg_co2eq", "kwh", "computed_kg_co2eq", "kg_co2eq_per_1000_samples"]
    assert list(gfm) == ["arp", "low", "high", "contributions", *figures, "energy_method", "grid", "run_id"]
    assert list(content["spent"]["all_runs_once"]) == figures
    assert content["spent"]["all_runs_once"]["kg_co2eq"] == pytest.approx(0.0009 + 0.0031 + 9 * 0.0004)
    assert list(content["spent"]["tasks"]) == ["scenes", "buildings", "change"]
    assert gfm["low"] < gfm["arp"] < gfm["high"]
    assert sum(gfm["contributions"].values()) == pytest.approx(gfm["arp"], abs=1e-3)
    assert gfm["kg_co2eq"] == pytest.approx(0.0052)
    assert gfm["energy_method"] == "codecarbon 3.3.2: CPU by its load"


def test_every_run_is_accounted_for_once_with_sums_by_task(page: str) -> None:
    told = words(page)
    account = told[told.index("Every run once") : told.index("How it is known")]
    assert account.count("pretraining gfm") == 1
    assert re.search(r"teacher 0\.00225 0\.9 g not computed \S+ s 2,800 0\.321 g teacher, gfm", account), account
    assert re.search(r"task change 0\.003 1\.2 g not computed \S+ s 5,700 0\.211 g fine-tuning", account), account
    assert "all runs 0.019 7.6 g" in account
    assert not re.search(r"\de-\d", told)


def test_sums_of_energy_stand_above_the_runs_that_they_are_made_of(page: str) -> None:
    rows = re.findall(r'<tr class="(sum|part|total sum)"><th>([^<]*)</th>', page)
    assert [name for kind, name in rows if kind != "part"] == [
        "collection and encoders",
        "task scenes",
        "task buildings",
        "task change",
        "all runs",
    ]
    assert [name for kind, name in rows if kind == "part"].count("fine-tuning") == 9


def test_other_pages_beside_the_report_and_what_a_search_found_are_in_it(
    workspace: Any,
) -> None:
    Path("reports/collection").mkdir(parents=True)
    Path("reports/collection/report.html").write_text("")
    folder = Path("models/tasks/scenes/gfm")
    record = json.loads((folder / "run.json").read_text())
    found = {"lr": 0.00049, "batch_size": 16, "metric": "accuracy", "score": 0.8126, "trials": 16, "without_score": 2}
    record["search"] = found | {"energy": record["energy"], "run_id": None}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "search").mkdir()
    shutil.copy(folder / "predictions.png", folder / "search/trials.png")
    evaluate(workspace.params)
    page = Path("reports/report.html").read_text()
    text = words(page)
    assert 'href="collection/report.html"' in page and "embeddings/" not in page
    assert "scenes accuracy gfm 0.00049 16 0.813 16 2 without a score" in text
    assert 'alt="trials of gfm on scenes"' in page
    assert "collection and encoders" in text and re.search(r"task scenes .* search .* fine-tuning", text)


def test_metrics_are_numbers_only_and_few(evaluated: Path) -> None:
    content = json.loads((evaluated / "reports/metrics.json").read_text())
    assert list(content) == ["arp", "kwh"]
    assert list(content["arp"]) == ["random", "gfm"] and list(content["kwh"]) == ["random", "teacher", "gfm"]
    assert content["kwh"]["gfm"] == pytest.approx(0.0052 / 0.4)
    assert isinstance(content["arp"]["gfm"], float)


def test_results_and_figures_lie_beside_the_report(evaluated: Path) -> None:
    reports = evaluated / "reports"
    assert (reports / "results.csv").read_text().splitlines()[:2] == [
        "model,task,metric,score,seed,mode,dataset",
        "random,scenes,accuracy,0.410000,0,full,scenes",
    ]
    names = {path.name for path in (reports / "figures").iterdir()}
    expected = {
        "arp.png",
        "contributions.png",
        "arp-carbon.png",
        "scores-scenes.png",
        "learning-scenes.png",
        "training-gfm.png",
    }
    assert expected <= names
    assert not list(reports.rglob(".*"))  # nothing half-written is left behind


def test_evaluating_again_writes_the_same_figures_and_numbers(
    evaluated: Path, fabricate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = fabricate()
    stale = Path("reports/figures/learning-removed.png")
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of a task that is no more")
    evaluate(workspace.params)
    assert not stale.exists()
    for name in ("arp.json", "metrics.json", "results.csv", "figures/arp.png", "report.html"):
        assert (tmp_path / "reports" / name).read_bytes() == (evaluated / "reports" / name).read_bytes()


def test_what_weakens_the_numbers_is_said_on_the_page(
    fabricate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One seed, energy that was not measured, code of another commit and uncommitted code."""
    monkeypatch.chdir(tmp_path)
    workspace = fabricate()
    other = fabricate.provenance([0], commit="f" * 40, dirty=True)
    workspace.write_run("change", "gfm", (0.4,), energy=fabricate.energy(None), provenance=other)
    evaluate(workspace.params)
    text = words(Path("reports/report.html").read_text())
    assert "No difference shown between gfm and teacher" in text
    assert "No ARP interval for gfm: one seed on change" in text
    assert "different commits" in text
    assert "ffffffffff (change gfm)" in text
    assert "Uncommitted changes were in the working tree of change gfm" in text
    assert "Not measured: fine-tuning on change" in text
    assert "ARP is not drawn against CO2eq" in text
    gfm = json.loads(Path("reports/arp.json").read_text())["models"]["gfm"]
    assert (gfm["low"], gfm["high"], gfm["kg_co2eq"]) == (None, None, None)  # and never zero
    print_results(workspace.params)
    out = capsys.readouterr().out
    assert re.search(r"^ARP, % .* \+9\.75 \(no interval\)$", out, re.MULTILINE)
    assert "| gfm: codecarbon 3.3.2: CPU by its load; not measured: codecarbon is not installed" in out


def test_a_baseline_that_scores_zero_leaves_everything_but_arp(
    fabricate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = fabricate()
    workspace.write_run("change", "teacher", (0.0, 0.0, 0.0))
    evaluate(workspace.params)
    print_results(workspace.params)
    why = "The baseline teacher scores 0 on task change, and ARP divides by it; choose another baseline"
    text, out = words(Path("reports/report.html").read_text()), capsys.readouterr().out
    assert f"ARP is not defined {why}" in text and f"ARP is not defined. {why}" in out
    assert "ARP is not drawn against CO2eq: it is not defined" in text
    assert re.search(r"^ARP, %( +not defined){3}$", out, re.MULTILINE)
    assert re.search(r"^change \(f1\) +0.213 ±0.035 +0.000 ±0.000 +0.407 ±0.025$", out, re.MULTILINE)
    assert "change,f1,0.430000,2" in Path("reports/results.csv").read_text()
    found = json.loads(Path("reports/arp.json").read_text())
    assert found["undefined"].startswith("the baseline teacher scores 0")
    assert [entry["arp"] for entry in found["models"].values()] == [None, None, None]
    assert found["models"]["gfm"]["kwh"] > 0
    assert json.loads(Path("reports/metrics.json").read_text())["arp"] == {"random": None, "gfm": None}
    drawn = {path.name for path in Path("reports/figures").iterdir()}
    assert "learning-change.png" in drawn and not drawn & {"arp.png", "contributions.png", "arp-carbon.png"}


def test_a_missing_stage_is_named_and_leaves_no_report(workspace: Any) -> None:
    Path("data/splits/leaks.csv").unlink()
    with pytest.raises(DataError, match=r"data/splits/leaks\.csv: no such file; run `dvc repro split`"):
        evaluate(workspace.params)
    assert not Path("reports/report.html").exists()


def test_a_large_picture_is_made_to_fit(tmp_path: Path, fabricate: Any) -> None:
    fabricate.picture(tmp_path / "big.png", columns=6, side=300)
    assert len(picture_address(tmp_path / "big.png", 150_000)) < 160_000


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "predictions.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"predictions\.png: cannot be read as a picture"):
        picture_address(tmp_path / "predictions.png", 10_000)


def test_the_terminal_shows_the_table_and_where_to_look_further(
    evaluated: Path, fabricate: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(evaluated)
    print_results(fabricate.params(tracking={"uri": "sqlite:///mlflow.db"}))
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].split() == ["task", "random", "teacher", "(baseline)", "gfm"]
    assert re.search(r"^scenes \(accuracy\) +0\.423 ±0\.015 +0\.810 ±0\.010 +0\.870 ±0\.010$", out, re.MULTILINE)
    assert re.search(
        r"^ARP, % +-33\.93 \[-\d+\.\d\d, -\d+\.\d\d\] +0 +\+10\.39 \[\+9\.12, \+11\.51\]$", out, re.MULTILINE
    )
    assert re.search(r"^CO2eq +1\.2 g +2\.1 g +5\.2 g$", out, re.MULTILINE)
    assert len({len(line) for line in lines[:8]}) == 1  # aligned
    assert lines[8].startswith("± is half of the 95 % bootstrap interval over seeds")
    assert lines[9] == "CO2eq by codecarbon 3.3.2: CPU by its load."
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in out
    assert "prefect server start" in out
    assert "reports/report.html" in out


def test_neither_page_nor_terminal_show_the_servers_password(
    workspace: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "from-the-environment")
    evaluate(workspace.params)
    # A parameter file with a password is refused; this is what stands behind that.
    address = Tracking.model_construct(uri="http://ann:in-the-address@host:5000", experiment="fabricated")
    print_results(workspace.params.model_copy(update={"tracking": address}))
    told = capsys.readouterr().out
    assert "MLflow UI:  http://***@host:5000" in told
    written = [path.read_bytes() for path in Path("reports").rglob("*") if path.is_file()]
    for secret in ("from-the-environment", "in-the-address"):
        assert secret not in told and not any(secret.encode() in content for content in written)


def test_results_before_any_evaluation_say_what_to_run(
    tmp_path: Path, fabricate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"reports/results\.csv: no such file; run `dvc repro evaluate`"):
        print_results(fabricate.params())


def test_results_of_other_parameters_are_not_shown_as_current(
    evaluated: Path, fabricate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(evaluated)
    with pytest.raises(DataError, match=r"made for other tasks or models \(buildings x random\)"):
        print_results(fabricate.params(models=["teacher", "gfm"]))


def test_what_scores_without_training_stands_beside_the_models(
    workspace: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in Path("models/tasks/scenes").glob("*/run.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"reference": {"name": "bicubic", "test": {"accuracy": 0.5125}}}))
    evaluate(workspace.params)
    assert "accuracy · full bicubic 0.512 without training" in words(Path("reports/report.html").read_text())
    print_results(workspace.params)
    assert "scenes: bicubic 0.512 without training\n" in capsys.readouterr().out
