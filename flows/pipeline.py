"""The whole chain as a Prefect flow: every stage of dvc.yaml, those of one matrix side by side.

`python flows/pipeline.py [--workspace DIR]` runs it here, without a server; prefect.yaml deploys it with a schedule.
"""

from __future__ import annotations

import argparse
import sys
from typing import Annotated

from chain import HOOKS, Told, bring_up_to_date
from stages import PipelineError

# isort: split
# After the modules that say where Prefect keeps its state.
from prefect import State, flow
from pydantic import Field


@flow(name="pipeline", **HOOKS)  # type: ignore[untyped-decorator]
def pipeline(
    stages: list[str] | None = None,
    workspace: str = ".",
    force: bool = False,
    accept_new_data: bool = False,
    pull: bool = False,
    at_once: Annotated[int, Field(ge=1)] | None = None,
) -> Told | State[None]:
    """Bring a workspace up to date, stage by stage; stages that are up to date are skipped by DVC.

    Args:
        stages: names of stages or of matrix groups (finetune); none: all, in the order of dvc.yaml.
        workspace: the folder with params.yaml and dvc.yaml.
        force: run the stages even when they are up to date.
        accept_new_data: record changed raw data in data.dvc; otherwise a change stops the flow.
        pull: get the raw data of data.dvc first.
        at_once: trainings that run at the same time; none: as many as there are GPUs, or one.
    """
    return bring_up_to_date(workspace, stages, force=force, accept_new_data=accept_new_data, pull=pull, at_once=at_once)


def main() -> int:
    parser = argparse.ArgumentParser(description="Bring a workspace up to date, stage by stage.")
    parser.add_argument("stages", nargs="*", help="stages or groups of stages; none: all")
    parser.add_argument("--workspace", default=".", help="the folder with params.yaml and dvc.yaml")
    parser.add_argument("--force", action="store_true", help="run stages that are up to date as well")
    parser.add_argument("--accept-new-data", action="store_true", help="record changed raw data in data.dvc")
    parser.add_argument("--pull", action="store_true", help="get the raw data of data.dvc first")
    parser.add_argument("--at-once", type=int, help="trainings that run at the same time; none: one a GPU, or one")
    options = vars(parser.parse_args())
    try:
        pipeline(**{**options, "stages": options["stages"] or None})
    except PipelineError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
