"""Published weights of the compared systems compute here what their own code computes.

No published file is at hand: the state dicts have the published keys at small widths, and the references are written
from the published modules, apart from timm.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

from gfm.errors import WeightsError
from gfm.models.checkpoint_file import Checkpoint
from gfm.models.checkpoint_import import ImportedNetwork, Request, import_network
from gfm.models.encoder import Encoder
from gfm.models.encoder_file import EncoderCard
from gfm.models.families import FAMILIES, check_release

WIDTH, HEADS, DEPTH, PATCH, PX = 192, 3, 4, 16, 64
SIDE = PX // PATCH
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def drawn(*shape: int, scale: float = 0.1, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * scale


def image(bands: int, px: int = PX) -> Tensor:
    return torch.rand(2, bands, px, px, generator=torch.Generator().manual_seed(1))


def blocks(prefix: str = "", width: int = WIDTH, depth: int = DEPTH) -> dict[str, Tensor]:
    """timm's Block, as MAE, Prithvi and DOFA use it."""
    state = {}
    for number in range(depth):
        shapes = {
            "norm1.weight": (width,), "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width), "attn.qkv.bias": (3 * width,),
            "attn.proj.weight": (width, width), "attn.proj.bias": (width,),
            "norm2.weight": (width,), "norm2.bias": (width,),
            "mlp.fc1.weight": (4 * width, width), "mlp.fc1.bias": (4 * width,),
            "mlp.fc2.weight": (width, 4 * width), "mlp.fc2.bias": (width,),
        }  # fmt: skip
        state |= {f"{prefix}blocks.{number}.{key}": drawn(*shape, seed=number) for key, shape in shapes.items()}
    return state


