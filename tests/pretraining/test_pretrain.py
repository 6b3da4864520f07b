"""What a user gets from `gfm pretrain`: a loadable encoder, the same after a kill, and errors that name the fix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from safetensors.torch import load_file

from gfm import layout
from gfm.errors import GfmError
from gfm.models.encoder import load_encoder
from gfm.output_folder import new_folder
from gfm.pretraining.recipe_module import RecipeModule
from gfm.pretraining.run import pretrain
from gfm.pretraining.teacher import make_teacher
from gfm.pretraining.trainer import TimedCheckpoint
from gfm.tracking.provenance import content_hash

GFM = Path("models/encoders/gfm")


def _weights(name: str = "gfm") -> dict[str, torch.Tensor]:
    return load_file(layout.encoder_folder(name) / "model.safetensors")


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_pretrained_encoder_opens_in_timm_and_here_with_everything_that_explains_it(folder, make_params, capsys):
    params = make_params()
    make_teacher(params)
    pretrain(params, "gfm")

    plain = timm.create_model(f"local-dir:{GFM}", pretrained=True, num_classes=0).eval()
    encoder = load_encoder(GFM, image_px=64, seed=9).eval()
    image = torch.rand(1, 3, 64, 64)
    theirs = plain.forward_features(encoder.normalise(image)).permute(0, 3, 1, 2)
    torch.testing.assert_close(encoder(image)[-1], theirs)
    assert {path.name for path in GFM.iterdir()} == {
        "config.json",
        "model.safetensors",
        "run.json",
        "README.md",
        "history.csv",
        "reconstructions.png",
        "neighbours.png",
    }
    run = json.loads((GFM / "run.json").read_text())
    assert run["samples"] == 3 * 4 * 4 and run["seed"] == 0 and run["metrics"]["val_mim"] > 0
    assert len((GFM / "history.csv").read_text().splitlines()) == 4
    card = (GFM / "README.md").read_text()
    assert "| scenes | 16 | CC0 |" in card and "codecarbon is not installed" in card
    assert not Path("checkpoints/gfm").exists()


def test_a_pretraining_without_a_source_names_the_data_that_it_saw(teacher, make_params):
    """Not those of the whole collection, which is another manifest."""
    less = layout.manifest_without("more")
    less.parent.mkdir()
    whole = pq.read_table(layout.MANIFEST)
    pq.write_table(whole.slice(0, 20), less)
    more = {"more": {"format": "class-folders", "root": "more", "licence": "CC0"}}
    sources = {"scenes": {"format": "class-folders", "root": "scenes", "licence": "CC0"}} | more
    geopile = {"sources": sources, "leave_out": ["more"]}
    pretrain(make_params(pretrain={"without": "more", "epochs": 1}, geopile=geopile), "gfm")
    data = json.loads((GFM / "run.json").read_text())["provenance"]["data"]
    assert data["manifest"] == content_hash(less) != content_hash(layout.MANIFEST)
    assert data["without"] == "more" and data["splits"] == content_hash(layout.COLLECTION_SPLIT)
    assert json.loads((GFM / "config.json").read_text())["gfm"]["provenance"]["data"] == data


def test_the_same_seed_gives_the_same_encoder_and_another_seed_another(teacher, make_params):
    pretrain(make_params(), "gfm")
    first = _weights()
    pretrain(make_params(pretrain={"workers": 2}), "gfm")
    assert _same(first, _weights())
    pretrain(make_params(seed=1), "gfm")
    assert not _same(first, _weights())


@pytest.mark.parametrize("recipe", ["gfm", "gfm-fast"])
def test_a_pretraining_may_have_a_seed_of_its_own(teacher, make_params, recipe):
    run = {"recipe": recipe, "epochs": 1}
    pretrain(make_params(pretrain=run, seed=1), "gfm")
    of_the_file, history = _weights(), (GFM / "history.csv").read_text()
    pretrain(make_params(pretrain=run | {"seed": 1}), "gfm")
    assert _same(of_the_file, _weights())
    assert (GFM / "history.csv").read_text() == history
    record = json.loads((GFM / "run.json").read_text())
    assert record["seed"] == record["provenance"]["seed"] == 1
    pretrain(make_params(pretrain=run | {"seed": 0}, seed=1), "gfm")
    assert not _same(of_the_file, _weights())


def test_a_killed_pretraining_resumes_wherever_its_seed_is_given(teacher, make_params, killed_at):
    saving = {"checkpoint_steps": 1}
    killed_at(make_params(pretrain=saving, seed=1), 5)
    pretrain(make_params(pretrain=saving | {"seed": 1}), "gfm")
    assert json.loads((GFM / "run.json").read_text())["resumed_at_step"] == 5
    killed_at(make_params(pretrain=saving, seed=1), 5)
    pretrain(make_params(pretrain=saving | {"seed": 0}, seed=1), "gfm")
    assert json.loads((GFM / "run.json").read_text())["resumed_at_step"] is None


@pytest.mark.parametrize("killed_after", [5, *(pytest.param(step, marks=pytest.mark.slow) for step in (2, 4, 8, 11))])
def test_a_killed_pretraining_resumes_to_the_same_encoder_and_history(teacher, make_params, killed_at, killed_after):
    params = make_params(pretrain={"checkpoint_minutes": 1e-9})
    pretrain(params, "gfm")
    whole, history = _weights(), (GFM / "history.csv").read_text()

    killed_at(params, killed_after)
    assert _same(whole, _weights()), "the finished encoder of before must stay until there is a new one"
    pretrain(params, "gfm")

    assert _same(whole, _weights())
    assert (GFM / "history.csv").read_text() == history
    run = json.loads((GFM / "run.json").read_text())
    assert 0 < run["resumed_at_step"] <= killed_after
    assert run["samples"] == 12 * 4


def test_a_checkpoint_of_other_parameters_is_not_resumed(teacher, make_params, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(RecipeModule, "on_validation_epoch_end", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretrain(make_params(pretrain={"checkpoint_minutes": 1e-9}), "gfm")
    assert list(Path("checkpoints/gfm").glob("step-*.ckpt"))
    pretrain(make_params(pretrain={"alpha": 0.5}), "gfm")
    assert "made with other parameters or data" in capsys.readouterr().out
    assert json.loads((GFM / "run.json").read_text())["resumed_at_step"] is None


@pytest.mark.parametrize("damage", ["last cut", "last empty", "all cut", "no key", "key of other bytes"])
def test_a_damaged_checkpoint_costs_the_way_since_the_one_before(teacher, make_params, killed_at, capsys, damage):
    params = make_params(pretrain={"checkpoint_steps": 1, "keep_checkpoints": 2})
    pretrain(params, "gfm")
    whole = _weights()
    killed_at(params, 5)
    before, last = sorted(Path("checkpoints/gfm").glob("step-*.ckpt"))
    key = before.with_name("key.json")
    {
        "last cut": lambda: last.write_bytes(last.read_bytes()[:-100]),
        "last empty": lambda: last.write_bytes(b""),
        "all cut": lambda: [file.write_bytes(file.read_bytes()[:500]) for file in (before, last)],
        "no key": key.unlink,
        "key of other bytes": lambda: key.write_bytes(b"\xff"),
    }[damage]()
    pretrain(params, "gfm")
    resumed = json.loads((GFM / "run.json").read_text())["resumed_at_step"]
    told = capsys.readouterr().out
    if damage.startswith("last"):
        assert resumed == 4 and f"{last}: cut off or damaged; going on from the one before" in told
    else:
        assert resumed is None and "starting from the beginning" in told
    assert _same(whole, _weights())


def test_checkpoints_leave_out_the_teacher_and_hold_no_code(teacher, make_params, monkeypatch):
    params = make_params(pretrain={"checkpoint_minutes": 1e-9})
    monkeypatch.setattr(TimedCheckpoint, "remove", lambda self: None)
    pretrain(params, "gfm")
    (file,) = Path("checkpoints/gfm").glob("step-*.ckpt")
    state = torch.load(file, weights_only=True)["state_dict"]
    assert state and not any(key.startswith("model.teacher") for key in state)


def test_the_teacher_never_learns(teacher, make_params, monkeypatch):
    params = make_params()
    modules = []
    end = RecipeModule.end_batch

    def watch(self, *arguments):
        assert not any(module.training for module in self.model.teacher.modules())
        modules.append(self)
        end(self, *arguments)

    monkeypatch.setattr(RecipeModule, "end_batch", watch)
    pretrain(params, "gfm")
    own = modules[-1].model.teacher.backbone.state_dict()
    assert _same(_weights("teacher"), {key: value.cpu() for key, value in own.items()})


def test_a_loss_that_is_not_a_number_stops_with_the_images_named(teacher, make_params, monkeypatch):
    params = make_params()
    losses = RecipeModule._losses

    def broken(self, batch, train):
        values = losses(self, batch, train)
        return [value * (float("nan") if self.global_step == 5 else 1) for value in values]

    monkeypatch.setattr(RecipeModule, "_losses", broken)
    with pytest.raises(
        GfmError, match=r"pretrain\.gfm: the loss became nan at step 5 on images scenes/\d\d\.png, .*base_lr"
    ):
        pretrain(params, "gfm")


def test_fewer_images_than_a_batch_is_said_before_anything_runs(folder, make_params):
    with pytest.raises(GfmError, match=r"pretrain\.gfm\.batch_size = 32, but the collection has 16 training images"):
        pretrain(make_params(pretrain={"batch_size": 32}), "gfm")


def test_a_second_trainer_of_the_same_output_is_refused(teacher, make_params):
    with new_folder(GFM), pytest.raises(GfmError, match="models/encoders/gfm: another process is writing it"):
        pretrain(make_params(), "gfm")


def test_a_student_may_start_from_the_teacher(teacher, make_params):
    still = {"base_lr": 1e-9, "warmup_lr": 0, "min_lr": 0, "warmup_epochs": 1}
    params = make_params(pretrain={"start": "teacher", "epochs": 1, "schedule": still})
    pretrain(params, "gfm")
    before, after = _weights("teacher"), _weights()
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)


def test_convolutional_networks_teach_and_learn_without_merging(folder, make_params):
    network = {"name": "mobilenetv2_035", "image_px": 64, "args": {}}
    tap = {"stage": 3, "merged": False}
    teacher = {"kind": "supervised", "architecture": network, "sources": ["scenes"], "epochs": 1, "batch_size": 4}
    parts = {"teacher": teacher, "student": {"architecture": network}}
    make_teacher(make_params(**parts))
    with pytest.raises(GfmError, match=r"pretrain\.gfm\.student_tap\.merged = true: EfficientNet has no patch merging"):
        pretrain(make_params(**parts), "gfm")
    pretrain(make_params(pretrain={"epochs": 1, "student_tap": tap, "teacher_tap": tap}, **parts), "gfm")
    assert [m.shape[1] for m in load_encoder(GFM, image_px=96, seed=0)(torch.rand(1, 3, 96, 96))] == [8, 16, 32, 112]


def test_bf16_trains_to_a_finite_loss(teacher, make_params):
    params = make_params(pretrain={"precision": "bf16-mixed", "epochs": 1})
    pretrain(params, "gfm")
    assert np.isfinite(json.loads((GFM / "run.json").read_text())["metrics"]["train_loss"])
