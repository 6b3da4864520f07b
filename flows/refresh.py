"""The data side of the chain as a Prefect flow: from raw imagery to a validated collection."""

from __future__ import annotations

from chain import HOOKS, Told, bring_up_to_date

# isort: split
# After the modules that say where Prefect keeps its state.
from prefect import State, flow

STAGES = ["assemble", "index", "split", "validate", "describe"]


@flow(name="refresh", **HOOKS)  # type: ignore[untyped-decorator]
def refresh(workspace: str = ".", pull: bool = True, accept_new_data: bool = False) -> Told | State[None]:
    """Bring the collection up to date; it ends RawDataChanged or ValidationFailed where the data are not to be used.

    Args:
        workspace: the folder with params.yaml and dvc.yaml.
        pull: get the raw data of data.dvc from the remote first.
        accept_new_data: record changed raw data in data.dvc instead of stopping, and pull nothing.
    """
    return bring_up_to_date(workspace, STAGES, accept_new_data=accept_new_data, pull=pull)
