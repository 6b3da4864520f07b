"""Room on the disk for what DVC does after a stage: on a full one it can wait without end and without a word."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from gfm.dvc_stage import STAGE_VARIABLE
from gfm.progress import say

DVC_BYTES = 2**20  # its databases' own, with the files that SQLite keeps beside them


def say_if_dvc_lacks_room(output: Path) -> None:
    """Say, where DVC runs this stage, that its disk may be too full for DVC to keep an output that was written.

    DVC copies it into its cache, unless the file system shares blocks, and notes it in a database whose writer tries
    again for ever on a full disk (`Cache._transact` of diskcache 5.6): the last line on the terminal is to say so.
    """
    if STAGE_VARIABLE not in os.environ:
        return
    free = shutil.disk_usage(output).free
    needed = DVC_BYTES + sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    if free < needed:
        say(
            f"{output}: whole, but its disk has {free / 1e6:.1f} MB left and DVC may need {needed / 1e6:.1f} MB to "
            "keep it; where DVC does not end, make room, and it goes on"
        )
