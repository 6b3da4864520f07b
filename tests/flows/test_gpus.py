"""One training a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]


@pytest.fixture
def gpus(flow_module: Load, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Two GPUs, and a server without a limit."""
    import prefect.concurrency.sync

    @contextmanager
    def unlimited(*names: str, **options: object) -> Iterator[None]:
        yield

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    monkeypatch.setattr(prefect.concurrency.sync, "concurrency", unlimited)
    return flow_module("gpus")


def test_two_trainings_get_different_gpus_and_a_third_waits(gpus: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Waited(Exception):
        pass

    def wait(seconds: float) -> None:
        raise Waited

    monkeypatch.setattr(gpus.time, "sleep", wait)
    with gpus.one_gpu() as first, gpus.one_gpu() as second:
        assert [first, second] == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "3"}]
        with pytest.raises(Waited), gpus.one_gpu():
            pass
    with gpus.one_gpu() as again:
        assert again == first


def test_a_gpu_is_taken_by_trainings_only_and_not_where_the_device_is_the_cpu(
    gpus: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("device: auto\n", encoding="utf-8")
    assert gpus.takes_gpu("finetune@roofs-gfm", tmp_path)
    assert not gpus.takes_gpu("assemble", tmp_path)
    params.write_text("device: cpu\n", encoding="utf-8")
    assert not gpus.takes_gpu("finetune@roofs-gfm", tmp_path)
    params.write_text("device: auto\n", encoding="utf-8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not gpus.takes_gpu("finetune@roofs-gfm", tmp_path)
