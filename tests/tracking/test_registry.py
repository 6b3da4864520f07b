"""A registered encoder is the encoder: same features, no pickle, its origin on its tags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gfm.errors import WeightsError
from gfm.models.encoder import EncoderCard, save_encoder
from gfm.params import Params
from gfm.tracking.registry import register_encoder, version_tags
from gfm.tracking.runs import Run, child_run

TINY = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2}


def encoder_folder(folder: Path) -> Path:
    import timm

    torch.manual_seed(3)
    network = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, img_size=64, **TINY)
    card = EncoderCard(
        architecture="swin_tiny_patch4_window7_224",
        model_args=TINY,
        image_px=64,
        bands=["R", "G", "B"],
        mean=[0.4, 0.4, 0.4],
        std=[0.2, 0.2, 0.2],
        batch_norm="live",
        origin="pretrained",
        licence="Apache-2.0",
        parents=["teacher"],
        provenance={"commit": "abc", "seed": 3, "data": {"dvc": "d1.dir", "manifest": "m1", "splits": "s1"}},
        energy={"kwh": 0.2, "kg_co2eq": 0.1, "method": "measured for this test"},
    )
    save_encoder(folder, network, card)
    (folder / "README.md").write_text("# A card\n" + "words " * 2000, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_registered_encoder_gives_the_features_of_its_folder_and_names_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, capfd: pytest.CaptureFixture[str]
) -> None:
    import mlflow
    import timm

    monkeypatch.chdir(tmp_path)
    folder = encoder_folder(tmp_path / "models/encoders/gfm")
    with child_run(params, "gfm", "pretrain", {}) as run:
        first = register_encoder(params, run, folder)
        second = register_encoder(params, run, folder)
    assert (first, second) == ("1", "2")
    out, err = capfd.readouterr()
    assert (out.count("\n"), err) == (2, "")  # no advice from MLflow

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    version = client.get_model_version_by_alias("gfm-encoder", "challenger")
    assert str(version.version) == "2"
    assert version.tags["data.dvc"] == "d1.dir"
    assert version.tags["git.commit"] == "abc"
    assert version.tags["kg_co2eq"] == "0.1"
    assert version.tags["licence"] == "Apache-2.0"
    assert version.tags["run_id"] == version.run_id == run.run_id
    assert version.description.startswith("# A card") and "values in [0, 1]" in version.description

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model("models:/gfm-encoder/2")
    image = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        expected = network((torch.from_numpy(image) - 0.4) / 0.2).numpy()
    np.testing.assert_allclose(loaded.predict(image), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="divide 8-bit images by 255"):
        loaded.predict(image * 255)
    kept = {path.suffix for path in (tmp_path / "mlruns").rglob("*") if path.is_file()}
    assert not kept & {".pkl", ".pt", ".pth", ".ckpt", ".bin"}


def test_an_untrained_encoder_is_not_registered_as_if_it_had_weights(tmp_path: Path, params: Params) -> None:
    folder = encoder_folder(tmp_path / "random")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no model\.safetensors"):
        register_encoder(params, Run(), folder)


def test_a_version_names_the_run_of_its_teacher_and_whether_its_code_was_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(tmp_path)
    teacher = tmp_path / "models/encoders/teacher"
    teacher.mkdir(parents=True)
    (teacher / "config.json").write_text('{"gfm": {"origin": "imported", "parents": ["timm/swin"]}}', encoding="utf-8")
    (teacher / "run.json").write_text('{"run_id": "t1"}', encoding="utf-8")
    card = {"origin": "pretrained", "bands": ["R"], "licence": "MIT", "energy": {"kwh": 0.2, "kg_co2eq": 0.1}}
    card |= {"parents": ["teacher"], "provenance": {"commit": "abc", "dirty": False, "seed": 0}}
    tags = version_tags(params, "r1", "", tmp_path / "gfm", {"architecture": "swin", "gfm": card})
    assert {key: tags[key] for key in tags if key.startswith("parents")} == {
        "parents": "teacher",
        "parents.teacher.run_id": "t1",
        "parents.teacher.origin": "imported",
        "parents.teacher.made_from": "timm/swin",
    }
    assert (tags["git.dirty"], tags["seed"], tags["kwh"]) == ("false", "0", "0.2")
    alone = version_tags(params, "r1", "", tmp_path / "gfm", {"architecture": "swin", "gfm": card | {"parents": []}})
    assert alone["parents"] == "none"


def test_without_tracking_nothing_is_registered(tmp_path: Path, params: Params) -> None:
    assert register_encoder(params, Run(), encoder_folder(tmp_path / "gfm")) is None
