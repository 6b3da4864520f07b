"""Published weights that the parameters declare become encoders that `models` can name."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

from gfm.errors import GfmError, WeightsError
from gfm.models.backbone import build_backbone
from gfm.models.encoder_file import read_card
from gfm.models.families import FAMILIES
from gfm.models.families.prithvi import positions
from gfm.params import ParameterError, Params
from gfm.pretraining.network_check import check_networks
from gfm.pretraining.published_encoder import make_encoder

THEIRS = Path("models/encoders/theirs")
SWIN = {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": 3}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def mobilenet(tmp_path: Path) -> dict:
    model = timm.create_model("mobilenetv2_035", num_classes=7)
    model.bn1.running_mean.fill_(0.1)  # it has seen something
    path = tmp_path / "mobile.safetensors"
    save_file(dict(model.state_dict()), path)
    network = {"name": "mobilenetv2_035", "image_px": 64}
    return {"kind": "timm", "architecture": network, "weights": str(path), "sha256": _digest(path), "licence": "MIT"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> dict:
    """As the authors publish it: merging at the end of a stage, everything below `encoder.`."""
    model = build_backbone("swin_base_patch4_window7_224", SWIN, image_px=96, bands=3, seed=3)
    moved = re.compile(r"layers\.(\d)\.downsample")
    names = {key: moved.sub(lambda m: f"layers.{int(m[1]) - 1}.downsample", key) for key in model.state_dict()}
    path = tmp_path / "gfm.pth"
    torch.save({"model": {f"encoder.{names[key]}": value for key, value in model.state_dict().items()}}, path)
    return {"kind": "checkpoint", "file": str(path), "sha256": _digest(path), "licence": "MIT"}


def test_a_timm_model_keeps_its_tensors_and_says_where_it_is_from(folder, make_params, mobilenet):
    make_encoder(make_params(encoders={"theirs": mobilenet}), "theirs")
    theirs, ours = load_file(mobilenet["weights"]), load_file(THEIRS / "model.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in ours) and len(ours) == len(theirs) - 2
    assert json.loads((THEIRS / "config.json").read_text())["gfm"]["origin"] == "imported"
    assert json.loads((THEIRS / "run.json").read_text())["kind"] == "imported encoder"


def test_a_checkpoint_becomes_an_encoder_and_is_made_again_without_being_asked(folder, make_params, checkpoint):
    params = make_params(encoders={"theirs": checkpoint | {"image_px": 128}})
    for _ in range(2):
        make_encoder(params, "theirs")
    config = json.loads((THEIRS / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [3, 128, 128]
    assert config["gfm"]["licence"] == "MIT" and (THEIRS / "import.csv").exists()


@pytest.mark.parametrize("kind", ["mobilenet", "checkpoint"])
def test_another_file_than_the_declared_one_is_refused(folder, make_params, kind, request):
    declared = request.getfixturevalue(kind) | {"sha256": "0" * 64}
    with pytest.raises(WeightsError, match=r"its sha256 is .*, but encoders\.theirs\.sha256 = 0000"):
        make_encoder(make_params(encoders={"theirs": declared}), "theirs")
    assert not THEIRS.exists()


@pytest.mark.parametrize("kind", ["mobilenet", "checkpoint"])
def test_made_again_by_other_code_it_is_the_same_encoder_of_another_run(
    folder, make_params, kind, request, monkeypatch
):
    """DVC adapts it to the tasks again when its config.json changes."""
    params = make_params(encoders={"theirs": request.getfixturevalue(kind)})
    made = []
    for commit in ("a" * 40, "b" * 40):
        monkeypatch.setattr("gfm.tracking.provenance.code_version", lambda commit=commit: (commit, False))
        make_encoder(params, "theirs")
        made.append((THEIRS / "config.json").read_bytes())
        run = json.loads((THEIRS / "run.json").read_text())
        assert run["provenance"]["commit"] == commit and run["provenance"]["data"] == {}
    assert made[0] == made[1]
    assert json.loads(made[0])["gfm"]["model_sha256"] == _digest(THEIRS / "model.safetensors")


def test_a_checkpoint_that_is_not_there_is_named_by_its_key(folder, make_params, checkpoint):
    with pytest.raises(WeightsError, match=r"^encoders\.theirs\.file = lost\.pth: No such file"):
        make_encoder(make_params(encoders={"theirs": checkpoint | {"file": "lost.pth"}}), "theirs")


def test_what_gfm_import_would_call_by_its_options_is_called_by_its_keys(folder, make_params, checkpoint):
    with pytest.raises(WeightsError, match=r"^encoders\.theirs\.architecture nonsense: timm has none of this name"):
        make_encoder(make_params(encoders={"theirs": checkpoint | {"architecture": "nonsense"}}), "theirs")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gfm", "pretrain and encoders both name gfm"),
        ("Gfm", "pretrain and encoders both name gfm"),
        ("teacher", "encoders.teacher is a reserved model name"),
    ],
)
def test_a_name_that_another_encoder_has_is_refused(make_params, mobilenet, name, told):
    with pytest.raises(ValueError, match=told):
        make_params(encoders={name: mobilenet})


def test_models_may_name_them(make_params, mobilenet):
    params: Params = make_params(encoders={"theirs": mobilenet}, models=["teacher", "theirs"])
    assert params.encoder_stage("theirs") == "encoder@theirs"
    with pytest.raises(GfmError, match="encoders has no gfm; it has theirs"):
        make_encoder(params, "gfm")


def test_the_sample_has_the_key_that_dvc_takes_the_stages_from():
    """Without it every `dvc` command of the repository ends at `${encoders}`."""
    assert yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())["encoders"] == {}


def test_the_documented_declarations_lack_nothing_but_their_files(tmp_path):
    """Every example of docs/benchmark.md passes `gfm check` up to the file that nobody can ship."""
    root = Path(__file__).parents[2]
    blocks = re.findall(r"```yaml\n(encoders:.*?)```", (root / "docs/benchmark.md").read_text(), re.DOTALL)
    (declared,) = [yaml.safe_load(block)["encoders"] for block in blocks]
    assert {entry.get("family") for entry in declared.values()} == {None, *FAMILIES}
    sample = yaml.safe_load((root / "params.yaml").read_text())
    for name, entry in declared.items():
        params = Params.model_validate(sample | {"encoders": {name: entry}, "models": ["teacher", name]})
        if entry["kind"] == "registered":
            assert check_networks(params, tmp_path) == []
            continue
        with pytest.raises(ParameterError, match=rf"^encoders\.{name}\.file = {entry['file']}: no such file"):
            check_networks(params, tmp_path)


def test_a_declared_family_becomes_an_encoder_with_its_bands_and_says_what_it_left(folder, make_params, tmp_path):
    """Prithvi's keys at a small width; the report, the card and the run name what was done."""
    torch.manual_seed(0)
    vit = build_backbone(
        "vit_tiny_patch16_224", {"depth": 2, "embed_dim": 192, "num_heads": 3}, image_px=32, bands=2, seed=0
    )
    state = {f"encoder.{key}": value for key, value in vit.state_dict().items()}
    state["encoder.patch_embed.proj.weight"] = state["encoder.patch_embed.proj.weight"][:, :, None]
    state["encoder.pos_embed"] = torch.cat([torch.zeros(1, 192), positions(192, 3, 2)])[None]
    path = tmp_path / "prithvi.pt"
    torch.save(state | {"decoder.mask_token": torch.zeros(1, 1, 8)}, path)
    declared = {
        "kind": "checkpoint", "family": "prithvi", "file": str(path), "sha256": _digest(path), "licence": "Apache-2.0",
        "bands": ["NIR", "R"], "wavelengths_um": [0.865, 0.665],
        "normalisation": {"mean": [0.3, 0.1], "std": [0.2, 0.1]},
    }  # fmt: skip
    make_encoder(make_params(encoders={"theirs": declared}), "theirs")
    card = read_card(THEIRS)
    assert (card.bands, card.wavelengths_um, card.image_px) == (["NIR", "R"], [0.865, 0.665], 32)
    assert card.provenance["weights_family"] == "prithvi"
    report = (THEIRS / "import.csv").read_text()
    assert "encoder.pos_embed,converted,pos_embed,1x13x192,1x5x192,float32,the first of 3 dates" in report
    assert "decoder.mask_token,left,,1x1x8,,float32,decoder of the reconstruction" in report
    assert "Reads one date of the 3 that it was trained with." in (THEIRS / "README.md").read_text()
    wrong = declared | {"family": "satlas"}
    with pytest.raises(WeightsError, match="not of the family satlas: its keys are those of prithvi"):
        make_encoder(make_params(encoders={"theirs": wrong}), "theirs")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"family": "satlas", "window": 4}, "window is read from the weights of family satlas"),
        ({"family": "seco", "architecture": "resnet50"}, "architecture is read from the weights of family seco"),
        ({"family": "dofa", "bands": ["R"]}, "family dofa needs bands and wavelengths_um"),
        ({"family": "matter"}, "family"),
        (
            {"family": "clay", "bands": ["R"], "wavelengths_um": [0.6]},
            "family clay needs bands, wavelengths_um and gsd_m",
        ),
    ],
)
def test_a_declaration_that_no_file_could_fit_is_refused_before_it_is_read(make_params, checkpoint, more, told):
    with pytest.raises(ValueError, match=told):
        make_params(encoders={"theirs": checkpoint | more})
