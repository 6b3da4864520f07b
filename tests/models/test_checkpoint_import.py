"""A published checkpoint becomes the same network, every key accounted for; what is not understood is refused."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import resize_rel_pos_bias_table
from torch import Tensor, nn

from gfm.errors import WeightsError
from gfm.models.backbone import build_backbone
from gfm.models.checkpoint_file import Checkpoint, read_checkpoint
from gfm.models.checkpoint_import import ImportedNetwork, Request, import_network

SWIN = {"embed_dim": 8, "depths": [1, 2, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": 3}
AS_IT_IS = Request(architecture=None, image_px=None, window=None, bands=None, prefix=None)
PARITY = Path(__file__).parents[2] / ".." / "shared" / "parity" / "gfm_reference_tiny.safetensors"


def swin(px: int = 96, bands: int = 3, **args: object) -> nn.Module:
    name = "swin_base_patch4_window7_224"
    return build_backbone(name, {**SWIN, **args}, image_px=px, bands=bands, seed=1).eval()


def published(network: nn.Module, prefix: str = "", buffers: bool = True) -> dict[str, Tensor]:
    """A Swin's tensors under their published names, as its authors' code saves them."""
    state = dict(network.state_dict())
    if buffers:
        state |= {key: value for key, value in network.named_buffers() if value is not None}
    moved = re.compile(r"layers\.(\d)\.downsample")
    return {prefix + moved.sub(lambda m: f"layers.{int(m[1]) - 1}.downsample", key): v for key, v in state.items()}


def run(state: dict[str, Tensor], **request: object) -> ImportedNetwork:
    wanted = {field: getattr(AS_IT_IS, field) for field in AS_IT_IS.__dataclass_fields__} | request
    return import_network(Checkpoint(Path("x.pth"), "model", state, {"epoch": "training state"}), Request(**wanted))


def same(first: nn.Module, second: nn.Module, px: int, bands: int = 3) -> bool:
    image = torch.rand(2, bands, px, px, generator=torch.Generator().manual_seed(0))
    second = second.to(memory_format=torch.channels_last)  # as encoders are; convolutions round by their layout
    with torch.no_grad():
        return torch.equal(first.eval()(image), second.eval()(image))


def gfm_checkpoint(network: nn.Module) -> dict[str, Tensor]:
    return {
        "encoder.mask_token": torch.zeros(1, 1, 8),
        **published(network, "encoder."),
        **published(swin(64, window_size=4), "teacher."),
        "decoder.0.weight": torch.zeros(3, 3),
        "projector.weight": torch.zeros(3, 3),
    }


def simmim_checkpoint(network: nn.Module) -> dict[str, Tensor]:
    return {
        "encoder.mask_token": torch.zeros(1, 1, 8),
        **published(network, "encoder."),
        "decoder.0.bias": torch.zeros(3),
    }


def swin_checkpoint(network: nn.Module) -> dict[str, Tensor]:
    return {**published(network), "head.weight": torch.zeros(5, 64), "head.bias": torch.zeros(5)}


STYLES = {
    "gfm": gfm_checkpoint,
    "simmim": simmim_checkpoint,
    "swin": swin_checkpoint,
    "ddp": lambda network: published(network, "module."),
    "lightning": lambda network: published(network, "model.encoder."),
    "timm": lambda network: {**network.state_dict(), "head.fc.weight": torch.zeros(5, 64)},
}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_of_keys_gives_the_network_back(style):
    network = swin()
    state = STYLES[style](network)
    found = run(state)
    assert same(found.backbone, network, 96)
    assert found.model_args == SWIN and (found.image_px, found.bands) == (96, 3)
    assert [row.key for row in found.report] == [*(f"model.{key}" for key in state), "epoch"]
    assert sorted(row.parameter for row in found.report if row.fate == "mapped") == sorted(network.state_dict())
    assert all(row.reason for row in found.report if row.fate == "left")


def test_the_reasons_of_what_is_left_are_those_of_its_part():
    reasons = {row.key.removeprefix("model."): row.reason for row in run(gfm_checkpoint(swin())).report}
    assert reasons["encoder.mask_token"] == "mask token of the pretraining"
    assert reasons["decoder.0.weight"] == "decoder of the reconstruction"
    assert reasons["projector.weight"] == "projector of the distillation"
    assert reasons["teacher.norm.weight"] == "frozen teacher"
    assert reasons["encoder.layers.1.blocks.1.attn_mask"] == "buffer that the network computes"
    assert reasons["encoder.norm.weight"] == "" and reasons["epoch"] == "training state"


@pytest.mark.parametrize(("px", "window"), [(96, 3), (64, 4), (192, 6), (128, 2), (128, 4)])
def test_the_image_size_is_read_from_the_masks_of_shifted_windows(px, window):
    """At 64 px the window of 4 does not fit the last stage's map of 2 cells, which has a smaller table."""
    network = swin(px, window_size=window)
    found = run(published(network))
    assert (found.weights_px, found.model_args["window_size"]) == (px, window)
    assert same(found.backbone, network, px)


