"""The smallest whole parameter set, recorded in the test's own folder."""

from __future__ import annotations

from typing import Any

import pytest

from gfm.params import Params


def smallest(**sections: Any) -> Params:
    return Params.model_validate(
        {
            "geopile": {"sources": {"a": {"format": "images", "root": "a", "licence": "CC-BY-4.0"}}},
            "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "MIT"},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {
                "t": {
                    "kind": "classification",
                    "data": {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}},
                }
            },
            **sections,
        }
    )


@pytest.fixture
def params(request: pytest.FixtureRequest) -> Params:
    return smallest()


@pytest.fixture
def untracked() -> Params:
    return smallest(tracking={"uri": "none"})
