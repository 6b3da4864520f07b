"""`gfm import` and `gfm export` as a user runs them: what comes out computes what the published network computed."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gfm.models.backbone import build_backbone, set_image_px
from gfm.models.encoder import load_encoder

SWIN = {"embed_dim": 8, "depths": [1, 2, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": 3}
ENCODER = Path("models/encoders/theirs")
LICENCE = ("--licence", "CC BY 4.0")

Gfm = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def network(bands: int = 3) -> nn.Module:
    """A tiny Swin for 96 px, in eval mode."""
    name = "swin_base_patch4_window7_224"
    return build_backbone(name, SWIN, image_px=96, bands=bands, seed=3).eval()


def published(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Its tensors as the authors' code names them: merging at the end of a stage, buffers stored."""
    state = dict(model.state_dict()) | dict(model.named_buffers())
    moved = re.compile(r"layers\.(\d)\.downsample")
    return {prefix + moved.sub(lambda m: f"layers.{int(m[1]) - 1}.downsample", key): v for key, v in state.items()}


def _gfm(state: dict[str, Tensor], path: Path) -> None:
    others = {"encoder.mask_token": torch.zeros(1, 1, 8), "decoder.0.bias": torch.zeros(3)}
    teacher = {f"teacher.{key.removeprefix('encoder.')}": value for key, value in state.items()}
    torch.save({"model": state | others | teacher, "optimizer": {"state": {}}, "epoch": 99}, path)


def _swin(state: dict[str, Tensor], path: Path) -> None:
    torch.save({"model": state | {"head.weight": torch.zeros(9, 64), "head.bias": torch.zeros(9)}}, path)


def _half(state: dict[str, Tensor], path: Path) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    save_file({key: value.contiguous() for key, value in half.items()}, path)


STYLES: dict[str, tuple[str, Callable[[dict[str, Tensor], Path], None]]] = {
    "gfm": ("encoder.", _gfm),
    "swin": ("", _swin),
    "half.safetensors": ("encoder.", _half),
}


def opened(folder: str) -> nn.Module:
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def image(px: int, bands: int = 3) -> Tensor:
    return torch.rand(2, bands, px, px, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def outputs(model: nn.Module, given: Tensor) -> Tensor:
    return model.to(memory_format=torch.channels_last)(given)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("options", "px"), [((), 96), (("--image-px", "128"), 128)])
def test_import_and_export_give_timm_the_published_network(gfm, style, options, px):
    """At 128 px the window grows from 3 to 4, as in the published fine-tuning."""
    prefix, save = STYLES[style]
    source = network()
    save(published(source, prefix), Path(style))
    code, out, err = gfm("import", style, "theirs", *LICENCE, *options)
    assert (code, err) == (0, "")
    code, out, err = gfm("export", "theirs", "shared")
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == ["import timm", 'model = timm.create_model("local-dir:shared", pretrained=True)']
    if style.startswith("half"):
        source = source.half().float()
    if px != 96:
        set_image_px(source, px)
    assert torch.equal(outputs(opened("shared"), image(px)), outputs(source, image(px)))


def test_the_summary_counts_every_key_and_the_report_lists_it(gfm):
    _gfm(published(network(), "encoder."), Path("gfm.pth"))
    code, out, _ = gfm("import", "gfm.pth", "theirs", *LICENCE, "--window", "4", "--report", "out/keys.csv")
    assert code == 0
    rows = list(csv.DictReader(Path("out/keys.csv").read_text().splitlines()))
    content = torch.load("gfm.pth", weights_only=True)
    assert [row["key"] for row in rows] == [*(f"model.{key}" for key in content["model"]), "optimizer", "epoch"]
    mapped, resized, left = (sum(row["fate"] == fate for row in rows) for fate in ("mapped", "resized", "left"))
    assert f"gfm.pth: {mapped} keys mapped, {resized} resized, {left} left" in out
    assert mapped + resized == len(network().state_dict()) and resized == 5  # the last map has 3 cells
    assert "resized from window 3 at 96 px to window 4 at 96 px" in out
    assert "weights made for images of 96 px: layers.1.blocks.1.attn_mask" in out
    for reason in ("frozen teacher", "mask token of the pretraining", "training state: optimizer, epoch"):
        assert f"left, {reason}" in out
    table = next(row for row in rows if row["fate"] == "resized")
    assert (table["shape"], table["new_shape"], table["dtype"]) == ("25x1", "49x1", "float32")
    assert (ENCODER / "import.csv").read_text() == Path("out/keys.csv").read_text()


