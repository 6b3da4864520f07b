"""The command that checks a parameter file, and tells everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

import typer

from gfm.cli.app import DEFAULT, ParamsFile, app, load_params
from gfm.errors import GfmError
from gfm.redaction import redact

MOST = 20  # faults that are told


@app.command()
def check(params: ParamsFile = DEFAULT) -> None:
    """Check the parameter file and say what it describes."""
    from gfm.downstream.requirements import check_requirements
    from gfm.params.remarks import remarks
    from gfm.progress import counted
    from gfm.raw_imagery import check_imagery
    from gfm.workspace import check_tracked

    try:
        loaded = load_params(params)
    except GfmError as error:
        _refuse(error.faults)
    faults: list[str] = []

    def ask(look: Callable[[], Sequence[str] | None]) -> list[str]:
        """What a look says, or nothing where it finds faults."""
        try:
            return list(look() or ())
        except GfmError as error:
            faults.extend(error.faults)
            return []

    ask(lambda: check_tracked(params, loaded))
    ask(lambda: check_requirements(loaded))
    absent = ask(lambda: [check_imagery(loaded, params.parent)])
    notes = [*remarks(loaded), *filter(None, absent)]
    raw = params.parent / loaded.paths.raw
    if absent == [""]:  # every folder is there
        from gfm.geopile.first_files import check_first_files

        notes += ask(lambda: check_first_files(loaded, raw))
    from gfm.downstream.named_places import check_named_places

    ask(lambda: check_named_places(loaded, raw))
    from gfm.downstream.adaptation.lora import check_lora_targets  # torch: after what can be said without it
    from gfm.pretraining.network_check import check_networks

    notes += ask(lambda: check_networks(loaded, params.parent))
    ask(lambda: check_lora_targets(loaded))
    if faults:
        _refuse(faults)
    published = f"{counted(len(loaded.encoders), 'published encoder')}, " if loaded.encoders else ""
    print(
        f"{params}: {counted(len(loaded.geopile.sources), 'source')}, "
        f"{published}{counted(len(loaded.pretrain), 'pretraining')}, "
        f"{counted(len(loaded.tasks), 'task')} x {counted(len(loaded.models), 'model')}"
    )
    for note in notes:
        print(f"note: {note}")


def _refuse(faults: Sequence[str]) -> NoReturn:
    for fault in faults[:MOST]:
        typer.echo(f"gfm: {redact(' '.join(fault.split()))}", err=True)
    if len(faults) > MOST:
        typer.echo(f"gfm: and {len(faults) - MOST} more", err=True)
    raise typer.Exit(2)
