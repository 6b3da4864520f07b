"""Leaving masked tokens out changes nothing: the dense network with masked keys removed gives the same, to rounding."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gfm.errors import GfmError
from gfm.models.masking import block_mask, spread, visible_units
from gfm.models.sparse_swin import SparseSwin, aligned_stages, drop_shift

PX = 192
ALIGNED = [8, 4, 6, 6]


def _swin(window: int | list[int], *, px: int = PX, seed: int = 0, **args: object) -> nn.Module:
    torch.manual_seed(seed)
    given = {"embed_dim": 8, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4], "drop_path_rate": 0.0, "num_classes": 0}
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=px, window_size=window, **given | args)
    for name, parameter in model.named_parameters():
        if name.endswith(("bias_table", ".bias")) or "attn" in name:  # they start too small to show a mistake
            nn.init.normal_(parameter, std=0.5 if parameter.ndim == 1 or "table" in name else 0.2)
    return model.double().eval()


def _mask(px: int, visible: int, seed: int, images: int = 2) -> Tensor:
    units = px // 32
    generator = torch.Generator().manual_seed(seed)
    return block_mask(images, blocks=units, ratio=1 - visible / units**2, generator=generator)


def _attention(block: nn.Module, x: Tensor, seen: Tensor) -> Tensor:
    """Window attention over the whole grid, straight from the paper, without the keys that `seen` (B, H, W) lacks."""
    attn, (wh, ww), (sh, sw) = block.attn, block.window_size, block.shift_size
    (_, height, width, _), heads = x.shape, attn.num_heads
    pad = (0, -width % ww, 0, -height % wh)

    def windows(values: Tensor, fill: float = 0.0) -> Tensor:
        rolled = values.roll((-sh, -sw), dims=(1, 2)).movedim(-1, 1)
        padded = F.pad(rolled, pad, value=fill).movedim(1, -1)
        parts = padded.unfold(1, wh, wh).unfold(2, ww, ww)  # (B, rows, columns, C, wh, ww)
        return parts.flatten(4).transpose(-1, -2).flatten(1, 2)  # (B, windows, area, C)

    q, k, v = attn.qkv(windows(x)).unflatten(-1, (3, heads, -1)).unbind(-3)
    scores = torch.einsum("bwqhd,bwkhd->bwhqk", q, k) * attn.scale
    offset = torch.stack(torch.meshgrid(torch.arange(wh), torch.arange(ww), indexing="ij")).flatten(1)
    offset = offset[:, :, None] - offset[:, None, :] + torch.tensor([wh - 1, ww - 1]).view(2, 1, 1)
    scores = scores + attn.relative_position_bias_table[offset[0] * (2 * ww - 1) + offset[1]].permute(2, 0, 1)
    if sh or sw:  # tokens that meet only because the picture was rolled around do not see each other
        rows = torch.arange(height + pad[3]) >= height + pad[3] - sh
        columns = torch.arange(width + pad[1]) >= width + pad[1] - sw
        region = (rows[:, None] * 2 + columns * 1.0).expand(1, -1, -1)
        region = region.unfold(1, wh, wh).unfold(2, ww, ww).flatten(3).flatten(1, 2)
        scores = scores.masked_fill((region[..., None] != region[..., None, :])[:, :, None], -torch.inf)
    keys = windows(seen.unsqueeze(-1).to(x), fill=1.0).squeeze(-1) > 0  # timm lets padding be seen
    scores = scores.masked_fill(~keys[:, :, None, None, :], -torch.inf)
    out = torch.einsum("bwhqk,bwkhd->bwqhd", scores.softmax(-1).nan_to_num(), v).flatten(-2)
    out = attn.proj(out).unflatten(1, ((height + pad[3]) // wh, -1)).unflatten(3, (wh, ww)).transpose(2, 3)
    return out.flatten(3, 4).flatten(1, 2)[:, :height, :width].roll((sh, sw), dims=(1, 2))


def _dense(network: nn.Module, image: Tensor, mask: Tensor) -> list[Tensor]:
    """The maps (B, V, h, w, C) at visible units of the dense network whose masked keys are removed."""
    x, maps = network.patch_embed(image), []
    for stage in network.layers:
        x = stage.downsample(x)
        seen = ~spread(mask, tuple(x.shape[1:3]))
        for block in stage.blocks:
            x = x + _attention(block, block.norm1(x), seen)
            x = x + block.mlp(block.norm2(x))
        maps.append(x)
    maps[-1] = network.norm(x)
    return [_visible_part(each, mask) for each in maps]


def _visible_part(whole: Tensor, mask: Tensor) -> Tensor:
    images, rows, columns = mask.shape
    units = whole.unflatten(2, (columns, -1)).unflatten(1, (rows, -1)).transpose(2, 3)
    return units.flatten(1, 2)[~mask.flatten(1)].unflatten(0, (images, -1))


def _sparse(network: nn.Module, image: Tensor, mask: Tensor, **options: object) -> list[Tensor]:
    visible = visible_units(mask, int((~mask[0]).sum()))
    return SparseSwin(network, 32, **options)(image, visible)


def _assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-9) -> None:
    assert [each.shape for each in found] == [each.shape for each in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("px", "window"),
    [(192, 6), (224, 7), (128, 4), (192, 7), (160, 5), (192, ALIGNED), (192, [4, 2, 6, 6]), (128, [8, 4, 3, 4])],
    ids=str,
)
def test_visible_tokens_and_all_gradients_equal_the_dense_network_without_masked_keys(px, window):
    dense = _swin(window, px=px)
    drop_shift(dense, aligned_stages(dense))
    sparse = copy.deepcopy(dense)
    image, mask = torch.randn(2, 3, px, px, dtype=torch.double), _mask(px, visible=5, seed=1)
    expected, found = _dense(dense, image, mask), _sparse(sparse, image, mask)
    _assert_same(found, expected)

    weights = [torch.randn_like(each) for each in expected]
    for maps in (expected, found):
        sum((each * weight).sum() for each, weight in zip(maps, weights, strict=True)).backward()
    own = dict(sparse.named_parameters())
    for name, parameter in dense.named_parameters():
        torch.testing.assert_close(own[name].grad, parameter.grad, rtol=1e-8, atol=1e-8, msg=name)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    visible=st.integers(1, 8),
    window=st.sampled_from([3, 4, 5, 6, 7, [8, 4, 2, 3], [3, 4, 6, 1]]),
    shifted=st.booleans(),
)
def test_equality_holds_for_any_mask_and_window(seed, visible, window, shifted):
    network = _swin(window, px=96, seed=seed, depths=[2, 1, 2, 1])
    if not shifted:
        drop_shift(network, (1, 2, 3, 4))
    image, mask = torch.randn(2, 3, 96, 96, dtype=torch.double), _mask(96, visible=visible, seed=seed)
    with torch.no_grad():
        _assert_same(_sparse(network, image, mask, unshifted_stages=()), _dense(network, image, mask))


@pytest.mark.parametrize("px, window", [(192, 6), (192, 7), (192, ALIGNED), (96, 7)])
def test_with_nothing_masked_it_is_timms_own_network(px, window):
    network = _swin(window, px=px).float()
    image, mask = torch.randn(2, 3, px, px), torch.zeros(2, px // 32, px // 32, dtype=torch.bool)
    with torch.no_grad():
        maps = network.forward_intermediates(image, norm=True, intermediates_only=True)
        found = _sparse(network, image, mask, unshifted_stages=())
        _assert_same(found, [_visible_part(each.permute(0, 2, 3, 1), mask) for each in maps], 1e-4)


def test_single_precision_is_as_exact_as_it_can_be():
    network = _swin(6).float()
    image, mask = torch.randn(2, 3, PX, PX), _mask(PX, visible=14, seed=3)
    with torch.no_grad():
        _assert_same(_sparse(network, image, mask), _dense(network, image, mask), 1e-5)


def test_stages_with_windows_of_one_unit_run_unshifted_and_a_dense_network_can_follow():
    network = _swin(ALIGNED)
    image, mask = torch.randn(2, 3, PX, PX, dtype=torch.double), _mask(PX, visible=14, seed=5)
    with torch.no_grad():
        found = _sparse(network, image, mask)
        assert aligned_stages(network) == (1, 2)
        shifted = _dense(network, image, mask)
        assert not torch.allclose(found[0], shifted[0], atol=0.1)  # timm goes on shifting there
        before = network.state_dict().keys()
        drop_shift(network, (1, 2))
        _assert_same(found, _dense(network, image, mask))
        assert network.state_dict().keys() == before
        network.set_input_size(img_size=(256, 256))
        assert [block.shift_size for block in network.layers[0].blocks] == [(0, 0), (0, 0)]
        assert network.layers[2].blocks[1].shift_size == (4, 4)


def test_masked_pixels_are_never_read():
    network, mask = _swin(6), _mask(PX, visible=9, seed=2)
    image = torch.randn(2, 3, PX, PX, dtype=torch.double)
    hidden = spread(mask, (PX, PX)).unsqueeze(1)
    _assert_same(_sparse(network, image.masked_fill(hidden, torch.nan), mask), _sparse(network, image, mask), 0.0)


def test_it_works_on_the_networks_own_parameters():
    network, mask = _swin(6), _mask(PX, visible=9, seed=2)
    image = torch.randn(2, 3, PX, PX, dtype=torch.double)
    sparse = SparseSwin(network)
    visible = visible_units(mask, 9)
    before = sparse(image, visible)[-1].detach()
    with torch.no_grad():
        network.norm.bias += 1
    torch.testing.assert_close(sparse(image, visible)[-1], before + 1)


def test_stochastic_depth_drops_a_whole_image_as_in_timm():
    network = _swin(ALIGNED, depths=[1, 1, 1, 1]).train()
    block = network.layers[0].blocks[0]
    block.drop_path1 = block.drop_path2 = timm.layers.DropPath(0.5)
    image, mask = torch.randn(16, 3, PX, PX, dtype=torch.double), _mask(PX, visible=4, seed=2, images=16)
    embedded = _visible_part(network.patch_embed(image), mask)
    changed = (_sparse(network, image, mask)[0] != embedded).flatten(2).any(dim=2)
    assert torch.equal(changed.any(dim=1), changed.all(dim=1)) and 0 < changed.all(dim=1).sum() < 16


def test_recomputed_activations_give_the_same_gradients():
    plain = _swin(ALIGNED)
    frugal = copy.deepcopy(plain)
    frugal.set_grad_checkpointing()
    image, mask = torch.randn(2, 3, PX, PX, dtype=torch.double), _mask(PX, visible=9, seed=2)
    for network in (plain, frugal):
        _sparse(network, image, mask)[-1].square().sum().backward()
    for one, other in zip(plain.parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("window", [6, ALIGNED], ids=str)
@pytest.mark.parametrize("fused", [False, True])
def test_half_precision_gives_finite_gradients_near_those_of_full_precision(window, fused):
    network = _swin(window).float()
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    image, mask = torch.randn(2, 3, PX, PX), _mask(PX, visible=14, seed=3)
    expected = _sparse(network, image, mask)[-1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = _sparse(network, image, mask)[-1]
    found.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert F.cosine_similarity(found.float().flatten(2), expected.flatten(2), dim=-1).min() > 0.98


@pytest.mark.parametrize("window", [7, ALIGNED], ids=str)
def test_it_is_one_graph_for_the_compiler(window):
    network = _swin(window, depths=[1, 1, 2, 1]).float().train()
    sparse = SparseSwin(network)
    image, visible = torch.randn(2, 3, PX, PX), visible_units(_mask(PX, visible=14, seed=3), 14)
    compiled = torch.compile(lambda *given: sparse(*given), fullgraph=True, backend="aot_eager")
    _assert_same(compiled(image, visible), sparse(image, visible), 1e-5)
    compiled(image, visible)[-1].sum().backward()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SparseSwin(timm.create_model("resnet18")), "ResNet cannot leave masked tokens out; take a Swin"),
        (lambda: SparseSwin(_swin(6), 48), "masking.unit = 48: not a multiple .* use 32"),
        (lambda: SparseSwin(_swin(5, px=160), 64), "masking.unit = 64: does not divide .* 160 x 160 px"),
        (lambda: _sparse(_swin(6), torch.zeros(1, 3, 96, 96), _mask(96, 4, 0, 1)), "96 x 96 px: .* set_image_px"),
    ],
)
def test_what_does_not_fit_is_named(build, message):
    with pytest.raises(GfmError, match=message):
        build()