def test_the_encoder_says_what_it_is_and_works_at_any_size(gfm):
    _swin(published(network(), ""), Path("swin.pth"))
    assert gfm("import", "swin.pth", "theirs", *LICENCE)[0] == 0
    encoder = load_encoder(ENCODER, image_px=64, seed=0)
    assert encoder(image(64))[-1].shape == (2, 64, 2, 2)
    card = encoder.card
    assert (card.origin, card.licence, card.parents) == ("imported", "CC BY 4.0", ["swin.pth"])
    assert card.provenance["weights_sha256"] and card.provenance["weights_entry"] == "model"
    assert (card.bands, card.mean, card.std) == (["R", "G", "B"], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert json.loads((ENCODER / "run.json").read_text())["kind"] == "imported encoder"
    assert "Licence: CC BY 4.0" in (ENCODER / "README.md").read_text()


def test_other_bands_travel_with_their_statistics_and_wavelengths(gfm):
    source = network(bands=2)
    _swin(published(source, ""), Path("swin.pth"))
    words = ("--bands", "NIR, R", "--mean", "0.3,0.1", "--std", "0.2,0.05", "--wavelengths", "0.842,0.665")
    assert gfm("import", "swin.pth", "theirs", *LICENCE, *words)[0] == 0
    assert gfm("export", "theirs", "shared")[0] == 0
    config = json.loads(Path("shared/config.json").read_text())
    assert (config["gfm"]["bands"], config["gfm"]["wavelengths_um"]) == (["NIR", "R"], [0.842, 0.665])
    assert (config["pretrained_cfg"]["mean"], config["pretrained_cfg"]["std"]) == ([0.3, 0.1], [0.2, 0.05])
    model = opened("shared")
    assert model.pretrained_cfg["mean"] == [0.3, 0.1]
    assert torch.equal(outputs(model, image(96, 2)), outputs(source, image(96, 2)))


def test_an_export_holds_what_others_need_and_its_card_names_the_new_folder(gfm):
    _swin(published(network(), ""), Path("swin.pth"))
    gfm("import", "swin.pth", "theirs", *LICENCE)
    (ENCODER / "reconstructions.png").write_bytes(b"a picture of the card")
    gfm("export", "theirs", "out/shared")
    names = sorted(path.name for path in Path("out/shared").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors", "reconstructions.png"]
    assert '"local-dir:shared"' in Path("out/shared/README.md").read_text()
    assert load_file("out/shared/model.safetensors").keys() == network().state_dict().keys()
    assert load_encoder(Path("out/shared"), image_px=96, seed=0).card.licence == "CC BY 4.0"


def test_a_named_architecture_makes_the_round_trip(gfm):
    torch.manual_seed(0)
    source = timm.create_model("test_vit", num_classes=5)
    torch.save({"state_dict": source.state_dict(), "arch": "vit"}, "vit.pth")
    assert gfm("import", "vit.pth", "theirs", *LICENCE, "--architecture", "test_vit")[0] == 0
    assert gfm("export", "theirs", "shared")[0] == 0
    source.reset_classifier(0)
    assert torch.equal(outputs(opened("shared"), image(160)), outputs(source.eval(), image(160)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("swin.pth", "random", *LICENCE), "random: this encoder is made by `gfm untrained`; give another name"),
        (("swin.pth", "teacher", *LICENCE, "--force"), "teacher: this encoder is made by `gfm teacher`"),
        (("swin.pth", "../x", *LICENCE), "'../x' cannot name an encoder"),
        (("swin.pth", "theirs", "--licence", " "), "--licence: state the terms of the weights"),
        (("no.pth", "theirs", *LICENCE), "no.pth: No such file or directory; give the path of a checkpoint file"),
        (("swin.pth", "theirs", *LICENCE, "--bands", "R,G"), "--bands R,G: give their --mean and --std too"),
        (("swin.pth", "theirs", *LICENCE, "--mean", "0.5"), "--mean gives 1 values, but the network of swin.pth takes"),
        (("swin.pth", "theirs", *LICENCE, "--mean", "124,116,104"), "of values in [0, 1]; divide what holds for 8-bit"),
        (("swin.pth", "theirs", *LICENCE, "--std", "0,1,1"), "of values in [0, 1]"),
        (("swin.pth", "theirs", *LICENCE, "--std", "a,b"), "--std a,b: give numbers between commas"),
        (("swin.pth", "theirs", *LICENCE, "--bands", "R,R,B", "--mean", ".1,.1,.1", "--std", ".1,.1,.1"), "band twice"),
        (("swin.pth", "theirs", *LICENCE, "--architecture", "resnet18"), "swin.pth: no resnet18 in it"),
        (
            ("swin.pth", "theirs", *LICENCE, "--family", "none"),
            "--family none: not known; known are clay, dofa",
        ),
        (
            ("swin.pth", "theirs", *LICENCE, "--family", "seco"),
            "swin.pth: not of the family seco: its first key",
        ),
        (("swin.pth", "theirs", *LICENCE, "--image-px", "2"), "image_px = 2: SwinTransformer cannot take it"),
        (("extra.pth", "theirs", *LICENCE), "extra.pth: absolute_pos_embed: neither a parameter"),
        (("five.pth", "theirs", *LICENCE), "five.pth: the network takes 5 bands; name them in order with --bands"),
    ],
)
def test_a_wrong_import_is_one_line_and_writes_nothing(gfm, words, message):
    _swin(published(network(), ""), Path("swin.pth"))
    _swin(published(network(), "") | {"absolute_pos_embed": torch.zeros(3)}, Path("extra.pth"))
    _swin(published(network(5), ""), Path("five.pth"))
    code, out, err = gfm("import", *words)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert message in err
    assert not Path("models").exists() or not any(Path("models/encoders").iterdir())


def test_an_import_without_a_licence_is_refused(gfm):
    code, _, err = gfm("import", "swin.pth", "theirs")
    assert code == 2 and "--licence" in err


def test_an_encoder_is_replaced_only_with_force(gfm):
    _swin(published(network(), ""), Path("swin.pth"))
    assert gfm("import", "swin.pth", "theirs", *LICENCE)[0] == 0
    before = (ENCODER / "config.json").read_bytes()
    code, _, err = gfm("import", "swin.pth", "theirs", "--licence", "MIT")
    assert code == 2 and "models/encoders/theirs: exists already; give another name, or replace it with --force" in err
    assert (ENCODER / "config.json").read_bytes() == before
    assert gfm("import", "swin.pth", "theirs", "--licence", "MIT", "--force")[0] == 0
    assert json.loads((ENCODER / "config.json").read_text())["gfm"]["licence"] == "MIT"


def test_an_export_never_touches_a_folder_that_is_there(gfm):
    _swin(published(network(), ""), Path("swin.pth"))
    gfm("import", "swin.pth", "theirs", *LICENCE)
    Path("mine").mkdir()
    code, _, err = gfm("export", "theirs", "mine")
    assert (code, err) == (2, "gfm: mine: exists already; give a new folder\n")
    code, _, err = gfm("export", "others", "shared")
    assert code == 2 and "models/encoders/others/config.json: no such encoder" in err


def test_an_untrained_encoder_has_nothing_to_export(gfm):
    card: dict[str, Any] = {"architecture": "resnet18", "model_args": {}, "pretrained_cfg": {"mean": [0], "std": [1]}}
    own = {"image_px": 64, "bands": ["R"], "batch_norm": "live", "origin": "random", "licence": "none"}
    Path("models/encoders/random").mkdir(parents=True)
    Path("models/encoders/random/config.json").write_text(json.dumps(card | {"gfm": own}))
    code, _, err = gfm("export", "random", "shared")
    assert code == 2 and "an untrained encoder has no weights to export" in err
    assert not Path("shared").exists()
