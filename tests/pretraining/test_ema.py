"""The average of the weights: what is saved, exact after a kill, and apart from the training that it follows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gfm.pretraining.ema import WeightAverage
from gfm.pretraining.run import pretrain

GFM = Path("models/encoders/gfm")
DECAY = 0.75


def _weights() -> dict[str, torch.Tensor]:
    return load_file(GFM / "model.safetensors")


def test_the_saved_encoder_is_the_average_over_the_steps(teacher, make_params, monkeypatch):
    averages: list[dict[str, torch.Tensor]] = []
    live: list[dict[str, torch.Tensor]] = []
    update = WeightAverage.on_train_batch_end

    def watch(self, *arguments):
        update(self, *arguments)
        own = {key: value.clone() for key, value in self.source.state_dict().items()}
        live.append(own)
        averages.append({key: DECAY * averages[-1][key] + (1 - DECAY) * own[key] for key in own} if averages else own)

    monkeypatch.setattr(WeightAverage, "on_train_batch_end", watch)
    pretrain(make_params(pretrain={"ema_decay": DECAY}), "gfm")
    saved = _weights()
    assert len(averages) == 12
    for key, value in averages[-1].items():
        torch.testing.assert_close(saved[key], value)
    assert not all(torch.equal(saved[key], live[-1][key]) for key in saved)
    assert "exponential moving average over the steps, decay 0.75" in (GFM / "README.md").read_text()


def test_the_training_itself_is_the_same_with_an_average(teacher, make_params):
    pretrain(make_params(), "gfm")
    history = (GFM / "history.csv").read_text()
    pretrain(make_params(pretrain={"ema_decay": DECAY}), "gfm")
    assert (GFM / "history.csv").read_text() == history


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_training_resumes_to_the_same_average(teacher, make_params, killed_at, accumulate):
    params = make_params(pretrain={"ema_decay": DECAY, "checkpoint_steps": 1, "accumulate": accumulate})
    pretrain(params, "gfm")
    whole = _weights()
    killed_at(params, 6)
    pretrain(params, "gfm")
    assert all(torch.equal(whole[key], _weights()[key]) for key in whole)


def test_statistics_of_batch_norm_are_copied_not_averaged(folder, make_params, monkeypatch):
    network = {"name": "mobilenetv2_035", "image_px": 64, "args": {}}
    sources = []
    update = WeightAverage.on_train_batch_end

    def watch(self, *arguments):
        update(self, *arguments)
        sources.append(self.source)

    monkeypatch.setattr(WeightAverage, "on_train_batch_end", watch)
    student = {"architecture": network}
    pretrain(make_params(pretrain={"recipe": "simmim", "epochs": 1, "ema_decay": DECAY}, student=student), "gfm")
    saved, buffers = _weights(), dict(sources[-1].named_buffers())
    assert any("running_var" in key for key in buffers)
    assert all(torch.equal(saved[key], value) for key, value in buffers.items())
