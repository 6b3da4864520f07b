"""The trainings of encoders as a Prefect flow: teacher, comparison encoders, pretraining."""

from __future__ import annotations

from typing import Annotated

from chain import HOOKS, Told, bring_up_to_date

# isort: split
# After the modules that say where Prefect keeps its state.
from prefect import State, flow
from pydantic import Field

STAGES = ["teacher", "untrained", "encoder", "pretrain"]


@flow(name="pretrain", **HOOKS)  # type: ignore[untyped-decorator]
def pretrain(
    runs: list[str] | None = None,
    workspace: str = ".",
    force: bool = False,
    at_once: Annotated[int, Field(ge=1)] | None = None,
) -> Told | State[None]:
    """Make the encoders that params.yaml declares, from the collection as it is; a killed training goes on.

    Args:
        runs: names below `pretrain` in params.yaml; none: all, with teacher and encoders before them.
        workspace: the folder with params.yaml and dvc.yaml.
        force: train even what is up to date.
        at_once: pretrainings that run at the same time; none: as many as there are GPUs, or one.
    """
    stages = STAGES if runs is None else [f"pretrain@{name}" for name in runs]
    return bring_up_to_date(workspace, stages, force=force, at_once=at_once)
