"""AdamW's parameter groups in fine-tuning: head and encoder, layer by layer, with and without weight decay."""

from __future__ import annotations

from gfm.downstream.adaptation.layers import layer_depths
from gfm.downstream.module import Group
from gfm.downstream.tasks import TaskModel


def parameter_groups(
    model: TaskModel, *, head_lr: float, encoder_lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[Group]:
    """The trainable parameters in groups of one learning rate and decay.

    A layer's rate is `layer_decay` times that of the layer above it; the encoder's uppermost is as deep as the head.
    Vectors (norms, biases) and what timm names in `no_weight_decay` (position tables) are not decayed.
    """
    backbone = model.encoder.backbone
    # One depth for all needs no knowledge of the network's order.
    depths, top = layer_depths(backbone) if layer_decay < 1 else ({}, 0)
    spared = set(backbone.no_weight_decay()) if hasattr(backbone, "no_weight_decay") else set()  # type: ignore[operator]
    inner = {id(parameter): name for name, parameter in backbone.named_parameters()}
    groups: dict[tuple[int, bool, float], Group] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        name = inner.get(id(parameter))
        depth, lr = (top, head_lr) if name is None else (depths.get(name, top), encoder_lr)
        decayed = parameter.ndim > 1 and name not in spared
        scale = layer_decay ** (top - depth)
        group = groups.setdefault(
            (depth, decayed, lr),
            {
                "name": f"layer_{depth}_{'decay' if decayed else 'no_decay'}",
                "params": [],
                "lr": lr * scale,
                "lr_scale": scale,
                "weight_decay": weight_decay if decayed else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())
