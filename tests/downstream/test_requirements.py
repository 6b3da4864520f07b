"""A mode whose package is missing is refused by name before anything is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from gfm import raw_imagery
from gfm.downstream import requirements

SAMPLE = Path(__file__).parents[2] / "params.yaml"


@pytest.mark.parametrize(("mode", "there", "code"), [("lora", False, 2), ("lora", True, 0), ("full", False, 0)])
def test_lora_without_peft_is_refused_by_check(mode, there, code, tmp_path, monkeypatch, gfm):
    monkeypatch.setattr(requirements, "find_spec", lambda name: object() if there else None)
    values = json.loads(json.dumps(yaml.safe_load(SAMPLE.read_text())))  # tasks of their own, not one by alias
    values["tasks"]["scenes"]["finetune"]["mode"] = mode
    monkeypatch.setattr(raw_imagery, "check_imagery", lambda params, home: "not looked for")
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(values))
    ended, _, said = gfm("check", "--params", file)
    assert ended == code
    assert ("tasks.scenes.finetune.mode = lora needs peft" in said) == (code != 0)