@pytest.mark.parametrize(("px", "window"), [(96, 3), (64, 4), (192, 6)])
def test_without_masks_the_last_stage_is_one_window(px, window):
    found = run(published(swin(px, window_size=window), buffers=False))
    assert found.weights_px == px and found.size_from == "the window of the last stage, its whole map"


@pytest.mark.parametrize(
    ("request_", "px", "window"),
    [
        ({"image_px": 128}, 128, 4),
        ({"window": 4}, 96, 4),
        ({"image_px": 128, "window": 2}, 128, 2),
        ({"image_px": 64}, 64, 2),
    ],
)
def test_another_size_or_window_resizes_exactly_the_tables_and_says_so(request_, px, window):
    network = swin()
    found = run(swin_checkpoint(network), **request_)
    assert (found.image_px, found.model_args["window_size"]) == (px, window)
    again = build_backbone(found.architecture, found.model_args, image_px=px, bands=3, seed=9)
    again.load_state_dict(found.backbone.state_dict(), strict=True)
    assert same(again, found.backbone, px)
    resized = [row for row in found.report if row.fate == "resized"]
    assert resized and all(row.parameter.endswith("relative_position_bias_table") for row in resized)
    assert {row.reason for row in resized} == {f"from window 3 at 96 px to window {window} at {px} px"}
    own, theirs = found.backbone.state_dict(), network.state_dict()
    for row in resized:
        side = (row.new_shape[0] ** 0.5 + 1) // 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about timm's own code
            expected = resize_rel_pos_bias_table(theirs[row.parameter], (int(side),) * 2, row.new_shape)
        torch.testing.assert_close(own[row.parameter], expected)
        assert row.shape == tuple(theirs[row.parameter].shape) != row.new_shape
    kept = set(own) - {row.parameter for row in resized}
    assert all(torch.equal(own[key], theirs[key]) for key in kept)


def test_the_window_of_the_weights_can_be_kept_at_another_size():
    found = run(swin_checkpoint(swin()), image_px=192, window=3)
    counts = Counter(row.fate for row in found.report)
    assert counts["resized"] == 0 and found.resizing == "from window 3 at 96 px to window 3 at 192 px"


@settings(max_examples=12, deadline=None)
@given(
    depths=st.lists(st.integers(1, 2), min_size=2, max_size=4),
    window=st.integers(2, 4),
    across=st.integers(1, 2),
    bands=st.integers(1, 6),
    patch=st.sampled_from([2, 4]),
    style=st.sampled_from(["gfm", "simmim", "swin"]),
)
def test_any_swin_is_recognised_from_its_shapes(depths, window, across, bands, patch, style):
    heads = [1, 2, 2, 4][: len(depths)]
    args = {"depths": depths, "num_heads": heads, "window_size": window, "patch_size": patch, "mlp_ratio": 2.0}
    # Only shifted windows, in second blocks, store masks: without them the image is one window across.
    px = window * patch * 2 ** (len(depths) - 1) * (across if max(depths[:-1]) > 1 else 1)
    network = swin(px, bands, **args)
    found = run(STYLES[style](network))
    assert same(found.backbone, network, px, bands)
    assert {key: found.model_args.get(key, 4) for key in args} == args
    assert (found.image_px, found.bands) == (px, bands)


def test_half_precision_becomes_float32_and_the_report_says_what_it_was():
    for dtype in (torch.float16, torch.bfloat16):
        network = swin()
        found = run({k: v.to(dtype) if v.is_floating_point() else v for k, v in published(network).items()})
        own = found.backbone.state_dict()
        assert all(torch.equal(own[k], v.to(dtype).float()) for k, v in network.state_dict().items())
        assert {row.dtype for row in found.report if row.fate == "mapped"} == {str(dtype).removeprefix("torch.")}


def _without(key: str) -> dict[str, Tensor]:
    state = published(swin())
    del state[key]
    return state


def _with(**extra: Tensor) -> dict[str, Tensor]:
    return published(swin()) | {key.replace("__", "."): value for key, value in extra.items()}