def encode(state: dict[str, Tensor], tokens: Tensor, eps: float) -> list[Tensor]:
    """The tokens after every block, by the formulas of a pre-norm transformer."""
    found = []
    for number in range(DEPTH):
        own = {
            key.removeprefix(f"blocks.{number}."): value
            for key, value in state.items()
            if key.startswith(f"blocks.{number}.")
        }
        x = F.layer_norm(tokens, (WIDTH,), own["norm1.weight"], own["norm1.bias"], eps)
        q, k, v = F.linear(x, own["attn.qkv.weight"], own["attn.qkv.bias"]).chunk(3, dim=-1)
        heads = [part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v)]
        weights = (heads[0] @ heads[1].transpose(2, 3) / math.sqrt(WIDTH // HEADS)).softmax(dim=-1)
        mixed = (weights @ heads[2]).transpose(1, 2).flatten(2)
        tokens = tokens + F.linear(mixed, own["attn.proj.weight"], own["attn.proj.bias"])
        x = F.layer_norm(tokens, (WIDTH,), own["norm2.weight"], own["norm2.bias"], eps)
        x = F.gelu(F.linear(x, own["mlp.fc1.weight"], own["mlp.fc1.bias"]))
        tokens = tokens + F.linear(x, own["mlp.fc2.weight"], own["mlp.fc2.bias"])
        found.append(tokens)
    return found


def maps(state: dict[str, Tensor], patches: Tensor, eps: float, normed: bool = True) -> list[Tensor]:
    """Feature maps (B, C, h, w) after every block, normed as the published encoder norms its last."""
    first = (state["cls_token"] + state["pos_embed"][:, :1]).expand(len(patches), -1, -1)
    tokens = torch.cat([first, patches + state["pos_embed"][:, 1:]], dim=1)
    found = []
    for after in encode(state, tokens, eps):
        x = F.layer_norm(after, (WIDTH,), state["norm.weight"], state["norm.bias"], eps) if normed else after
        found.append(x[:, 1:].transpose(1, 2).unflatten(2, (SIDE, SIDE)))
    return found


@cache
def mae(bands: int = 3) -> dict[str, Tensor]:
    """models_mae.py of SatMAE, with its decoder."""
    decoder = {f"decoder_{key}": value for key, value in blocks(width=32, depth=1).items()}
    return {
        "cls_token": drawn(1, 1, WIDTH),
        "pos_embed": drawn(1, SIDE * SIDE + 1, WIDTH, scale=1),
        "mask_token": drawn(1, 1, 32),
        "decoder_pos_embed": drawn(1, SIDE * SIDE + 1, 32),
        "patch_embed.proj.weight": drawn(WIDTH, bands, PATCH, PATCH),
        "patch_embed.proj.bias": drawn(WIDTH),
        **blocks(),
        "norm.weight": drawn(WIDTH, seed=1),
        "norm.bias": drawn(WIDTH, seed=2),
        "decoder_embed.weight": drawn(32, WIDTH),
        **decoder,
        "decoder_norm.weight": drawn(32),
        "decoder_pred.bias": drawn(PATCH * PATCH * bands),
    }


def sincos(width: int, at: Tensor) -> Tensor:
    """get_1d_sincos_pos_embed_from_grid of MAE's util/pos_embed.py."""
    omega = 1.0 / 10000 ** (torch.arange(width // 2, dtype=torch.float64) / (width / 2.0))
    out = torch.einsum("m,d->md", at.double(), omega)
    return torch.cat([torch.sin(out), torch.cos(out)], dim=1).float()


def prithvi(dates: int, bands: int = 6, time: int = 1, prefix: str = "encoder.") -> dict[str, Tensor]:
    """prithvi_mae.py: positions of (date, row, column), as its get_3d_sincos_pos_embed orders them."""
    table = [
        torch.cat([sincos(WIDTH // 16 * 6, torch.tensor([column]))[0], sincos(WIDTH // 16 * 6, torch.tensor([row]))[0],
                   sincos(WIDTH // 16 * 4, torch.tensor([date]))[0]])
        for date in range(dates) for row in range(SIDE) for column in range(SIDE)
    ]  # fmt: skip
    state = dict(mae(bands))
    state["pos_embed"] = torch.cat([torch.zeros(1, WIDTH), torch.stack(table)])[None]
    state["patch_embed.proj.weight"] = drawn(WIDTH, bands, time, PATCH, PATCH)
    beside = {"decoder_", "mask_token"}
    if not prefix:
        return state
    moved = {(f"decoder.{k}" if any(map(k.startswith, beside)) else f"{prefix}{k}"): v for k, v in state.items()}
    return moved | {
        f"{prefix}temporal_embed_enc.scale": torch.ones(1),
        "decoder.location_embed_dec.scale": torch.ones(1),
    }


@cache
def dofa() -> dict[str, Tensor]:
    """dofa_v1.py with wave_dynamic_layer.py, as DOFA_ViT_base_e100.pth: the generator at width 16 instead of 128."""
    inner, out = 16, PATCH * PATCH * WIDTH
    generator = {
        "weight_tokens": (8, inner), "bias_token": (1, inner),
        "transformer_encoder.layers.0.self_attn.in_proj_weight": (3 * inner, inner),
        "transformer_encoder.layers.0.self_attn.in_proj_bias": (3 * inner,),
        "transformer_encoder.layers.0.self_attn.out_proj.weight": (inner, inner),
        "transformer_encoder.layers.0.self_attn.out_proj.bias": (inner,),
        "transformer_encoder.layers.0.linear1.weight": (2048, inner),
        "transformer_encoder.layers.0.linear1.bias": (2048,),
        "transformer_encoder.layers.0.linear2.weight": (inner, 2048),
        "transformer_encoder.layers.0.linear2.bias": (inner,),
        "transformer_encoder.layers.0.norm1.weight": (inner,), "transformer_encoder.layers.0.norm1.bias": (inner,),
        "transformer_encoder.layers.0.norm2.weight": (inner,), "transformer_encoder.layers.0.norm2.bias": (inner,),
        "fc_weight.weight": (out, inner), "fc_weight.bias": (out,),
        "fc_bias.weight": (WIDTH, inner), "fc_bias.bias": (WIDTH,),
    }  # fmt: skip
    state = {key: value for key, value in mae().items() if not key.startswith(("decoder_", "patch_embed"))}
    state |= {f"patch_embed.weight_generator.{key}": drawn(*shape, scale=1) for key, shape in generator.items()}
    for layer in ("w1", "w2"):
        state |= {f"patch_embed.fclayer.{layer}.weight": drawn(inner, inner, scale=0.3, seed=len(layer))}
        state |= {f"patch_embed.fclayer.{layer}.bias": drawn(inner, seed=5)}
    return state | {"projector.weight": drawn(4, WIDTH), "projector.bias": drawn(4)}


def wave_layer(layer: dict[str, Tensor], x: Tensor) -> Tensor:
    """torch's TransformerEncoderLayer of four heads, norms after, by its formulas."""
    inner = x.shape[1]
    q, k, v = F.linear(x, layer["self_attn.in_proj_weight"], layer["self_attn.in_proj_bias"]).chunk(3, dim=1)
    parts = [part.unflatten(1, (4, -1)).transpose(0, 1) for part in (q, k, v)]
    weights = (parts[0] @ parts[1].transpose(1, 2) / math.sqrt(inner // 4)).softmax(dim=-1)
    mixed = (weights @ parts[2]).transpose(0, 1).flatten(1)
    x = x + F.linear(mixed, layer["self_attn.out_proj.weight"], layer["self_attn.out_proj.bias"])
    x = F.layer_norm(x, (inner,), layer["norm1.weight"], layer["norm1.bias"])
    y = F.gelu(F.linear(x, layer["linear1.weight"], layer["linear1.bias"]))
    x = x + F.linear(y, layer["linear2.weight"], layer["linear2.bias"])
    return F.layer_norm(x, (inner,), layer["norm2.weight"], layer["norm2.bias"])


@cache
def clay(prefix: str = "model.encoder.") -> dict[str, Tensor]:
    """claymodel/model.py as Lightning saves it: the encoder of its tiny size, the generator at width 16."""
    generator = {
        key.removeprefix("patch_embed.weight_generator.").replace("transformer_encoder", "encoder"): value
        for key, value in dofa().items()
        if key.startswith("patch_embed.weight_generator.")
    }
    state = {f"{prefix}patch_embedding.weight_generator.{key}": value for key, value in generator.items()}
    for layer in ("l1", "l2"):
        state |= {f"{prefix}patch_embedding.fclayer.{layer}.weight": drawn(16, 16, scale=0.3, seed=len(state))}
        state |= {f"{prefix}patch_embedding.fclayer.{layer}.bias": drawn(16, seed=5)}
    for number in range(DEPTH):
        shapes = {
            "0.norm.weight": (WIDTH,), "0.norm.bias": (WIDTH,), "0.to_qkv.weight": (3 * WIDTH, WIDTH),
            "0.to_out.weight": (WIDTH, WIDTH), "1.net.0.weight": (WIDTH,), "1.net.0.bias": (WIDTH,),
            "1.net.1.weight": (2 * WIDTH, WIDTH), "1.net.1.bias": (2 * WIDTH,),
            "1.net.3.weight": (WIDTH, 2 * WIDTH), "1.net.3.bias": (WIDTH,),
        }  # fmt: skip
        start = f"{prefix}transformer.layers.{number}."
        state |= {f"{start}{key}": drawn(*shape, seed=number) for key, shape in shapes.items()}
    state |= {f"{prefix}transformer.norm.weight": drawn(WIDTH, seed=1), f"{prefix}cls_token": drawn(1, 1, WIDTH)}
    state |= {f"{prefix}transformer.norm.bias": drawn(WIDTH, seed=2)}
    if prefix != "model.encoder.":
        return state
    beside = {"model.decoder.mask_patch": drawn(8), "model.teacher.cls_token": drawn(1, 1, 8)}
    return state | beside | {"model.proj.weight": drawn(8, WIDTH)}


def clay_maps(state: dict[str, Tensor], pixels: Tensor, um: list[float], gsd: float) -> list[Tensor]:
    """Encoder of claymodel/model.py by its formulas, with zeros for time and place."""
    own = {k.removeprefix("model.").removeprefix("encoder."): v for k, v in state.items()}
    gen = {k.removeprefix("patch_embedding.weight_generator."): v for k, v in own.items()}
    angles = torch.tensor(um)[:, None] / 10000 ** (torch.arange(8) / 7)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    hidden = waves
    for layer in ("l1", "l2"):
        weight, bias = (own[f"patch_embedding.fclayer.{layer}.{part}"] for part in ("weight", "bias"))
        hidden = F.gelu(F.linear(hidden, weight, bias))
    waves = waves + hidden
    layer_of = {k.removeprefix("encoder.layers.0."): v for k, v in gen.items()}
    x = wave_layer(layer_of, torch.cat([gen["weight_tokens"], waves, gen["bias_token"]]))
    kernel = F.linear(x[8:-1] + waves, gen["fc_weight.weight"], gen["fc_weight.bias"])
    kernel = kernel.view(len(um), WIDTH, PATCH, PATCH).permute(1, 0, 2, 3) * 0.02
    bias = F.linear(x[-1], gen["fc_bias.weight"], gen["fc_bias.bias"])
    patches = F.conv2d(pixels, kernel, bias, stride=PATCH).flatten(2).transpose(1, 2)
    omega = gsd / 10000 ** (2 * (torch.arange(46) / 45) / (WIDTH - 8))
    cells = [(row, column) for row in range(SIDE) for column in range(SIDE)]
    table = [[torch.sin(c * omega), torch.cos(c * omega), torch.sin(r * omega), torch.cos(r * omega)] for r, c in cells]
    patches = patches + torch.stack([torch.cat([*waves_, torch.zeros(8)]) for waves_ in table])
    tokens = torch.cat([own["cls_token"].expand(len(patches), -1, -1), patches], dim=1)
    found = []
    for number in range(DEPTH):
        part = {k.removeprefix(f"transformer.layers.{number}."): v for k, v in own.items()}
        x = F.layer_norm(tokens, (WIDTH,), part["0.norm.weight"], part["0.norm.bias"])
        q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in F.linear(x, part["0.to_qkv.weight"]).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + F.linear(mixed, part["0.to_out.weight"])
        x = F.layer_norm(tokens, (WIDTH,), part["1.net.0.weight"], part["1.net.0.bias"])
        x = F.gelu(F.linear(x, part["1.net.1.weight"], part["1.net.1.bias"]))
        tokens = tokens + F.linear(x, part["1.net.3.weight"], part["1.net.3.bias"])
        normed = F.layer_norm(tokens, (WIDTH,), own["transformer.norm.weight"], own["transformer.norm.bias"])
        found.append(normed[:, 1:].transpose(1, 2).unflatten(2, (SIDE, SIDE)))
    return found


def dofa_patches(state: dict[str, Tensor], pixels: Tensor, um: list[float]) -> Tensor:
    """Dynamic_MLP_OFA of wave_dynamic_layer.py by its formulas."""
    own = {k.removeprefix("patch_embed."): v for k, v in state.items() if k.startswith("patch_embed.")}
    gen = {k.removeprefix("weight_generator."): v for k, v in own.items()}
    layer = {k.removeprefix("transformer_encoder.layers.0."): v for k, v in gen.items()}
    inner = len(own["fclayer.w1.bias"])
    waves = sincos(inner, torch.tensor(um) * 1000)
    hidden = F.linear(waves, own["fclayer.w1.weight"], own["fclayer.w1.bias"]).relu()
    waves = waves + F.linear(hidden, own["fclayer.w2.weight"], own["fclayer.w2.bias"]).relu()
    x = wave_layer(layer, torch.cat([gen["weight_tokens"], waves, gen["bias_token"]]))
    kernel = F.linear(x[8:-1] + waves, gen["fc_weight.weight"], gen["fc_weight.bias"])
    kernel = kernel.view(len(um), PATCH, PATCH, WIDTH).permute(3, 0, 1, 2) * 0.01
    bias = F.linear(x[-1], gen["fc_bias.weight"], gen["fc_bias.bias"]) * 0.01
    return F.conv2d(pixels, kernel, bias, stride=PATCH, padding=1).flatten(2).transpose(1, 2)


def resnet(name: str, bands: int = 3) -> nn.Module:
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(num_classes=8)
    network.conv1 = nn.Conv2d(bands, 64, 7, 2, 3, bias=False)
    network.bn1.running_mean.fill_(0.1)
    return network.eval()


@cache
def seco(name: str) -> dict[str, Tensor]:
    """moco2_module.py of SeCo, as a Lightning checkpoint's state dict."""
    query = nn.Sequential(*list(resnet(name).children())[:-1], nn.Flatten()).state_dict()
    heads = {"0.0.weight": drawn(8, 8), "0.2.bias": drawn(8)}
    return {
        **{f"encoder_q.{key}": value for key, value in query.items()},
        **{f"encoder_k.{key}": value + 1 for key, value in query.items()},
        **{f"heads_{side}.{key}": value for side in "qk" for key, value in heads.items()},
        "queue": drawn(1, 8, 4),
        "queue_ptr": torch.zeros(1, 1, dtype=torch.long),
    }


def swin_v2(bands: int) -> nn.Module:
    torch.manual_seed(0)
    network = SwinTransformer(
        patch_size=[4, 4], embed_dim=16, depths=[2, 2, 1, 1], num_heads=[1, 1, 2, 2], window_size=[4, 4],
        block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2, num_classes=5,
    )  # fmt: skip
    network.features[0][0] = nn.Conv2d(bands, 16, 4, 4)
    for parameter in network.parameters():
        parameter.data += drawn(*parameter.shape, scale=0.02)
    return network.eval()


def satlas(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    """backbones.py of satlaspretrain_models, with the pyramid and a head of its training."""
    beside = {"intermediates.0.fpn.inner_blocks.0.0.weight": drawn(4, 4), "heads.0.layers.0.0.weight": drawn(4, 4)}
    return {**{f"{prefix}{key}": value for key, value in network.state_dict().items()}, **beside}


def run(state: dict[str, Tensor], family: str | None, **request: object) -> ImportedNetwork:
    wanted = {"architecture": None, "image_px": None, "window": None, "bands": None, "prefix": None} | request
    return import_network(Checkpoint(Path("x.pth"), "", state, {}), Request(**wanted, family=family))


def encoder(found: ImportedNetwork) -> Encoder:
    names = [f"B{number}" for number in range(found.bands)]
    mean, std = [0.0] * found.bands, [1.0] * found.bands
    card = EncoderCard(found.architecture, found.model_args, found.image_px, names, mean, std, "live", "imported", "")
    return Encoder(found.backbone, card, "theirs").eval()


def reasons(found: ImportedNetwork) -> dict[str, str]:
    return {row.key: row.reason for row in found.report}


def accounted(found: ImportedNetwork, state: dict[str, Tensor]) -> Counter[str]:
    """Every key is in the report once, and every one that was left has its reason."""
    assert [row.key for row in found.report] == list(state)
    assert all(row.reason for row in found.report if row.fate in ("left", "converted"))
    return Counter(row.fate for row in found.report)


@torch.no_grad()
def test_satmae_gives_four_token_maps_of_the_published_encoder():
    state = mae()
    found = run(state, "satmae")
    assert (found.image_px, found.bands, found.model_args["num_heads"]) == (PX, 3, HEADS)
    patches = F.conv2d(image(3), state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=PATCH)
    expected = maps(state, patches.flatten(2).transpose(1, 2), 1e-6)
    ours = encoder(found)
    assert ours.strides == (16, 16, 16, 16)
    for got, wanted in zip(ours(image(3)), expected, strict=True):
        torch.testing.assert_close(got, wanted, **CLOSE)
    counts = accounted(found, state)
    assert counts["mapped"] == len(found.backbone.state_dict()) and counts["converted"] == 0
    told = reasons(found)
    assert told["mask_token"] == "mask token of the pretraining"
    assert told["decoder_blocks.0.attn.qkv.bias"] == "decoder of the reconstruction"


@torch.no_grad()
def test_a_fine_tuned_satmae_has_no_norm_but_its_classifiers():
    state = {key: value for key, value in mae().items() if not key.startswith(("decoder", "mask", "norm"))}
    state |= {"fc_norm.weight": drawn(WIDTH), "fc_norm.bias": drawn(WIDTH), "head.weight": drawn(62, WIDTH)}
    found = run(state, "satmae")
    patches = F.conv2d(image(3), state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=PATCH)
    expected = maps(state, patches.flatten(2).transpose(1, 2), 1e-6, normed=False)
    torch.testing.assert_close(encoder(found)(image(3))[-1], expected[-1], **CLOSE)
    assert reasons(found)["fc_norm.bias"] == "norm of the classifier"


@torch.no_grad()
@pytest.mark.parametrize(
    ("dates", "prefix", "time"), [(3, "", 1), (4, "encoder.", 1), (1, "encoder.", 1), (2, "encoder.", 2)]
)
def test_prithvi_reads_one_date_as_its_own_encoder_reads_it_alone(dates, prefix, time):
    """Four dates of 4 x 4 are as many positions as one of 8 x 8: the values of the table tell them apart."""
    state = prithvi(dates, prefix=prefix, time=time)
    found = run(state, "prithvi")
    assert (found.image_px, found.bands) == (PX, 6)
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    own["pos_embed"] = own["pos_embed"][:, : 1 + SIDE * SIDE]
    series = image(6)[:, :, None].repeat(1, 1, time, 1, 1)
    weight, bias = own["patch_embed.proj.weight"], own["patch_embed.proj.bias"]
    patches = F.conv3d(series, weight, bias, stride=(time, PATCH, PATCH)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder(found)(image(6))[-1], maps(own, patches, 1e-5)[-1], rtol=1e-3, atol=1e-3)
    counts, told = accounted(found, state), reasons(found)
    assert counts["converted"] == 2
    assert told[f"{prefix}pos_embed"] == f"the first of {dates} dates"
    assert told[f"{prefix}patch_embed.proj.weight"] == ("summed over time" if time > 1 else "without its axis of time")
    assert any(f"one date of the {dates}" in note for note in found.notes)


@torch.no_grad()
def test_dofas_patch_embedding_is_generated_for_the_declared_wavelengths():
    """Its convolution begins one pixel outside of the image: the same on an image moved by that pixel."""
    um = [0.665, 0.56, 0.49, 0.842]
    state = dofa()
    found = run(state, "dofa", wavelengths_um=um)
    assert found.bands == 4
    expected = maps(state, dofa_patches(state, image(4), um), 1e-6)
    moved = F.pad(image(4), (1, 0, 1, 0))[:, :, :PX, :PX]
    for got, wanted in zip(encoder(found)(moved), expected, strict=True):
        torch.testing.assert_close(got, wanted, **CLOSE)
    counts = accounted(found, state)
    assert counts["converted"] == 22 and counts["left"] == 3  # mask token and projector
    assert "0.665, 0.56, 0.49, 0.842 um" in reasons(found)["patch_embed.fclayer.w1.bias"]
    assert any("moved by one pixel" in note for note in found.notes)


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["model.encoder.", "encoder.", ""])
def test_clays_encoder_is_made_for_the_declared_wavelengths_and_metres(prefix):
    um = [0.493, 0.56, 0.665, 0.842]
    state = clay(prefix)
    found = run(state, "clay", wavelengths_um=um, gsd_m=10.0, image_px=PX)
    assert (found.bands, found.model_args["num_heads"], found.model_args["mlp_ratio"]) == (4, 4, 2.0)
    for got, wanted in zip(encoder(found)(image(4)), clay_maps(state, image(4), um, 10.0), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)  # its norms add 1e-5, timm's 1e-6
    counts, told = accounted(found, state), reasons(found)
    assert counts["converted"] == 22 and counts["mapped"] == 10 * DEPTH + 3
    assert told[f"{prefix}patch_embedding.fclayer.l1.bias"].endswith("for 0.493, 0.56, 0.665, 0.842 um")
    if prefix == "model.encoder.":
        left = [key for key, reason in told.items() if not key.startswith(prefix) and reason]
        assert left == ["model.decoder.mask_patch", "model.teacher.cls_token", "model.proj.weight"]
    assert any("Time and place are not given" in note for note in found.notes)


@torch.no_grad()
def test_clays_positions_are_made_anew_for_another_size_and_not_resized():
    wanted = {"wavelengths_um": [0.5], "gsd_m": 1.0}
    small, large = (run(clay(), "clay", image_px=px, **wanted).backbone.pos_embed for px in (PX, 2 * PX))
    cells = large[0, 1:].unflatten(0, (2 * SIDE, 2 * SIDE))[:SIDE, :SIDE].flatten(0, 1)
    torch.testing.assert_close(cells, small[0, 1:])


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_secos_query_encoder_is_the_resnet(name):
    state = seco(name)
    found = run(state, "seco")
    assert found.architecture == name
    network = resnet(name)
    x = network.maxpool(network.relu(network.bn1(network.conv1(image(3)))))
    ours = encoder(found)
    assert ours.strides == (4, 8, 16, 32)
    for got, stage in zip(
        ours(image(3)), (network.layer1, network.layer2, network.layer3, network.layer4), strict=True
    ):
        x = stage(x)
        torch.testing.assert_close(got, x, **CLOSE)
    told = reasons(found)
    accounted(found, state)
    assert told["queue"] == "queue of negatives" and told["encoder_k.0.weight"] == "momentum encoder"


@torch.no_grad()
@pytest.mark.parametrize(("prefix", "bands"), [("backbone.backbone.", 3), ("backbone.backbone.backbone.", 9)])
def test_satlas_swin_v2_is_torchvisions(prefix, bands):
    network = swin_v2(bands)
    state = satlas(network, prefix)
    found = run(state, "satlas", image_px=128)
    assert found.model_args["window_size"] == 4 and found.bands == bands
    outputs, x = [], image(bands, 128)
    for layer in network.features:
        x = layer(x)
        outputs.append(x)
    ours = encoder(found)
    assert ours.strides == (4, 8, 16, 32)
    pyramid = ours(image(bands, 128))
    for got, wanted in zip(pyramid[:3], outputs[1:6:2], strict=True):
        torch.testing.assert_close(got, wanted.permute(0, 3, 1, 2), **CLOSE)
    torch.testing.assert_close(pyramid[3], network.norm(outputs[7]).permute(0, 3, 1, 2), **CLOSE)
    counts, told = accounted(found, state), reasons(found)
    assert counts["converted"] == 6 and told["heads.0.layers.0.0.weight"] == "heads of its tasks"
    assert told[f"{prefix}features.1.0.attn.relative_position_index"] == "buffer that the network computes"
    assert told[f"{prefix}head.weight"] == "classifier"


@torch.no_grad()
def test_satlas_resnet_is_torchvisions():
    network = resnet("resnet50", 9)
    found = run(satlas(network, "backbone.resnet."), "satlas")
    x = network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(image(9))))))
    assert (found.architecture, found.bands) == ("resnet50", 9)
    torch.testing.assert_close(encoder(found)(image(9))[0], x, **CLOSE)


@pytest.mark.parametrize("px", [96, 128])
def test_a_vit_of_another_size_has_its_positions_resized_and_the_report_says_both(px):
    found = run(prithvi(3), "prithvi", image_px=px)
    assert [tuple(m.shape) for m in encoder(found)(image(6, px))] == [(2, WIDTH, px // 16, px // 16)] * 4
    row = next(row for row in found.report if row.key == "encoder.pos_embed")
    assert (row.fate, row.reason) == ("resized", f"the first of 3 dates, from 64 px to {px} px")
    assert (row.shape, row.new_shape) == ((1, 49, WIDTH), (1, 1 + (px // 16) ** 2, WIDTH))


STATES = {
    "clay": clay,
    "dofa": dofa,
    "prithvi": lambda: prithvi(3),
    "satlas": lambda: satlas(swin_v2(3), "backbone.backbone."),
    "satmae": mae,
    "seco": lambda: seco("resnet18"),
}


@pytest.mark.parametrize("declared", FAMILIES)
@pytest.mark.parametrize("real", FAMILIES)
def test_another_familys_weights_are_one_error_that_names_whose_keys_they_are(declared, real):
    if declared == real:
        return
    with pytest.raises(WeightsError, match=f"not of the family {declared}: its keys are those of {real}") as caught:
        run(STATES[real](), declared, wavelengths_um=[0.6, 0.5, 0.4])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("real", FAMILIES)
def test_weights_without_a_declared_family_are_told_whose_they_are(real):
    with pytest.raises(WeightsError, match=f"its keys are those of {real}.*--family"):
        run(STATES[real](), None)


def _changed(state: dict[str, Tensor], without: str = "", **more: Tensor) -> dict[str, Tensor]:
    kept = {key: value for key, value in state.items() if key != without}
    return kept | {key.replace("__", "."): value for key, value in more.items()}


@pytest.mark.parametrize(
    ("family", "state", "request_", "message"),
    [
        ("satmae", _changed(mae(), channel_embed=drawn(1, 3, 8)), {}, "SatMAE with groups of channels"),
        ("satmae", _changed(mae(), pos_embed=drawn(1, 17, 96)), {}, "SatMAE of several dates"),
        ("satmae", _changed(mae(), pos_embed=drawn(1, 18, WIDTH)), {}, "18 rows, which is no square grid"),
        ("satmae", _changed(mae(), "norm.bias"), {}, "lacks norm.bias"),
        ("satmae", _changed(mae(), "blocks.1.mlp.fc1.bias"), {}, "lacks blocks.1.mlp.fc1.bias"),
        ("satmae", _changed(mae(), lidar__weight=drawn(3)), {}, "lidar.weight: neither a parameter"),
        ("satmae", _changed(mae(), cls_token=torch.full((1, 1, WIDTH), torch.nan)), {}, "cls_token is not finite"),
        ("satmae", _changed(mae(), patch_embed__proj__weight=drawn(40, 3, 16, 16), pos_embed=drawn(1, 17, 40)), {},
         "a ViT of width 40, whose number of heads is not known"),
        ("satmae", mae(), {"architecture": "vit_base_patch16_224"}, "is read from the weights of family satmae"),
        ("satmae", mae(), {"window": 4}, "--window 4: is read from the weights"),
        ("prithvi", _changed(prithvi(3), encoder__pos_embed=drawn(1, 49, WIDTH)), {}, "not Prithvi's table of time"),
        ("dofa", dofa(), {"wavelengths_um": None}, "depends on the bands; give their --bands and --wavelengths"),
        ("dofa", _changed(dofa(), "patch_embed.fclayer.w1.bias"), {}, "not DOFA's generator"),
        ("seco", _changed(seco("resnet18"), encoder_q__9__bias=drawn(3)), {}, "encoder_q.9.bias: neither a part of"),
        ("seco", {k: v for k, v in seco("resnet18").items() if not k.startswith("encoder_q.5.1")}, {},
         r"2 \+ 1 \+ 2 \+ 2 blocks are those of no ResNet"),
        ("satlas", _changed(satlas(swin_v2(3), "backbone.backbone."), "backbone.backbone.features.3.1.norm2.bias"), {},
         "lacks layers.1.blocks.1.norm2.bias"),
        ("clay", clay(), {"gsd_m": None}, "give their --bands, --wavelengths .um. and --gsd .m."),
        ("clay", clay(), {"wavelengths_um": None}, "give their --bands"),
        ("clay", _changed(clay(), model__encoder__lidar=drawn(3)), {}, "lidar: neither a part of Clay's encoder"),
        ("clay", _changed(clay(), "model.encoder.patch_embedding.fclayer.l1.bias"), {}, "not Clay's generator"),
        ("clay", _changed(clay(), "model.encoder.transformer.layers.1.0.to_out.weight"), {}, "blocks.1.attn.proj"),
        (None, {"module.pre_conv1.weight": drawn(64, 3, 3, 3)}, {}, "MATTER's weights .pre_conv1.weight."),
        ("seco", {"module.pre_conv1.weight": drawn(64, 3, 3, 3)}, {}, "MATTER's weights"),
    ],
)  # fmt: skip
def test_what_cannot_be_the_same_network_is_refused_in_one_line(family, state, request_, message):
    with pytest.raises(WeightsError, match=message) as caught:
        run(state, family, **({"wavelengths_um": [0.6], "gsd_m": 10.0} | request_))
    assert "\n" not in str(caught.value)


def test_dofas_files_of_the_other_order_are_known_by_their_digest():
    with pytest.raises(WeightsError, match="before the order of its generated values changed"):
        check_release("dofa", "7cc0f413" + "0" * 56, "dofa.pth")
    check_release("dofa", "a0275954" + "0" * 56, "dofa.pth")
    check_release(None, "7cc0f413" + "0" * 56, "other.pth")


def test_one_of_several_networks_is_taken_by_its_prefix_and_none_by_chance():
    state = seco("resnet18")
    both = {**{f"a.{key}": value for key, value in state.items()}, "b.encoder_q.0.weight": drawn(3)}
    found = run(both, "seco", prefix="a")
    accounted(found, both)
    assert reasons(found)["b.encoder_q.0.weight"] == "outside the chosen prefix"
    doubled = prithvi(3) | {"norm.weight": drawn(WIDTH)}
    with pytest.raises(WeightsError, match=r"norm\.weight is there twice, under several prefixes"):
        run(doubled, "prithvi")


def test_half_precision_and_wrappers_of_training_code_change_nothing():
    state = prithvi(3)
    half = {f"module.{key}": value.half() for key, value in state.items()}
    got, wanted = run(half, "prithvi").backbone.state_dict(), run(state, "prithvi").backbone.state_dict()
    assert all(value.dtype == torch.float32 for value in got.values())
    torch.testing.assert_close(
        got["blocks.0.attn.qkv.weight"], wanted["blocks.0.attn.qkv.weight"], rtol=1e-3, atol=1e-3
    )
