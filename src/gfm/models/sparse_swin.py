"""Swin over the visible mask units only, on timm's own weights.

A mask unit of 32 px is one token of Swin's last stage and 2x2, 4x4, 8x8 tokens of those before it, so that patch
embedding and merging never mix units: leaving units out is exact there. Window attention alone mixes them. The result
equals the dense network with masked keys removed (the idea of GreenMIM, arXiv 2205.13515, and UM-MAE, arXiv
2205.10063; not their algorithms).

Windows in timm 1.0.31: `window_size` is an int, one (h, w), or a list with one entry for each stage; two ints are
always one (h, w). With unit 32 and patch 4, [8, 4, W3, W4] makes windows that are units in stages 1 and 2. A window
never exceeds its stage's grid: there timm takes the whole grid as the window and does not shift. `set_input_size`
scales every window with the image unless it is given new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gfm.errors import GfmError
from gfm.models.masking import unit_pixels
from gfm.models.sparse_attention import Size, VisibleAttention, visible_attention

RunBlock = Callable[[SwinTransformerBlock, Tensor, VisibleAttention | None], Tensor]


class SparseSwin:
    """Runs a timm SwinTransformer (v1) on the visible mask units of an image.

    Called with a normalised float image (B, C, H, W) and sorted indices (B, V), long, of the visible units (row-major,
    V alike for all images), it returns one map (B, V, h, w, C) for each stage, h x w being a unit's tokens (8x8, 4x4,
    2x2, 1x1 for 32 px and patch 4), the last map after the network's final norm, as in `pyramid`.

    It has no parameters and is no nn.Module: it reads `backbone`, whose state dict is what is trained and saved.
    Blocks whose windows lie within units run on units as they are; the others attend as `visible_attention` says.
    Shapes never depend on data, so torch.compile keeps one graph.

    Args:
        backbone: the network; the side of its images and its windows are looked up at each call.
        unit_px: side of a mask unit in pixels, a multiple of the network's last stride.
        unshifted_stages: stages (1 is the finest) in which odd blocks do not shift their windows; None means those
            whose window is exactly a unit. timm's dense network shifts there all the same, which fine-tuning would
            meet for the first time: call `drop_shift` on it to have the pretrained form.

    Raises:
        GfmError: not a Swin v1, or a unit that does not fit its strides or the side of its images.
    """

    def __init__(
        self, backbone: nn.Module, unit_px: int = 32, *, unshifted_stages: Collection[int] | None = None
    ) -> None:
        self.backbone = _swin(backbone)
        self.unit_px = unit_px
        self.sides = _unit_sides(self.backbone, unit_px)
        if unshifted_stages is None:
            unshifted_stages = aligned_stages(backbone, unit_px)
        self.unshifted_stages = tuple(sorted(unshifted_stages))
        self.run_block: RunBlock = run_block  # replaced where a block's weights must be fetched before it runs

    @property
    def units(self) -> Size:
        """Rows and columns of mask units in an image."""
        height, width = self.backbone.patch_embed.img_size
        return height // self.unit_px, width // self.unit_px

    def __call__(self, image: Tensor, visible: Tensor) -> list[Tensor]:
        """The maps of all stages; see the class."""
        network = self.backbone
        height, width = network.patch_embed.img_size
        if (image.shape[2], image.shape[3]) != (height, width):
            raise GfmError(
                f"image of {image.shape[2]} x {image.shape[3]} px: the network is built for {height} x {width} px; "
                "adapt it with set_image_px"
            )
        pixels = unit_pixels(image, visible, self.unit_px).flatten(0, 1)
        # The embedding's own forward would insist on a whole image.
        x = network.patch_embed.norm(network.patch_embed.proj(pixels).permute(0, 2, 3, 1))
        x = x.unflatten(0, visible.shape)
        maps = []
        for number, stage in enumerate(network.layers, start=1):
            x = stage.downsample(x.flatten(0, 1)).unflatten(0, visible.shape)
            attentions: dict[Size, VisibleAttention] = {}  # by shift
            for block in stage.blocks:
                shift = (0, 0) if number in self.unshifted_stages else block.shift_size
                within = not any(shift) and self._within_units(number, block.window_size)
                if not within and shift not in attentions:
                    attentions[shift] = self._attention(number, visible, block.window_size, shift)
                attention = None if within else attentions[shift]
                if stage.grad_checkpointing and torch.is_grad_enabled():
                    x = checkpoint(self.run_block, block, x, attention, use_reentrant=False)
                else:
                    x = self.run_block(block, x, attention)
            maps.append(x)
        maps[-1] = network.norm(x)
        return maps

    def _within_units(self, stage: int, window: Size) -> bool:
        side = self.sides[stage - 1]
        return side % window[0] == side % window[1] == 0

    def _attention(self, stage: int, visible: Tensor, window: Size, shift: Size) -> VisibleAttention:
        """Attention for one stage and shift, given where the visible units lie."""
        (rows, columns), side = self.units, self.sides[stage - 1]
        inner = torch.arange(side, device=visible.device)
        row = ((visible // columns)[:, :, None] * side + inner)[:, :, :, None].expand(-1, -1, -1, side)
        column = ((visible % columns)[:, :, None] * side + inner)[:, :, None, :].expand(-1, -1, side, -1)
        grid = (rows * side, columns * side)
        return visible_attention(row.flatten(1), column.flatten(1), grid=grid, window=window, shift=shift)


def aligned_stages(backbone: nn.Module, unit_px: int = 32) -> tuple[int, ...]:
    """The stages (1 is the finest) whose attention window is exactly one mask unit."""
    network = _swin(backbone)
    sides = _unit_sides(network, unit_px)
    return tuple(
        number
        for number, (stage, side) in enumerate(zip(network.layers, sides, strict=True), start=1)
        if all(block.window_size == (side, side) for block in stage.blocks)
    )


def drop_shift(backbone: nn.Module, stages: Collection[int]) -> None:
    """Stop a dense timm Swin from shifting windows in `stages` (1 is the finest), as SparseSwin does there.

    Weights and state dict stay as they are. The network keeps this form when its image size changes; one that is built
    anew shifts again.
    """
    network = _swin(backbone)
    for number in stages:
        for block in network.layers[number - 1].blocks:
            block.target_shift_size = (0, 0)  # what timm computes the shift from when the image size changes
            block.shift_size = (0, 0)
            block.attn_mask = None


def run_block(block: SwinTransformerBlock, x: Tensor, attention: VisibleAttention | None) -> Tensor:
    """timm's block on visible tokens (B, V, h, w, C); None attends within units."""
    normed = block.norm1(x)
    if attention is None:
        attended = _attend_within_units(block, normed)
    else:
        attended = attention(block.attn, normed.flatten(1, 3)).view(x.shape)
    # Stochastic depth drops whole images, as in timm, because they are the first dimension.
    x = x + block.drop_path1(attended)
    result: Tensor = x + block.drop_path2(block.mlp(block.norm2(x)))
    return result