@pytest.mark.parametrize(
    ("state", "request_", "message"),
    [
        (_without("norm.weight"), {}, "lacks norm.weight"),
        (_without("patch_embed.proj.weight"), {}, r"lacks patch_embed\.proj\.weight"),
        (_with(absolute_pos_embed=torch.zeros(3)), {}, r"absolute_pos_embed: neither a parameter of SwinTransformer"),
        (_with(layers__0__extra=torch.zeros(3)), {}, r"layers\.0\.extra: neither"),
        (_with(norm__weight=torch.zeros(3)), {}, r"has norm.weight \(3,\) instead of \(64,\)"),
        (_with(norm__weight=torch.full((64,), torch.nan)), {}, "the value of norm.weight is not finite"),
        (_with(norm__weight=torch.full((64,), 1e300, dtype=torch.float64)), {}, "norm.weight is not finite"),
        (_with(norm__weight=torch.ones(64, dtype=torch.int8)), {}, "the value of norm.weight is torch.int8"),
        (_with(layers__0__blocks__0__attn__relative_position_bias_table=torch.ones(24, 1)), {}, "24 rows, which is no"),
        (_with(layers__0__blocks__0__attn__relative_position_bias_table=torch.ones(4)), {}, r"is \(4,\), where a Swin"),
        (_with(layers__1__blocks__1__attn_mask=torch.ones(5, 9, 9)), {}, "5 windows: not a square image"),
        ({"conv1.weight": torch.ones(3, 3)}, {}, "no Swin .* give timm's name of it with --architecture"),
        (published(swin()), {"architecture": "swin_small_patch4_window7_224"}, "not the weights of this Swin"),
        (published(swin()), {"architecture": "swin_huge"}, "--architecture swin_huge: timm has none of this name"),
        (published(swin()), {"architecture": "resnet18"}, "no resnet18 in it: no key ends in conv1.weight"),
        (published(swin()), {"prefix": "backbone"}, r"no Swin .* after backbone\."),
        (
            {**published(swin(), "a."), **published(swin(), "b.")},
            {},
            "several such networks, under a., b.; .* --prefix",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_it(state, request_, message):
    with pytest.raises(WeightsError, match=message) as caught:
        run(state, **request_)
    assert "\n" not in str(caught.value)


def test_the_teacher_inside_a_checkpoint_can_be_taken_by_its_prefix():
    found = run(gfm_checkpoint(swin()), prefix="teacher")
    assert same(found.backbone, swin(64, window_size=4), 64)
    assert Counter(row.reason for row in found.report)["outside the chosen prefix"] > 100


def test_a_swin_of_a_named_architecture_must_be_that_one():
    name = "swin_tiny_patch4_window7_224"
    network = build_backbone(name, {"window_size": 4}, image_px=128, bands=3, seed=0)
    found = run(published(network), architecture=name)
    assert (found.model_args, found.image_px) == ({"window_size": 4}, 128)
    with pytest.raises(WeightsError, match="not the weights of this SwinTransformer"):
        run(published(swin()), architecture=name)


@pytest.mark.parametrize(
    ("name", "px", "classifier"),
    [("resnet18", 224, "fc"), ("test_vit", 160, "head"), ("mobilenetv2_035", 224, "classifier")],
)
def test_a_plain_timm_network_is_imported_by_its_name(name, px, classifier):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=7)
    state = {f"backbone.{key}": value for key, value in network.state_dict().items()}
    found = run(state, architecture=name)
    network.reset_classifier(0)
    assert same(found.backbone, network, 160) and found.image_px == px
    left = {row.key: row.reason for row in found.report if row.fate == "left"}
    assert left == {
        f"model.backbone.{classifier}.weight": "classifier",
        f"model.backbone.{classifier}.bias": "classifier",
        "epoch": "training state",
    }


def test_a_vit_takes_its_weights_at_either_size_and_its_positions_are_resized():
    name = "test_vit"
    usual = timm.create_model(name, num_classes=0)
    found = run(usual.state_dict(), architecture=name, image_px=96)
    assert [row.parameter for row in found.report if row.fate == "resized"] == ["pos_embed"]
    assert (found.weights_px, found.resizing) == (160, "from 160 px to 96 px")
    small = timm.create_model(name, num_classes=0, img_size=96)
    found = run(small.state_dict(), architecture=name, image_px=96)
    assert (found.weights_px, found.resizing) == (96, "") and same(found.backbone, small, 96)


def test_a_window_for_a_network_without_windows_is_refused():
    with pytest.raises(WeightsError, match="--window 7: resnet18 is not a Swin"):
        run(timm.create_model("resnet18").state_dict(), architecture="resnet18", window=7)


@pytest.mark.field
@pytest.mark.skipif(not PARITY.exists(), reason=f"{PARITY} is not there")
def test_the_authors_own_checkpoint_computes_what_their_code_computed(tmp_path):
    from safetensors.torch import load_file

    from gfm.models.encoder import Encoder
    from gfm.models.encoder_file import EncoderCard
    from gfm.models.student import MaskedEncoder

    stored = load_file(PARITY)
    state = {key.removeprefix("state/"): value for key, value in stored.items() if key.startswith("state/")}
    torch.save({"model": state, "epoch": 99}, tmp_path / "gfm.pth")
    found = import_network(read_checkpoint(tmp_path / "gfm.pth", None), AS_IT_IS)
    assert (found.image_px, found.model_args["window_size"], found.prefix) == (192, 6, "encoder.")
    assert Counter(row.fate for row in found.report) == {"mapped": 119, "left": 147}
    card = EncoderCard(
        found.architecture, found.model_args, 192, ["R", "G", "B"], [0.0] * 3, [1.0] * 3, "live", "imported", ""
    )
    masked = MaskedEncoder(Encoder(found.backbone, card, "gfm"))
    masked.mask_token.data.copy_(state["encoder.mask_token"])
    with torch.no_grad():
        (features,) = masked.eval()(stored["input/image"], stored["input/mask"].bool(), [masked.encoder.levels[-1]])
    expected = stored["expected/encoder_map"]
    assert float((features - expected).abs().max() / expected.abs().max()) < 1e-5
