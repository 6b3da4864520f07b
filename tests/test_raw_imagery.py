"""Missing imagery is named by `gfm check` and `gfm workspace`, before the first stage meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfm.params import ParameterError, Params
from gfm.raw_imagery import check_imagery


@pytest.fixture
def params() -> Params:
    split = {"val_share": 0.2, "test_share": 0.2}
    sources = {name: {"format": "class-folders", "root": f"{name}/images", "licence": "CC0"} for name in ("a", "b")}
    return Params.model_validate(
        {
            "paths": {"raw": "../imagery"},
            "geopile": {"sources": sources},
            "teacher": {"kind": "supervised", "architecture": {}, "sources": ["a"]},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {
                "t": {"kind": "classification", "data": {"format": "class-folders", "root": "t", "split": split}}
            },
        }
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the parameter file would lie."""
    (tmp_path / "configs").mkdir()
    return tmp_path / "configs"


def test_a_raw_folder_that_is_not_there_is_named(params: Params, home: Path) -> None:
    with pytest.raises(ParameterError, match=r"^paths\.raw = \.\./imagery: no such folder; .*starts at the parameter"):
        check_imagery(params, home)


@pytest.mark.parametrize("raw", ["a\0b", "/" + "a" * 5000, "b" * 300])
def test_a_name_that_no_folder_can_have_is_no_folder(params: Params, home: Path, raw: str) -> None:
    named = params.model_copy(update={"paths": params.paths.model_copy(update={"raw": raw})})
    with pytest.raises(ParameterError, match=r"^paths\.raw = .*: no such folder"):
        check_imagery(named, home)
    (home / "x.dvc").write_text('outs: [{path: "a\\0b"}]')
    with pytest.raises(ParameterError):
        check_imagery(named, home)


def test_one_that_dvc_tracks_is_only_remarked_on(params: Params, home: Path) -> None:
    (home / "imagery.dvc").write_text("outs:\n- path: ../imagery\n")
    assert check_imagery(params, home).startswith("../imagery is not there yet: `dvc pull` fetches it")
    (home / "imagery.dvc").write_text("outs:\n- path: elsewhere\n")
    with pytest.raises(ParameterError):
        check_imagery(params, home)
    (home / "imagery.dvc").write_text("- [")
    with pytest.raises(ParameterError, match=r"imagery\.dvc: cannot be read as DVC's"):
        check_imagery(params, home)


def test_every_root_below_it_is_looked_for(params: Params, home: Path) -> None:
    raw = home.parent / "imagery"
    (raw / "a/images").mkdir(parents=True)
    with pytest.raises(ParameterError) as caught:
        check_imagery(params, home)
    assert str(caught.value).startswith(
        "geopile.sources.b.root = b/images, tasks.t.data.root = t: no such folder below paths.raw = "
    )
    for root in ("b/images", "t"):
        (raw / root).mkdir(parents=True)
    assert check_imagery(params, home) == ""
