"""One process writes an output at a time, however its path is spelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfm.errors import GfmError
from gfm.output_folder import only_writer


@pytest.mark.parametrize("spelled", ["out/a", "./out/a", "out/b/../a", "link/a", "{here}/out/a"])
def test_a_path_spelled_in_two_ways_is_one_output(
    spelled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out/b").mkdir(parents=True)
    Path("link").symlink_to("out")
    with (
        only_writer(Path("out/a")),
        pytest.raises(GfmError, match="another process is writing it"),
        only_writer(Path(spelled.format(here=tmp_path))),
    ):
        pass
    with only_writer(Path(spelled.format(here=tmp_path))):
        pass


def test_other_outputs_of_long_and_strange_names_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    deep = Path(*["ø" * 60] * 6)
    with only_writer(deep / "a"), only_writer(deep / "b"), only_writer(Path("one-a")), only_writer(Path("one/a")):
        pass
