"""The benchmark as a Prefect flow: every model on every task, side by side where there is room, then the report."""

from __future__ import annotations

from typing import Annotated

from chain import HOOKS, Told, bring_up_to_date

# isort: split
# After the modules that say where Prefect keeps its state.
from prefect import State, flow
from pydantic import Field

STAGES = ["finetune", "evaluate"]


@flow(name="benchmark", **HOOKS)  # type: ignore[untyped-decorator]
def benchmark(
    workspace: str = ".", force: bool = False, at_once: Annotated[int, Field(ge=1)] | None = None
) -> Told | State[None]:
    """Fine-tune every model on every task and write the results; one that fails does not stop those beside it.

    Args:
        workspace: the folder with params.yaml and dvc.yaml.
        force: train even what is up to date.
        at_once: fine-tunings that run at the same time, each with its share of the cores; none: one a GPU, or one.
    """
    return bring_up_to_date(workspace, STAGES, force=force, at_once=at_once)