def _attend_within_units(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    _, _, height, width, channels = x.shape
    windows = window_partition(x.flatten(0, 1), block.window_size).flatten(1, 2)
    attended = block.attn(windows).view(-1, *block.window_size, channels)
    result: Tensor = window_reverse(attended, block.window_size, height, width).view(x.shape)
    return result


def _swin(backbone: nn.Module) -> SwinTransformer:
    if not isinstance(backbone, SwinTransformer):
        raise GfmError(
            f"student.architecture: {type(backbone).__name__} cannot leave masked tokens out; take a Swin (v1)"
        )
    return backbone


def _unit_sides(network: SwinTransformer, unit_px: int) -> tuple[int, ...]:
    """Tokens along a mask unit's side, for each stage."""
    patches, sides = network.patch_embed.patch_size, network.patch_embed.img_size
    strides = [max(patches) * 2**index for index in range(len(network.layers))]
    if len(set(patches)) > 1 or unit_px % strides[-1]:
        raise GfmError(f"masking.unit = {unit_px}: not a multiple of the network's last stride; use {strides[-1]}")
    if sides[0] % unit_px or sides[1] % unit_px:
        raise GfmError(
            f"masking.unit = {unit_px}: does not divide the network's images of {sides[0]} x {sides[1]} px; "
            f"set image_px to a multiple of {unit_px}"
        )
    return tuple(unit_px // stride for stride in strides)
