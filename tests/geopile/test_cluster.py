"""Assembly over a real Dask scheduler, with workers in processes and folders of their own."""

from __future__ import annotations

import hashlib
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from gfm.errors import GfmError
from gfm.geopile import cluster
from gfm.geopile.assemble import assemble
from gfm.geopile.cluster import cluster_map
from gfm.geopile.sources.folder import DiskFolder
from gfm.geopile.sources.label_tables import read_label_tables
from gfm.layout import COLLECTION
from gfm.params import Params


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and two workers on this machine, which start in a folder without any imagery."""
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("cluster")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = f"tcp://127.0.0.1:{port}"
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    commands = [
        ["scheduler", "--host", "127.0.0.1", "--port", f"{port}", "--no-dashboard", "--no-show"],
        ["worker", found, "--nworkers", "2", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)],
    ]
    with (folder / "log").open("wb") as log:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{name}", *rest],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            for name, *rest in commands
        ]
        yield found
        for process in started:  # with the worker processes, which are of its session
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Imagery in ./raw, and the collection's files by hash for settings of geopile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gfm.geopile.assemble.FEW_FILES", 2)  # so that processes are started
    for number in range(40):
        coarse = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        path = tmp_path / f"raw/photos/{number % 3}/{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC))
    (tmp_path / "raw/photos/0/bad.png").touch()
    (tmp_path / "raw/scenes").mkdir()
    profile = {"driver": "GTiff", "width": 200, "height": 150, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(
        tmp_path / "raw/scenes/a_20200101.tif", "w", transform=from_origin(500000, 5500000, 10, 10), **profile
    ) as file:
        file.write(np.random.default_rng(0).integers(0, 256, (3, 150, 200), dtype=np.uint8))

    def collection(**geopile: object) -> dict[str, str]:
        sources = {
            "photos": {"format": "class-folders", "root": "photos", "licence": "CC0"},
            "scenes": {"format": "scenes", "root": "scenes", "licence": "CC0"},
        }
        data = {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}}
        params = Params.model_validate(
            {
                "paths": {"raw": "raw"},
                "geopile": {"tile_px": 64, "shard_mb": 0.1, "sources": sources, **geopile},
                "teacher": {"kind": "supervised", "architecture": {}, "sources": ["photos"]},
                "pretrain": {"gfm": {"recipe": "gfm"}},
                "tasks": {"t": {"kind": "classification", "data": data}},
            }
        )
        assemble(params)
        files = sorted(path for path in COLLECTION.rglob("*") if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    yield collection


@pytest.mark.slow
def test_one_process_three_and_a_cluster_write_the_same_bytes(make, address) -> None:
    alone = make(workers=1)
    assert len([name for name in alone if name.endswith(".tar")]) > 2
    assert make(workers=3) == alone
    assert make(scheduler=address) == alone


@pytest.mark.slow
def test_the_work_of_a_worker_that_dies_is_done_by_another(address: str, tmp_path: Path) -> None:
    mark = str(tmp_path / "died")
    dying = f"__import__('os').path.exists({mark!r}) or (open({mark!r}, 'w').close(), __import__('os')._exit(1))"
    expressions = [f"({dying}) and 0" if number == 7 else f"{number}" for number in range(30)]
    with cluster_map(address, tmp_path) as map_in_order:
        assert list(map_in_order(eval, expressions)) == [0 if number == 7 else number for number in range(30)]
    assert Path(mark).exists()


@pytest.mark.slow
def test_images_that_kill_every_worker_are_one_line(address: str, tmp_path: Path) -> None:
    with (
        pytest.raises(GfmError, match=r"geopile\.scheduler = tcp://.*: 2 workers died .* lack of memory"),
        cluster_map(address, tmp_path) as map_in_order,
    ):
        list(map_in_order(os._exit, [9]))


@pytest.mark.slow
def test_a_cluster_with_another_gfm_is_one_line(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def work(item):\n    return item\n")
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("only_here").work
    with (
        pytest.raises(GfmError, match=r"runs without this gfm \(No module named 'only_here'\); install the same one"),
        cluster_map(address, tmp_path) as map_in_order,
    ):
        list(map_in_order(work, [1]))


@pytest.mark.slow
def test_a_worker_without_the_imagery_is_named(address: str) -> None:
    with (
        pytest.raises(GfmError, match=r"the worker tcp://\S+ sees no folder /nowhere; mount it there"),
        cluster_map(address, Path("/nowhere")) as map_in_order,
    ):
        list(map_in_order(str.upper, ["a"]))


def test_a_scheduler_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("gfm.geopile.cluster.ANSWERS_WITHIN_S", 1)
    with (
        pytest.raises(GfmError, match=r"geopile\.scheduler = tcp://127\.0\.0\.1:9: no Dask scheduler answers"),
        cluster_map("tcp://127.0.0.1:9", tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("protocol", "said"),
    [("tls", "there are no certificates for tls; set"), ("http", "the installed distributed has no http; install")],
)
def test_a_protocol_that_cannot_be_used_is_one_line_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, protocol: str, said: str
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(distributed, "Client", None)  # it would wait, and leave a traceback behind
    with (
        pytest.raises(GfmError, match=rf"geopile\.scheduler = {protocol}://127\.0\.0\.1:9: {said}"),
        cluster_map(f"{protocol}://127.0.0.1:9", tmp_path),
    ):
        pass


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(GfmError, match=r"geopile\.scheduler: .* run `pip install 'gfm\[dask\]'`"),
        cluster_map("tcp://127.0.0.1:9", tmp_path),
    ):
        pass


def test_a_worker_that_served_an_assembly_before_reads_label_tables_again(tmp_path: Path) -> None:
    folder, table = DiskFolder(tmp_path), tmp_path / "labels.csv"

    def labels(run: str, label: str) -> object:
        table.write_text(f"image,{label}\na.png,1\n", encoding="utf-8")
        return cluster._on_worker(tmp_path, run, lambda file: read_label_tables(folder, "*.csv").of(file), "a.png")

    assert labels("first", "tree") == labels("first", "sea") == ("tree",)  # one assembly reads them once
    assert labels("second", "sea") == ("sea",)
