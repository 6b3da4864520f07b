"""Every mode through `gfm finetune`: what learns, what stays, what is saved, and that it predicts the same again."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from gfm.downstream.adapted import load_adapted
from gfm.errors import WeightsError
from gfm.models.encoder import Encoder, load_encoder, save_encoder
from gfm.models.encoder_file import read_card, write_card
from gfm.tracking.runs import Run

OF_THE_HEAD = {"head.weight", "head.bias"}
MODES = [
    ("classification", "full"),
    ("classification", "frozen"),
    ("classification", "linear"),
    ("classification", "knn"),
    ("classification", "lora"),
    ("multilabel", "full"),
    ("multilabel", "linear"),
    ("multilabel", "knn"),
    ("segmentation", "frozen"),
    ("segmentation", "lora"),
]


def _finetuned(workplace) -> Path:
    code, printed = workplace.gfm("finetune", "t", "teacher")
    assert code == 0, printed
    return workplace.folder / "models/tasks/t/teacher"


def _run(folder):
    return json.loads((folder / "run.json").read_text())


def _encoder_weights(workplace):
    return load_file(workplace.folder / "models/encoders/teacher/model.safetensors")


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_a_mode_keeps_its_promises(task, kept, kind, mode):
    workplace = task(kind, mode=mode, lr=0.01, encoder_lr=0.01)
    folder = _finetuned(workplace)
    (model,) = kept
    _predicts_again_what_was_scored(folder, model)
    if mode != "full":
        _encoder_is_as_it_was(workplace, model)
    _share_of_trained_parameters_is_told(workplace, model, mode, _run(folder))


def _predicts_again_what_was_scored(folder, model):
    spec = model.spec
    image = torch.randint(0, 256, (3, spec.dates, spec.bands, spec.image_px, spec.image_px), dtype=torch.uint8)
    again = load_adapted(folder, seed=0)
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(image), model.eval()(image))


def _encoder_is_as_it_was(workplace, model):
    found = {key.replace(".base_layer", ""): value for key, value in model.encoder.backbone.state_dict().items()}
    for key, value in _encoder_weights(workplace).items():
        assert torch.equal(found[key], value), key


def _share_of_trained_parameters_is_told(workplace, model, mode, run):
    encoder = sum(value.numel() for value in _encoder_weights(workplace).values())
    head = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("encoder."))
    # rank x (inputs + outputs) of qkv (64 -> 192) and proj (64 -> 64), in each of test_vit's blocks
    adapters = 8 * ((64 + 192) + (64 + 64)) * len(model.encoder.backbone.blocks)
    trained = {"full": encoder + head, "frozen": head, "linear": head, "knn": 0, "lora": head + adapters}[mode]
    assert run["mode"] == mode and run["trained_parameters"] == trained
    assert run["parameters"] == encoder + head + (adapters if mode == "lora" else 0)
    assert run["trained_share"] == pytest.approx(trained / run["parameters"], abs=1e-6)


def test_batch_statistics_stand_still_under_a_head(task, kept):
    workplace = task("classification", architecture="test_resnet", mode="frozen")
    _finetuned(workplace)
    assert any("running_mean" in key for key in _encoder_weights(workplace))
    _encoder_is_as_it_was(workplace, kept[0])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("frozen", OF_THE_HEAD), ("knn", {"head.features", "head.targets", "head.neighbours"}), ("lora", OF_THE_HEAD)],
)
def test_only_what_the_encoder_does_not_know_is_saved(task, mode, expected):
    workplace = task("classification", mode=mode)
    folder = _finetuned(workplace)
    assert set(load_file(folder / "seed-0.safetensors")) == expected
    adapters = folder / "seed-0.adapters.safetensors"
    assert adapters.exists() == (mode == "lora")
    if mode == "lora":
        whole = workplace.folder / "models/encoders/teacher/model.safetensors"
        assert adapters.stat().st_size < whole.stat().st_size / 3
        assert all("lora_" in key for key in load_file(adapters))


def test_what_learns_moves(task, kept):
    workplace = task("classification", mode="lora")
    _finetuned(workplace)
    added = [p for name, p in kept[0].encoder.named_parameters() if "lora_B" in name]
    assert added and all(bool(p.any()) for p in added)  # they begin at zero


def test_a_probe_sees_every_image_once(task, monkeypatch):
    workplace = task("classification", mode="linear", epochs=5)
    seen = []
    forward = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda self, image: seen.append(len(image)) or forward(self, image))
    folder = _finetuned(workplace)
    parts = _run(folder)["parts"]
    predicted = min(36, parts["test"])  # to choose the pictures of predictions.png from
    assert sum(seen) == sum(parts.values()) + predicted


def test_neighbours_are_chosen_on_validation_and_told(task):
    workplace = task("classification", mode="knn", knn={"neighbours": [3, 1, 1000]})
    folder = _finetuned(workplace)
    run = _run(folder)
    assert run["chosen"] == {"0": {"neighbours": 3}}  # bright and dark are told apart by either: the first of equals
    assert run["chosen_epochs"] == {"0": 0} and run["samples"] == run["parts"]["train"]
    scores = pd.read_csv(folder / "scores.csv")
    assert scores["score"].min() > 0.9
    assert not (folder / "history.csv").exists()  # there were no epochs


@pytest.mark.parametrize(("mode", "told"), [("linear", "accuracy"), ("frozen", "accuracy")])
def test_a_probe_learns_what_is_plain_to_see(task, mode, told):
    folder = _finetuned(task("classification", mode=mode, epochs=6, lr=0.05))
    scores = pd.read_csv(folder / "scores.csv")
    assert scores[(scores["metric"] == told) & (scores["split"] == "test")]["score"].item() > 0.8


def test_the_published_recipe_trains(task):
    full = {
        "layer_decay": 0.9,
        "drop_path": 0.1,
        "mixup": 0.8,
        "cutmix": 1.0,
        "label_smoothing": 0.1,
        "schedule": {"warmup_epochs": 1, "paper_compat": True},
    }
    run = _run(_finetuned(task("classification", full=full)))
    assert run["settings"]["finetune"]["full"]["schedule"]["base_lr"] == 1e-4
    assert run["trained_share"] == 1


def test_an_odd_set_smaller_than_a_batch_cannot_be_mixed(task):
    workplace = task("multilabel", full={"mixup": 0.2}, batch_size=40)
    folder = workplace.raw / "ben"
    (folder / "patch_13/meta.json").write_text("{")
    workplace.gfm("index")
    code, printed = workplace.gfm("finetune", "t", "teacher")
    assert code == 2 and "a batch holds all 5 training samples; set finetune.batch_size = 4" in printed


def test_the_recorded_run_says_how_the_model_was_adapted(task, monkeypatch):
    class Recording(Run):
        found: ClassVar[dict[str, object]] = {}

        def metrics(self, values, step=None):
            self.found.update(values)

        def tags(self, values):
            self.found.update(values)

    monkeypatch.setattr("gfm.downstream.finetune.child_run", lambda *_, **__: nullcontext(Recording()))
    run = _run(_finetuned(task("classification", mode="lora")))
    assert Recording.found["mode"] == "lora"
    for name in ("parameters", "trained_parameters", "trained_share"):
        assert Recording.found[name] == run[name]


def test_too_few_images_for_the_neighbours_is_one_line(task):
    workplace = task("multilabel", mode="knn", knn={"neighbours": [7]})
    code, printed = workplace.gfm("finetune", "t", "teacher")
    assert code == 2 and "finetune.knn.neighbours = [7], but there are 6 training images" in printed


def test_a_head_is_not_put_on_another_encoder(task):
    workplace = task("classification", mode="linear")
    folder = _finetuned(workplace)
    teacher = workplace.folder / "models/encoders/teacher"
    other = load_encoder(teacher, image_px=read_card(teacher).image_px, seed=0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 1
    save_encoder(teacher, other.backbone, other.card)
    with pytest.raises(WeightsError, match=r"seed-0.safetensors: made around other weights than .* run `gfm finetune`"):
        load_adapted(folder, seed=0)
    with pytest.raises(WeightsError, match=r"seed-9.safetensors: no such file"):
        load_adapted(folder, seed=9)


def test_a_random_encoder_is_drawn_again(task, kept):
    workplace = task("classification", mode="linear", seeds=[3])
    card = read_card(workplace.folder / "models/encoders/teacher")
    write_card(workplace.folder / "models/encoders/random", replace(card, origin="random"), fixed_px=True)
    code, printed = workplace.gfm("finetune", "t", "random")
    assert code == 0, printed
    again = load_adapted(workplace.folder / "models/tasks/t/random", seed=3)
    image = torch.randint(0, 256, (2, 1, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(again(image), kept[0].eval()(image))
