"""A checkpoint is written in its place: nothing of it is left elsewhere by a kill, or anywhere by a full disk."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest
import torch

from gfm.pretraining.checkpoint_io import InPlaceCheckpoints
from gfm.pretraining.run import pretrain

GFM = Path("models/encoders/gfm")
STATE = {"weights": torch.arange(1000.0), "step": 3}
write_bytes = Path.write_bytes


def _full(path, content):
    write_bytes(path, bytes(content)[:500])
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_a_checkpoint_needs_no_room_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    file = tmp_path / "checkpoints/gfm/unfinished.ckpt"
    InPlaceCheckpoints().save_checkpoint(STATE, file)
    assert torch.equal(torch.load(file, weights_only=True)["weights"], STATE["weights"])


def test_a_full_disk_is_an_error_that_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", _full)
    with pytest.raises(OSError, match="No space left"):
        InPlaceCheckpoints().save_checkpoint(STATE, tmp_path / "unfinished.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_training_goes_on_from_the_checkpoint_before_the_disk_was_full(teacher, make_params, monkeypatch):
    params = make_params(pretrain={"checkpoint_steps": 1})
    pretrain(params, "gfm")
    whole = (GFM / "model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        written = []

        def third_is_too_much(path, content):
            written.append(path)
            return _full(path, content) if len(written) == 3 else write_bytes(path, content)

        patch.setattr(Path, "write_bytes", third_is_too_much)
        with pytest.raises(OSError, match="No space left"):
            pretrain(params, "gfm")
    assert [file.name for file in Path("checkpoints/gfm").glob("*.ckpt")] == ["step-000000002.ckpt"]
    pretrain(params, "gfm")
    assert (GFM / "model.safetensors").read_bytes() == whole
