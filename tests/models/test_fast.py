"""The fast student: losses as published for what it predicts, one graph, and an encoder that is plain timm."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F

from gfm.errors import GfmError
from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder, load_encoder, save_encoder
from gfm.models.encoder_file import EncoderCard
from gfm.models.fast import FastStudentTeacher
from gfm.models.masking import block_mask, masked_blocks, spread, visible_units
from gfm.models.simmim import masked_l1

ARGS = {
    "embed_dim": 8,
    "depths": [1, 1, 2, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": [8, 4, 3, 4],
    "drop_path_rate": 0.0,
}
PX, MASKED = 128, masked_blocks(4, 0.6)


def _card(architecture: str = "swin_tiny_patch4_window7_224", args: dict | None = None) -> EncoderCard:
    args = ARGS if args is None else args
    bands, mean, std = ["R", "G", "B"], [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    return EncoderCard(architecture, args, PX, bands, mean, std, "live", "pretrained", "CC0")


def _encoder(card: EncoderCard) -> Encoder:
    return Encoder(build_backbone(card.architecture, card.model_args, image_px=PX, bands=3, seed=0), card, "e")


def _fast(encoder: Encoder | None = None, **changes: object) -> FastStudentTeacher:
    settings = {
        "teacher_width": 20,
        "student_tap": (3, True),
        "unit_px": 32,
        "masked": MASKED,
        "alpha": 0.5,
        "decoder_width": 16,
        "decoder_depth": 1,
        "decoder_heads": 2,
        "seed": 3,
        "name": "quick",
    }
    return FastStudentTeacher(encoder or _encoder(_card()), **settings | changes)


def _batch(images: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = block_mask(images, blocks=4, ratio=0.6, generator=generator)
    image = torch.rand(images, 3, PX, PX, generator=generator)
    return image, mask, torch.randn(images, 20, generator=generator)


def test_the_losses_are_those_of_the_published_method_for_what_is_predicted():
    model = _fast().eval()
    image, mask, feature = _batch()
    out = model(image, mask, feature)
    picture = model.reconstruct(image, mask)
    target = model.student.encoder.normalise(image)
    torch.testing.assert_close(out.losses.mim, masked_l1(picture, target, mask))
    expected = -F.cosine_similarity(model.distillation.projector(out.student_feature), feature).mean()
    torch.testing.assert_close(out.losses.distillation, expected)
    torch.testing.assert_close(out.losses.total, out.losses.mim + 0.5 * out.losses.distillation)


def test_the_picture_shows_predicted_units_in_the_input():
    model = _fast().eval()
    image, mask, _ = _batch()
    hidden = spread(mask, (PX, PX)).unsqueeze(1).expand_as(image)
    picture, target = model.reconstruct(image, mask), model.student.encoder.normalise(image)
    assert torch.equal(picture[~hidden], target[~hidden])
    assert (picture[hidden] != target[hidden]).all()
    torch.testing.assert_close(model.reconstruct(torch.where(hidden, 0.5, image), mask)[hidden], picture[hidden])


@pytest.mark.parametrize(("stage", "merged"), [(3, True), (3, False), (4, False), (1, True)])
def test_the_student_feature_is_the_mean_of_the_whole_maps_cells_that_are_visible(stage, merged):
    model = _fast(student_tap=(stage, merged)).eval()
    image, mask, feature = _batch()
    student, visible = model.student, visible_units(mask, model.visible)
    units = student(student.encoder.normalise(image), visible)[stage - 1]
    whole = torch.randn(2, 16, *units.shape[2:])  # anything where nothing is visible
    whole[torch.arange(2)[:, None], visible] = units
    whole = whole.unflatten(1, (4, 4)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    if merged:
        whole = student.encoder.backbone.layers[stage].downsample(whole)
    seen = ~spread(mask, tuple(whole.shape[1:3]))
    expected = torch.stack([cells[mine].mean(dim=0) for cells, mine in zip(whole, seen, strict=True)])
    torch.testing.assert_close(model(image, mask, feature).student_feature, expected)


def test_everything_learns_and_the_encoder_is_counted_once():
    model = _fast().train()
    model(*_batch()).losses.total.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    own = [name for name in model.state_dict() if not name.startswith(("decoder.", "distillation."))]
    assert own == [f"student.encoder.backbone.{key}" for key in model.student.encoder.backbone.state_dict()]


def test_a_copy_learns_apart():
    model, (image, mask, feature) = _fast().eval(), _batch()
    before = model(image, mask, feature).features
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.student.encoder.backbone.norm.bias += 1
    torch.testing.assert_close(model(image, mask, feature).features, before)
    torch.testing.assert_close(twin(image, mask, feature).features, before + 1)


def test_what_it_pretrains_is_saved_and_read_as_a_plain_timm_swin(tmp_path):
    model = _fast()
    save_encoder(tmp_path / "fast", model.student.encoder.backbone, model.student.encoder.card)
    plain = timm.create_model(f"local-dir:{tmp_path / 'fast'}", pretrained=True, num_classes=0).eval()
    assert [layer.blocks[0].window_size for layer in plain.layers] == [(8, 8), (4, 4), (3, 3), (4, 4)]
    own = load_encoder(tmp_path / "fast", image_px=PX, seed=0).eval()
    image = torch.rand(1, 3, PX, PX)
    torch.testing.assert_close(own(image)[-1].mean(dim=(2, 3)), plain(own.normalise(image)))


def test_a_seed_draws_the_same_decoder_and_leaves_the_random_state_alone():
    state = torch.random.get_rng_state()
    first, again, other = _fast(), _fast(), _fast(seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.decoder.embed.weight, again.decoder.embed.weight)
    assert not torch.equal(first.decoder.embed.weight, other.decoder.embed.weight)


def test_the_whole_step_is_one_graph_for_the_compiler_also_in_half_precision():
    model, batch = _fast().train(), _batch()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = compiled(*batch).losses.total
        torch.testing.assert_close(loss, model(*batch).losses.total, rtol=1e-2, atol=1e-2)
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_units_larger_than_the_last_stride_are_decoded_whole():
    model = _fast(unit_px=64, masked=2)
    mask = torch.tensor([[[True, False], [False, True]]])
    out = model(torch.rand(1, 3, PX, PX), mask, torch.randn(1, 20))
    assert out.features.shape == (1, 2, 4 * 64) and out.predicted.shape == (1, 2, 3 * 64 * 64)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: _fast(_encoder(_card("resnet18", {}))), "student.architecture: ResNet .* take a Swin"),
        (lambda: _fast(masked=16), "pretrain.quick.masking.ratio: 16 of 16 units masked"),
        (lambda: _fast(student_tap=(4, True)), "pretrain.quick.student_tap.merged"),
        (lambda: _fast()(torch.rand(1, 3, PX, PX), torch.zeros(1, 3, 3) > 0, torch.zeros(1, 20)), "mask of 3 x 3"),
        (lambda: _fast()(torch.rand(1, 3, PX, PX), torch.zeros(1, 4, 4) > 0, torch.zeros(1, 20)), "rows with .16. uni"),
    ],
)
def test_what_does_not_fit_is_named(build, message):
    with pytest.raises(GfmError, match=message):
        build()
