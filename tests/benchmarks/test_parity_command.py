"""`python benchmarks/parity.py`: files of other sizes are read, and nothing wrong in one passes."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gfm.models.masking import block_mask
from gfm.models.parity import build_published
from gfm.models.parity_file import Swin
from gfm.models.published import COMPUTED, published_name

COMMAND = Path(__file__).parents[2] / "benchmarks" / "parity.py"
SHARED = Path(__file__).parents[2] / ".." / "shared" / "parity"
SMALL = Swin(
    image_px=64,
    embed_dim=8,
    depths=(1, 2, 2, 1),
    num_heads=(1, 2, 2, 4),
    window=4,
    patch_px=4,
    bands=3,
    mlp_ratio=4.0,
    qkv_bias=True,
)


def write_parity_file(path: Path, student: Swin, teacher: Swin, *, alpha: float, unit: int, ratio: float = 0.6) -> None:
    """A file of the published form, computed with our own modules: names and layout are what it is for."""
    model = build_published(student, teacher, alpha=alpha).train()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    image = torch.randn(2, student.bands, student.image_px, student.image_px, generator=generator)
    blocks = block_mask(2, blocks=student.image_px // unit, ratio=ratio, generator=generator)
    mask = blocks.repeat_interleave(unit // student.patch_px, 1).repeat_interleave(unit // student.patch_px, 2)
    out = model(image, mask)
    out.losses.total.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    tensors = {
        "input/image": image,
        "input/mask": mask.float(),
        "expected/encoder_map": out.encoder_map,
        "expected/student_feature": out.student_feature,
        "expected/teacher_feature": out.teacher_feature,
        "expected/reconstruction": out.reconstruction,
        "expected/loss_mim": out.losses.mim,
        "expected/loss_feat": out.losses.distillation,
        "expected/loss": out.losses.total,
        "expected/grad_norm": nn.utils.clip_grad_norm_(trained.values(), math.inf),
    }
    computed = {name: buffer for name, buffer in model.named_buffers() if COMPUTED.search(name)}
    tensors |= {f"state/{published_name(name)}": tensor for name, tensor in (model.state_dict() | computed).items()}
    tensors |= {f"grad/{published_name(name)}": parameter.grad for name, parameter in trained.items()}
    metadata = {
        "embed_dim": student.embed_dim,
        "depths": list(student.depths),
        "num_heads": list(student.num_heads),
        "window_size": student.window,
        "teacher_window_size": teacher.window,
        "img_size": student.image_px,
        "teacher_img_size": teacher.image_px,
        "alpha": alpha,
        "mask_patch": unit,
        "encoder_stride": student.stride,
    }
    save_file(
        {key: tensor.detach().contiguous() for key, tensor in tensors.items()},
        path,
        {key: str(value) for key, value in metadata.items()},
    )


@pytest.fixture(scope="module")
def command() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_command", COMMAND)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parity") / "small.safetensors"
    write_parity_file(path, SMALL, replace(SMALL, image_px=96, window=6), alpha=0.5, unit=32)
    return path


Change = Callable[[dict[str, Tensor], dict[str, str]], object]


def changed(small: Path, folder: Path, change: Change) -> Path:
    """A copy of the file after `change(tensors, metadata)`."""
    tensors = load_file(small)
    with safe_open(small, framework="pt") as stored:
        metadata = stored.metadata()
    change(tensors, metadata)
    path = folder / "changed.safetensors"
    save_file(tensors, path, metadata)
    return path


@pytest.mark.parametrize(
    ("student", "teacher", "alpha", "unit"),
    [
        ({}, {"image_px": 96, "window": 6}, 0.5, 32),
        ({"depths": (2, 2, 18, 2)}, {}, 1.0, 16),
        ({"embed_dim": 24, "num_heads": (3, 3, 6, 6), "window": 2}, {"window": 4}, 2.0, 64),
        ({"qkv_bias": False, "mlp_ratio": 2.0, "bands": 4}, {"image_px": 128, "window": 8}, 0.1, 32),
        ({"patch_px": 2, "window": 8}, {"image_px": 48, "window": 3}, 0.0, 16),
        ({"depths": (2, 2, 2), "num_heads": (2, 2, 4)}, {}, 1.0, 32),
        ({"window": 7, "image_px": 224}, {"image_px": 160, "window": 5}, 1.5, 32),
    ],
)
def test_a_file_of_any_size_agrees(
    command: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    student: dict[str, object],
    teacher: dict[str, object],
    alpha: float,
    unit: int,
) -> None:
    network = replace(SMALL, **student)
    path = tmp_path / "file.safetensors"
    write_parity_file(path, network, replace(network, **teacher), alpha=alpha, unit=unit)
    assert command.main([str(path)]) == 0
    told = capsys.readouterr().out
    assert f"alpha {alpha:g}" in told
    rows = 8 + sum(key.startswith("grad/") for key in load_file(path)) + 1
    assert f"{rows} of {rows} within 0.0001" in told


@pytest.mark.parametrize(
    ("key", "above"),
    [
        ("expected/encoder_map", "encoder_map"),
        ("expected/loss", "loss"),
        ("expected/grad_norm", "grad_norm"),
        ("grad/encoder.layers.2.downsample.reduction.weight", "grad/encoder.layers.2.downsample.reduction.weight"),
        ("state/encoder.layers.1.blocks.1.attn_mask", "state/encoder.layers.1.blocks.1.attn_mask"),
    ],
)
def test_a_perturbed_tensor_is_above_the_tolerance_and_named(
    command: ModuleType, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, above: str
) -> None:
    def perturb(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        flat = tensors[key].view(-1)
        flat[flat.abs().argmax()] *= 1 + 3e-4

    assert command.main([str(changed(small, tmp_path, perturb))]) == 1
    marked = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "ABOVE" in line]
    assert marked == [above]


def test_one_wrong_weight_shows_in_what_is_computed_from_it(command: ModuleType, small: Path, tmp_path: Path) -> None:
    def perturb(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        tensors["state/projector.weight"] *= torch.linspace(1, 1.1, len(tensors["state/projector.weight"])).view(-1, 1)

    assert command.main([str(changed(small, tmp_path, perturb))]) == 1


def test_a_nan_that_we_compute_never_passes(
    command: ModuleType, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(file: object) -> object:
        model = command_published_model(file)
        with torch.no_grad():
            model.decoder[0].bias[0] = float("nan")
        return model

    command_published_model = command.published_model
    monkeypatch.setattr(command, "published_model", broken)
    assert command.main([str(small)]) == 1
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "ABOVE" in lines["reconstruction"] and "inf" in lines["reconstruction"]
    assert "ABOVE" not in lines["teacher_feature"]


def _drop(key: str) -> Change:
    return lambda tensors, metadata: tensors.pop(key)


def _forget(key: str) -> Change:
    return lambda tensors, metadata: metadata.pop(key)


def _say(key: str, value: str) -> Change:
    return lambda tensors, metadata: metadata.update({key: value})


def _put(key: str, value: Tensor) -> Change:
    return lambda tensors, metadata: tensors.update({key: value})


def _spoil(key: str) -> Change:
    def spoil(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        tensors[key].view(-1)[0] = float("nan")

    return spoil


METADATA = "embed_dim depths num_heads window_size teacher_window_size img_size teacher_img_size alpha mask_patch"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        *[(_forget(key), f"{key} is missing from the metadata") for key in [*METADATA.split(), "encoder_stride"]],
        (_say("depths", "[2, 2"), "depths = '[2, 2' in the metadata: must be"),
        (_say("depths", "[1, 2, 2.5, 1]"), "depths = "),
        (_say("depths", "[1, 2, 3, 1]"), "missing: state/encoder.layers.2.blocks.2."),
        (_say("depths", "[1, 2, 1, 1]"), "unknown: state/encoder.layers.2.blocks.1."),
        (_say("num_heads", "[1, 2, 2]"), "num_heads has 3 stages, depths has 4"),
        (_say("num_heads", "[1, 2, 2, 3]"), "3 heads do not divide"),
        (_say("embed_dim", "16"), "embed_dim = 16, but state/encoder.patch_embed.proj.weight has width 8"),
        (_say("alpha", "nan"), "alpha = 'nan'"),
        (_say("alpha", "True"), "alpha = 'True'"),
        (_say("window_size", "3"), "window_size = 3 does not divide"),
        (_say("window_size", "2"), "state/encoder.layers.0.blocks.0.attn.relative_position_bias_table (49, 1) instead"),
        (_say("teacher_window_size", "0"), "teacher_window_size = '0'"),
        (_say("img_size", "128"), "input/image is (2, 3, 64, 64)"),
        (_say("teacher_img_size", "100"), "teacher_img_size = 100 is no multiple"),
        (_say("mask_patch", "64"), "not made of squares of mask_patch = 64 px"),
        (_say("encoder_stride", "16"), "encoder_stride = 16, but"),
        (_drop("input/mask"), "input/mask is missing"),
        (_drop("expected/loss_mim"), "expected/loss_mim is missing"),
        (_drop("state/projector.bias"), "missing: state/projector.bias"),
        (_drop("state/encoder.patch_embed.proj.weight"), "state/encoder.patch_embed.proj.weight is missing"),
        (_put("expected/accuracy", torch.ones(1)), "expected/accuracy: unknown"),
        (_put("state/encoder.absolute_pos_embed", torch.ones(1)), "unknown: state/encoder.absolute_pos_embed"),
        (_put("state/head.weight", torch.ones(1)), "state/head.weight: unknown"),
        (_put("state/encoder.layers.3.blocks.0.attn_mask", torch.ones(1)), "state/encoder.layers.3.blocks.0.attn_mask"),
        (_put("state/head.attn_mask", torch.ones(1)), "state/head.attn_mask: unknown"),
        (_put("grad/teacher.norm.weight", torch.ones(64)), "grad/teacher.norm.weight: no trained parameter"),
        (_put("grad/somewhere", torch.ones(1)), "grad/somewhere: no trained parameter"),
        (_put("grad/projector.weight", torch.ones(1)), "grad/projector.weight is (1,), the model"),
        (_put("expected/loss", torch.ones(2)), "expected/loss is (2,)"),
        (_put("optimiser/step", torch.ones(1)), "optimiser/step: not a key of a parity file"),
        (_put("stray", torch.ones(1)), "stray: not a key of a parity file"),
        (_put("input/mask", torch.ones(2, 7, 7)), "input/mask is (2, 7, 7)"),
        (_put("input/mask", torch.full((2, 16, 16), 0.5)), "input/mask holds other values"),
        (_put("expected/loss", torch.ones(()).half()), "expected/loss is torch.float16"),
        (_spoil("expected/encoder_map"), "expected/encoder_map holds NaN"),
        (_spoil("grad/projector.weight"), "grad/projector.weight holds NaN"),
        (_spoil("state/teacher.norm.weight"), "state/teacher.norm.weight holds NaN"),
        (_spoil("input/image"), "input/image holds NaN"),
    ],
)
def test_a_file_that_does_not_hold_together_is_one_line_and_status_2(
    command: ModuleType,
    small: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    told: str,
) -> None:
    path = changed(small, tmp_path, change)
    assert command.main([str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"parity: {path}: ")
    assert told in line


def test_a_file_without_gradients_proves_too_little(
    command: ModuleType, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def strip(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        for key in [key for key in tensors if key.startswith("grad/")]:
            del tensors[key]

    assert command.main([str(changed(small, tmp_path, strip))]) == 2
    assert "no gradient is stored" in capsys.readouterr().err


def test_computed_buffers_may_be_left_out_and_metadata_without_use_is_shown(
    command: ModuleType, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def strip(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        metadata["seed"] = "7"
        for key in [key for key in tensors if COMPUTED.search(key)]:
            del tensors[key]

    assert command.main([str(changed(small, tmp_path, strip))]) == 0
    told = capsys.readouterr().out
    assert "metadata that decides nothing here: seed = 7" in told
    assert "attention masks" not in told


def test_what_is_no_file_is_one_line_and_the_others_are_still_checked(
    command: ModuleType, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a tensor in sight")
    schedule = tmp_path / "schedule.json"
    schedule.write_text('{"pretrain": {}, "pretrain": {}}', encoding="utf-8")
    missing = tmp_path / "missing.safetensors"
    arguments = [str(broken), str(missing), str(tmp_path), str(small), "--schedule", str(schedule)]
    assert command.main(arguments) == 2
    told = capsys.readouterr()
    assert "worst: " in told.out
    assert [line.split(": ")[1] for line in told.err.splitlines()] == [
        str(path) for path in (broken, missing, tmp_path, schedule)
    ]
    assert "key pretrain stands twice" in told.err


def test_no_file_at_all_is_a_wrong_call(command: ModuleType) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main([])
    assert stop.value.code == 2


@pytest.mark.field
@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not there")
def test_the_published_files_agree_as_a_user_runs_it() -> None:
    files = [str(SHARED / "gfm_reference_tiny.safetensors"), str(SHARED / "gfm_reference_schedule.json")]
    done = subprocess.run([sys.executable, str(COMMAND), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "288 quantities" in done.stdout and "ABOVE" not in done.stdout


@pytest.mark.field
@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not there")
def test_another_schedule_is_above_the_tolerance(
    command: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = json.loads((SHARED / "gfm_reference_schedule.json").read_text(encoding="utf-8"))
    stored["pretrain"]["lr_at_step"]["100"] *= 1.00001
    stored["finetune"]["lr_at_step"]["2500"]["layer_1_decay"] *= 1.00001
    path = tmp_path / "other.json"
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert command.main(["--schedule", str(path)]) == 1
    marked = [line for line in capsys.readouterr().out.splitlines() if "ABOVE" in line]
    assert [line.split("  ")[0] for line in marked] == [
        "learning rate at step 100",
        "learning rate of layer_1_decay at step 2500",
    ]
