"""Low-rank adapters (LoRA) beside the frozen linear layers of an encoder; adapters and head learn.

A 1x1 convolution is a linear layer over the channels of each place, and counts as one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gfm.downstream.adaptation.adaptation import HEAD, Adaptation, Files, head_tensors, restore_head
from gfm.downstream.tasks import TaskModel
from gfm.errors import GfmError
from gfm.models.declared_encoder import declared_encoder, declared_key
from gfm.models.encoder import Encoder
from gfm.params import ParameterFaults, Params, Task, TimmEncoder

ADAPTERS = ".adapters"  # suffix of the file that holds the adapters
SHOWN = 8


class Lora(Adaptation):
    """Adapters by peft; the encoder itself stays as it is, in evaluation mode, and gradients pass through it."""

    def prepare(self, model: TaskModel) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        own, encoder = self.settings.lora, model.encoder
        layers = _linear_layers(encoder, own.targets)
        encoder.freeze()
        config = LoraConfig(r=own.rank, lora_alpha=own.alpha, target_modules=layers)  # type: ignore[arg-type]
        inject_adapter_in_model(config, encoder.backbone)
        encoder.eval()  # what was injected came in training mode
        _check_used(encoder, own.targets, model.spec.image_px)

    def saved(self, model: TaskModel) -> dict[str, dict[str, Tensor]]:
        from peft import get_peft_model_state_dict

        return {HEAD: head_tensors(model), ADAPTERS: get_peft_model_state_dict(model.encoder.backbone)}

    def restore(self, model: TaskModel, files: Files) -> None:
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        own = get_peft_model_state_dict(model.encoder.backbone)
        if own.keys() != files[ADAPTERS].keys():
            raise RuntimeError(f"adapters for {len(files[ADAPTERS])} places instead of {len(own)}")
        set_peft_model_state_dict(model.encoder.backbone, dict(files[ADAPTERS]))
        restore_head(model, files[HEAD])


def check_lora_targets(params: Params) -> None:
    """ParameterFaults where a task's LoRA names layers that a network lacks, of the networks that are declared."""
    faults = [fault for name, task in params.tasks.items() for fault in _absent_targets(params, name, task)]
    if faults:
        raise ParameterFaults(faults)


def _absent_targets(params: Params, name: str, task: Task) -> Iterator[str]:
    if task.finetune.mode != "lora":
        return
    sections = {"teacher": params.teacher, "student": params.student} | {
        f"encoders.{own}": encoder for own, encoder in params.encoders.items() if isinstance(encoder, TimmEncoder)
    }
    for key in dict.fromkeys(declared_key(params, model) for model in params.models):
        if key is None:
            continue
        try:
            with torch.device("meta"):
                declared = sections[key]
                encoder = declared_encoder(key, declared.architecture, declared.normalisation, params.geopile.bands)
        except GfmError:  # its own check says so
            continue
        try:
            _linear_layers(encoder, task.finetune.lora.targets)
        except GfmError as error:
            yield f"tasks.{name}.finetune.lora.targets: {error}"


def _linear_layers(encoder: Encoder, targets: list[str]) -> list[str]:
    """Full names of the backbone's linear layers whose own name is one of `targets`."""
    linear = [name for name, module in encoder.backbone.named_modules() if _is_linear(module)]
    own_names = list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in linear))
    absent = [target for target in targets if target not in own_names]
    if absent:
        there = f"its linear layers are named {', '.join(own_names[:SHOWN])}" if own_names else "it has none"
        fix = "set finetune.lora.targets to some of them" if own_names else "set finetune.mode = full or frozen"
        raise GfmError(
            f"{encoder.name}: {encoder.card.architecture} has no linear layers named {', '.join(absent)} for LoRA: "
            f"{there}; {fix}"
        )
    return [name for name in linear if name.rsplit(".", 1)[-1] in targets]


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


def _check_used(encoder: Encoder, targets: list[str], image_px: int) -> None:
    """Refuse adapters that the network goes past: some of timm's networks use a layer's weight, not the layer."""
    from peft.tuners.lora import LoraLayer

    layers = [module for module in encoder.backbone.modules() if isinstance(module, LoraLayer)]
    adapters = [weight for layer in layers for weight in layer.lora_B.parameters()]
    total = torch.stack(
        [level.sum() for level in encoder(torch.full((1, len(encoder.bands), image_px, image_px), 0.5))]
    )
    found = torch.autograd.grad(total.sum(), adapters, allow_unused=True)
    past = sum(gradient is None for gradient in found)
    if past:
        raise GfmError(
            f"{encoder.name}: {encoder.card.architecture} does not call {past} of the {len(layers)} layers that "
            f"finetune.lora.targets = {targets} names, so adapters beside them would do nothing; name others, or set "
            "finetune.mode = full or frozen"
        )
