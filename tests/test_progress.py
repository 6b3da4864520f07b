"""Progress as it reads in a log, where there is no terminal."""

from __future__ import annotations

import pytest

from gfm import progress


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_short_work_leaves_no_lines_in_the_log(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track([1, 2, 3], "tiles")) == [1, 2, 3]
    assert capsys.readouterr().out == ""


def test_long_work_says_how_much_is_done_and_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress.track(range(4), "tiles", unit="tile"):
        clock.now += 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiles: 2/4 tile (50%), 0.2 tile/s, 8 s left"
    assert lines[-1] == "tiles: 4/4 tile (100%), 0.2 tile/s, 0 s left"


def test_work_of_unknown_length_says_how_much_is_done(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress.track(iter(range(3)), "files"):
        clock.now += 6
    assert capsys.readouterr().out.splitlines()[-1] == "files: 3 it, 0.2 it/s"


def test_parts_of_a_file_count_as_shares_of_it(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress.track(iter([0.25, 0.5, 0.25, 1]), "reading", total=4, unit="files", share=float):
        clock.now += 10
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "reading: 0.75/4 files (19%), 0.0 files/s, 87 s left"
    assert lines[-1] == "reading: 2/4 files (50%), 0.1 files/s, 40 s left"


def test_nothing_to_do_divides_by_nothing(clock: Clock) -> None:
    assert list(progress.track([], "tiles")) == []


def test_an_error_inside_the_loop_comes_through(clock: Clock) -> None:
    with pytest.raises(KeyError):
        for _ in progress.track([1], "tiles"):
            raise KeyError


def test_a_line_is_written_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("geopile: 12 images")
    assert capsys.readouterr().out == "geopile: 12 images\n"
