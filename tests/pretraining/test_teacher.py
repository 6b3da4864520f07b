"""What a user gets from `gfm teacher`: a small one that has learned, or a published one that is never random."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from gfm.errors import DataError, WeightsError
from gfm.models.encoder import load_encoder
from gfm.pretraining.teacher import make_teacher
from gfm.pretraining.untrained import describe_untrained

MOBILENET = Path(__file__).parents[2] / ".." / "shared" / "weights" / "mobilenetv2_100_in1k_fp16.safetensors"
TEACHER = Path("models/encoders/teacher")
NETWORK = {"name": "mobilenetv2_035", "image_px": 64, "args": {}}


def _sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _timm(**fields: object) -> dict:
    return {"kind": "timm", "architecture": NETWORK, "licence": "Apache-2.0", **fields}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A published-like file: half precision, with a classifier."""
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv2_035", num_classes=7)
    model.bn1.running_mean.fill_(0.1)  # it has seen something
    path = tmp_path / "published.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}, path)
    return path


def test_a_supervised_teacher_learns_its_labels_and_is_kept_without_its_classifier(folder, make_params, capsys):
    make_teacher(make_params())
    run = json.loads((TEACHER / "run.json").read_text())
    assert run["metrics"]["classes"] == 2 and run["metrics"]["val_accuracy"] == 1.0 and run["samples"] == 48
    assert "100% of 8 held-out images right" in capsys.readouterr().out
    encoder = load_encoder(TEACHER, image_px=64, seed=0)
    assert encoder.card.origin == "supervised" and not any("head" in key for key in encoder.backbone.state_dict())


def test_a_teacher_with_nothing_to_tell_apart_says_so(folder, make_params):
    import pyarrow.parquet as pq

    table = pq.read_table("data/geopile/manifest.parquet")
    names = ["sand"] * len(table)
    pq.write_table(
        table.set_column(table.schema.get_field_index("label"), "label", [names]), "data/geopile/manifest.parquet"
    )
    with pytest.raises(DataError, match=r"teacher\.sources scenes: 1 class in the training split"):
        make_teacher(make_params())


def test_a_local_file_gives_exactly_its_tensors_in_float32(folder, make_params, weights, capsys):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    make_teacher(make_params(teacher=_timm(weights=str(weights), sha256=digest, batch_norm="frozen")))
    theirs, ours = load_file(weights), load_file(TEACHER / "model.safetensors")
    assert set(theirs) - set(ours) == {"classifier.weight", "classifier.bias"} and set(ours) <= set(theirs)
    assert all(torch.equal(ours[key], theirs[key].to(ours[key].dtype)) for key in ours)
    assert ours["conv_stem.weight"].dtype == torch.float32
    assert "left out the classifier (classifier.bias, classifier.weight)" in capsys.readouterr().out
    assert json.loads((TEACHER / "config.json").read_text())["gfm"]["batch_norm"] == "frozen"


def test_another_file_than_the_stated_one_is_refused(folder, make_params, weights):
    with pytest.raises(WeightsError, match=r"published\.safetensors: its sha256 is .*, but teacher\.sha256 = 0000"):
        make_teacher(make_params(teacher=_timm(weights=str(weights), sha256="0" * 64)))
    assert not TEACHER.exists()


def test_weights_of_another_architecture_are_refused_and_leave_nothing(folder, make_params, weights):
    network = {"name": "mobilenetv2_050", "image_px": 64, "args": {}}
    with pytest.raises(WeightsError, match="not the weights of this EfficientNet"):
        make_teacher(make_params(teacher=_timm(weights=str(weights), sha256=_sha256(weights), architecture=network)))
    assert not TEACHER.exists()


def test_a_hub_that_cannot_be_reached_is_an_error_with_a_way_out(folder, make_params, monkeypatch):
    def unreachable(*names: object, **options: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(WeightsError, match=r"cannot be had here .*give teacher\.weights = a local safetensors file"):
        make_teacher(make_params(teacher=_timm(weights="hub")))


def test_the_untrained_student_is_described_without_weights(folder, make_params):
    describe_untrained(make_params())
    random = Path("models/encoders/random")
    assert sorted(path.name for path in random.iterdir()) == ["config.json", "run.json"]
    assert load_encoder(random, image_px=64, seed=1).channels == (8, 16, 32, 64)


@pytest.mark.field
@pytest.mark.skipif(not MOBILENET.exists(), reason=f"{MOBILENET} is not there")
def test_the_real_mobilenet_becomes_a_teacher_that_pretrains_a_student(folder, make_params):
    from gfm.pretraining.run import pretrain

    network = {"name": "mobilenetv2_100", "image_px": 96, "args": {"pad_type": "same"}}
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    params = make_params(
        teacher=_timm(
            weights=str(MOBILENET.resolve()),
            sha256=_sha256(MOBILENET),
            architecture=network,
            normalisation=half,
            batch_norm="frozen",
        ),
        pretrain={"epochs": 1, "teacher_px": 96, "teacher_tap": {"stage": 4, "merged": False}},
    )
    make_teacher(params)
    encoder = load_encoder(TEACHER, image_px=96, seed=0).train()
    assert not any(m.training for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert encoder.channels == (24, 32, 96, 320)
    pretrain(params, "gfm")
    assert json.loads(Path("models/encoders/gfm/run.json").read_text())["metrics"]["val_distillation"] < 0.5
