"""The promotion as a Prefect flow: it calls `gfm promote`; a closed gate is a state with its reasons, not a failure.

`python flows/promote.py [--workspace DIR]` runs it here, without a server; prefect.yaml deploys it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from chain import HOOKS
from stages import PipelineError, gfm, log

# isort: split
# After the modules that say where Prefect keeps its state.
from prefect import State, flow
from prefect.states import Completed

REFUSED = 3  # the exit code of `gfm promote` where the gate stays closed


@flow(name="promote", **HOOKS)  # type: ignore[untyped-decorator]
def promote(
    version: int | None = None,
    to: int | None = None,
    reason: str = "",
    dry_run: bool = False,
    workspace: str = ".",
) -> State[None]:
    """Ask the gate whether the challenger becomes champion; it ends `Completed`, or `Refused` with every reason.

    Args:
        version: the version to judge; none: the challenger.
        to: make this version the champion without the gate.
        reason: why, with `to`.
        dry_run: say what would happen and change nothing.
        workspace: the folder with params.yaml.
    """
    options = {"--version": version, "--to": to, "--reason": reason or None}
    words = [f"{option}={value}" for option, value in options.items() if value is not None]
    done = gfm(Path(workspace).resolve(), "promote", *words, *(["--dry-run"] if dry_run else []))
    if done is None:
        raise PipelineError(f"there is no gfm command beside {sys.executable}; install gfm there")
    told = done.stdout.strip()
    log().info("%s", told)
    if done.returncode == REFUSED:
        return Completed(name="Refused", message=told)
    if done.returncode != 0:
        raise PipelineError(done.stderr.strip())
    return Completed(message=told)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the challenger the champion if the gate lets it.")
    parser.add_argument("--version", type=int, help="the version to judge; none: the challenger")
    parser.add_argument("--to", type=int, help="make this version the champion without the gate")
    parser.add_argument("--reason", default="", help="why, with --to")
    parser.add_argument("--dry-run", action="store_true", help="say what would happen and change nothing")
    parser.add_argument("--workspace", default=".", help="the folder with params.yaml")
    state = promote(**vars(parser.parse_args()), return_state=True)
    print(f"promote: {state.message}", file=sys.stdout if state.is_completed() else sys.stderr)
    if not state.is_completed():
        return 2
    return REFUSED if state.name == "Refused" else 0


if __name__ == "__main__":
    sys.exit(main())
