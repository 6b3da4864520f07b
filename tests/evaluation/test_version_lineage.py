"""A version's lineage answers where it comes from, what it cost and who tested it, and says what nobody knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gfm.tracking.runs import ENCODER_TAG

Gfm = Callable[..., tuple[int, str, str]]
STRONG = {"scenes": [0.87, 0.88, 0.86, 0.87, 0.89], "buildings": [0.66, 0.67, 0.65, 0.68, 0.66]}


def test_lineage_tells_data_code_parents_energy_licences_and_fine_tunings(store: Any, gfm: Gfm) -> None:
    number = store.version()
    made_by = store.client.get_model_version(store.name, number).run_id
    tuning = store.run("scenes/gfm", "finetune", **{ENCODER_TAG: made_by})
    store.run("scenes/other", "finetune", **{ENCODER_TAG: "another"})
    store.score(number, STRONG)
    assert gfm("promote")[0] == 0
    code, out, err = gfm("lineage", "--json", "lineage.json")
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert out.startswith(f"{store.name} version {number} (champion)\n")
    for words in (
        f"commit {'c' * 40}, not edited",
        "data, DVC d1.dir data, manifest m1 data, splits s1",
        f"parent teacher supervised, run {store.teacher}",
        "licence, weights Apache-2.0 licence, data public domain; research <only>",
        "making gfm 0.25 100 g teacher 0.25 100 g sum of it and its parents 0.5 200 g",
        "scenes/gfm 0.25 100 g sum of its fine-tunings 0.25 100 g",
        "Measured by: by the test",
        "Grid: 0.400 kg CO2eq per kWh (FRA, stated)",
        f"run {tuning}",
        "epochs 6",
        "gate passed, ARP +",
    ):
        assert words in text, words
    assert "other" not in text
    found = json.loads(Path("lineage.json").read_text(encoding="utf-8"))
    assert found["energy"]["making"]["kg_co2eq"] == pytest.approx(0.2)
    assert found["parents"][0]["run_id"] == store.teacher and found["data"]["dvc"] == "d1.dir"
    assert found["champion"]["approval"]["gate"] == "passed"


def test_lineage_says_what_was_not_measured_and_sums_nothing_then(store: Any, gfm: Gfm) -> None:
    store.client.delete_run(store.teacher)
    number = store.version()
    out = " ".join(gfm("lineage", number)[1].split())
    assert "sum of it and its parents not measured not measured" in out
    assert "Not measured: teacher: its run is no longer in the store" in out
    assert "Fine-tunings that scored it: none recorded" in out
    imported = store.version(
        **{"parents.teacher.origin": "imported", "parents.teacher.made_from": "timm/swin", "parents.teacher.run_id": ""}
    )
    out = " ".join(gfm("lineage", imported)[1].split())
    assert "Not measured: teacher: the training of timm/swin, which happened elsewhere" in out
    assert "sum of it and its parents 0.25 100 g" in out


def test_lineage_finds_the_versions_built_on_a_data_version(store: Any, gfm: Gfm) -> None:
    first = store.version(**{"data.dvc": "aa11.dir"})
    second = store.version(**{"data.dvc": "aa22.dir"})
    assert gfm("lineage", "--data", "bb")[0] == 2
    out = gfm("lineage", "--data", "AA")[1]
    assert [line.split()[0] for line in out.splitlines()] == ["version", first, second]
    code, out, _ = gfm("lineage", "--data", "aa22", "--json", "on.json")
    assert code == 0 and out.splitlines()[1].startswith(f"{second} (challenger)")
    assert json.loads(Path("on.json").read_text(encoding="utf-8"))[0]["version"] == second
    assert "give it or VERSION" in gfm("lineage", "1", "--data", "aa")[2]
    assert "give the beginning of a hash" in gfm("lineage", "--data", " ")[2]
    assert "has no version 7; it has 1, 2" in gfm("lineage", "7")[2]
