"""A checkpoint made elsewhere: found whatever it is wrapped in, refused in one line, and never run."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from gfm.errors import WeightsError
from gfm.models.checkpoint_file import read_checkpoint

STATE = {"conv.weight": torch.arange(4096.0).reshape(64, 64), "conv.bias": torch.ones(2, dtype=torch.float16)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


@pytest.fixture
def settings_of_yacs(monkeypatch: pytest.MonkeyPatch) -> type:
    """A stand-in for yacs.config.CfgNode, as pickled files name it: a dict with attributes."""
    module = types.ModuleType("yacs.config")
    node = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    module.CfgNode = node
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    return node


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("content", "entry"),
    [
        (STATE, ""),
        ({"model": STATE}, "model"),
        ({"state_dict": STATE, "epoch": 3}, "state_dict"),
        ({"model": {"state_dict": STATE}}, "model.state_dict"),
        ({"student": OrderedDict(STATE), "teacher": STATE}, "student"),
    ],
)
def test_the_weights_are_found_where_training_codes_put_them(file, content, entry):
    torch.save(content, file)
    found = read_checkpoint(file, None)
    assert found.entry == entry and list(found.state) == list(STATE)
    assert all(torch.equal(found.state[key], value) for key, value in STATE.items())
    assert found.state["conv.bias"].dtype == torch.float16


def test_what_lies_beside_the_weights_is_named(file):
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}}
    torch.save({"model": STATE, "optimizer": optimizer, "ema": STATE, "note": "x", "epoch": 9}, file)
    assert read_checkpoint(file, None).beside == {
        "optimizer": "training state",
        "ema": "another set of weights",
        "note": "beside the weights",
        "epoch": "training state",
    }


def test_an_entry_can_be_chosen(file):
    torch.save({"model": STATE, "model_ema": {"x": torch.ones(1)}}, file)
    found = read_checkpoint(file, "model_ema")
    assert (found.entry, list(found.state)) == ("model_ema", ["x"])
    assert found.beside == {"model": "another set of weights"}


def test_a_file_of_the_old_format_is_read(file):
    torch.save({"model": STATE}, file, _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(file, None).state["conv.weight"], STATE["conv.weight"])


def test_the_ending_of_the_name_does_not_matter(file):
    save_file(STATE, file)
    assert torch.equal(read_checkpoint(file, None).state["conv.bias"], STATE["conv.bias"])


def test_the_settings_of_swin_simmim_and_gfm_are_read_as_plain_values(file, settings_of_yacs, monkeypatch):
    config = settings_of_yacs(DATA=settings_of_yacs(IMG_SIZE=192), TAG="gfm")
    config.__dict__["__immutable__"] = True
    torch.save({"model": STATE, "config": config, "args": argparse.Namespace(lr=0.1)}, file)
    monkeypatch.delitem(sys.modules, "yacs.config")
    before = set(torch.serialization.get_safe_globals())
    assert read_checkpoint(file, None).beside == {"config": "training state", "args": "training state"}
    assert set(torch.serialization.get_safe_globals()) == before  # nothing stays allowed behind our back


@pytest.mark.parametrize("old", [False, True])
def test_code_in_a_checkpoint_is_named_and_never_run(file, tmp_path, old):
    torch.save({"model": STATE, "extra": Runs(tmp_path / "ran")}, file, _use_new_zipfile_serialization=not old)
    with pytest.raises(WeightsError, match=r"weights\.pth: holds Python objects of type posix.mkdir.*save_file\("):
        read_checkpoint(file, None)
    assert not (tmp_path / "ran").exists()


def test_settings_cannot_smuggle_code_in(file, tmp_path):
    """The allowed names stand for a plain dictionary: calling them with anything runs nothing."""

    class Settings:
        def __reduce__(self) -> tuple[object, ...]:
            return argparse.Namespace, (Runs(tmp_path / "ran"),)

    torch.save({"model": STATE, "config": Settings()}, file)
    with pytest.raises(WeightsError, match=r"holds Python objects of type posix\.mkdir"):
        read_checkpoint(file, None)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "neither a PyTorch checkpoint nor a safetensors file"),
        (b"PK\x03\x04" + bytes(60), "not a readable PyTorch checkpoint"),
        (b"\x80\x02K\x05.", "not a readable PyTorch checkpoint"),
        (b"\x20\0\0\0\0\0\0\0{" + b"x" * 40, "not a readable safetensors file"),
    ],
)
def test_what_is_no_checkpoint_is_refused(file, content, message):
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"weights\.pth: {message}"):
        read_checkpoint(file, None)


def test_a_folder_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(WeightsError, match="a folder; give the checkpoint file in it"):
        read_checkpoint(tmp_path, None)
    with pytest.raises(WeightsError, match=r"none\.pth: No such file or directory; give the path"):
        read_checkpoint(tmp_path / "none.pth", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([STATE], "holds no weights, but a list"),
        (torch.ones(3), "holds no weights, but a Tensor"),
        ({}, "holds no weights, but nothing"),
        ({"model": {}, "epoch": 3}, "holds no weights, but model, epoch; give the entry that does with --key"),
        ({"model": {**STATE, "names": ["a"]}}, r"model\.names is a list among the weights"),
        ({"model": STATE, "state_dict": STATE}, "several sets of weights, model, state_dict; choose one with --key"),
        ({"model": {**STATE, 3: torch.ones(1)}}, "a tensor is named 3"),
        ({"a": torch.ones(3, 3).to_sparse()}, "a is sparse, quantised or without values"),
        ({"a": torch.ones(3, device="meta")}, "a is sparse, quantised or without values"),
    ],
)
def test_a_checkpoint_without_usable_weights_is_refused(file, content, message):
    torch.save(content, file)
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(file, None)


def test_an_entry_that_is_not_there_is_refused(file):
    torch.save({"model": STATE, "epoch": 1}, file)
    for key in ("ema", "epoch"):
        with pytest.raises(WeightsError, match=f"has no set of weights under {key}; it holds model, epoch"):
            read_checkpoint(file, key)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of one checkpoint in each format."""
    folder = tmp_path_factory.mktemp("saved")
    torch.save({"model": STATE, "epoch": 1}, folder / "zip")
    torch.save({"model": STATE, "epoch": 1}, folder / "old", _use_new_zipfile_serialization=False)
    save_file(STATE, folder / "safetensors")
    (folder / "pickle").write_bytes(pickle.dumps({"model": {"a": [1, 2.5, "x"]}}, protocol=2))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_read_or_refused_and_nothing_else(saved, file, data):
    """Cut anywhere or changed anywhere, a file gives weights or a WeightsError: never a traceback."""
    content = bytearray(saved[data.draw(st.sampled_from(sorted(saved)))])
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, min(len(content), 2000) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = read_checkpoint(file, None)
    except WeightsError as error:
        assert "weights.pth" in str(error)
    else:
        assert all(isinstance(value, torch.Tensor) for value in found.state.values())


def test_a_flipped_byte_inside_the_weights_of_a_zip_file_is_noticed(file, saved):
    content = bytearray(saved["zip"])
    place = content.index(STATE["conv.weight"].numpy().tobytes()) + 5000
    content[place] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="differs from its checksum"):
        read_checkpoint(file, None)
