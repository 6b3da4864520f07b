"""Adapters go beside the layers that were named, and only where the network calls them."""

from __future__ import annotations

import pytest
import torch

from gfm.downstream.adaptation import build_adaptation
from gfm.downstream.tasks import TaskSpec, build_model
from gfm.errors import GfmError
from gfm.params import Finetune

SWIN2 = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1), "window_size": 4}


def _prepared(encoder, **lora):
    model = build_model("classification", encoder, TaskSpec("t", ("a", "b"), 1, 3, 32))
    build_adaptation(Finetune(mode="lora", lora=lora)).prepare(model)
    return model


def test_a_convolution_of_the_same_name_gets_no_adapter(make_encoder):
    model = _prepared(make_encoder("test_vit"), targets=["proj"])
    adapted = {name.split(".lora_")[0] for name, p in model.encoder.backbone.named_parameters() if "lora_" in name}
    assert adapted == {f"blocks.{i}.attn.proj" for i in range(len(model.encoder.backbone.blocks))}


def test_other_linear_layers_can_be_named(make_encoder):
    model = _prepared(make_encoder("test_convnext"), targets=["fc1", "fc2"])
    assert any(p.requires_grad for p in model.encoder.parameters())


def test_1x1_convolutions_learn_beside_frozen_ones_and_come_back_as_saved(make_encoder):
    encoder, image = make_encoder("mobilenetv2_035"), torch.rand(2, 3, 32, 32)
    before = encoder.eval()(image)
    model, restored = (_prepared(make_encoder("mobilenetv2_035"), targets=["conv_pw", "conv_pwl"]) for _ in "ab")
    learned = [parameter for parameter in model.encoder.parameters() if parameter.requires_grad]
    assert learned and all(parameter.shape[2:] == (1, 1) for parameter in learned)
    assert all(torch.equal(a, b) for a, b in zip(before, model.encoder(image), strict=True))  # adapters start from zero
    with torch.no_grad():
        for parameter in learned:
            parameter.add_(0.1)
    after = model.encoder(image)[-1]
    assert not torch.allclose(before[-1], after)
    adaptation = build_adaptation(Finetune(mode="lora"))
    adaptation.restore(restored, adaptation.saved(model))
    assert torch.equal(restored.encoder(image)[-1], after)


def test_a_depthwise_convolution_gets_no_adapter(make_encoder):
    with pytest.raises(GfmError, match="has no linear layers named conv_dw"):
        _prepared(make_encoder("mobilenetv2_035"), targets=["conv_dw"])


@pytest.mark.parametrize(
    ("architecture", "args", "told"),
    [
        ("test_resnet", {}, "its linear layers are named 1, conv1, conv3; set finetune.lora.targets to some of them"),
        ("test_convnext", {}, "its linear layers are named fc1, fc2; set finetune.lora.targets to some of them"),
        ("swinv2_tiny_window8_256", SWIN2, "does not call 2 of the 4 layers"),
    ],
)
def test_a_network_that_adapters_do_not_fit_is_refused(make_encoder, architecture, args, told):
    with pytest.raises(GfmError) as error:
        _prepared(make_encoder(architecture, **args))
    assert told in str(error.value) and "\n" not in str(error.value)
