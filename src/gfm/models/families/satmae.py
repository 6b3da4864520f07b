"""SatMAE's plain ViT (fMoW RGB, one date): MAE's keys, which are timm's.

Cong et al. 2022; github.com/sustainlab-group/SatMAE, models_mae.py (pretraining) and models_vit.py (fine-tuning).
The variants with groups of channels (models_mae_group_channels.py) and with dates (models_mae_temporal.py) feed
several tokens for one place to their ViT, which no timm network does.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gfm.errors import WeightsError
from gfm.models.families.layout import Images, Layout, set_aside
from gfm.models.families.vit import MASKED_AUTOENCODER, needed, square_grid, vit_size

LANDMARKS = {r"cls_token": 3, r"(patch_embed|patch_embed\.0)\.proj\.weight": 4}


def read_satmae(state: Mapping[str, Tensor], images: Images, source: str) -> Layout:
    """The ViT; WeightsError for the variants that are no plain ViT."""
    if "channel_embed" in state:
        raise WeightsError(
            f"{source}: SatMAE with groups of channels (its key channel_embed): every place has a token for each "
            "group, which timm's ViT does not have; take the RGB weights of one date"
        )
    kept, left = set_aside(state, MASKED_AUTOENCODER)
    kernel = needed(kept, "patch_embed.proj.weight", 4, source)
    table = needed(kept, "pos_embed", 3, source)
    if table.shape[-1] != kernel.shape[0]:
        raise WeightsError(
            f"{source}: SatMAE of several dates (pos_embed is {table.shape[-1]} wide, its tokens {kernel.shape[0]}): "
            "the rest of a position is its date, which timm's ViT does not have; take the RGB weights of one date"
        )
    name, args = vit_size(kept, kernel, source)
    return Layout(
        architecture=name,
        args=args,
        bands=kernel.shape[1],
        image_px=square_grid(table.shape[1], source) * kernel.shape[-1],
        size_from="the table of positions",
        values=dict(kept),
        becomes={key: key for key in kept},
        left=left,
    )
