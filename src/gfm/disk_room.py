"""Room on the disk: errors that say there is none, and what DVC needs after a stage: it can wait without a word."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from gfm.dvc_stage import STAGE_VARIABLE
from gfm.progress import say

DVC_BYTES = 2**20  # its databases' own, with the files that SQLite keeps beside them
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = ("No space left on device", "Disk quota exceeded", "database or disk is full")  # where there is no errno


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that a disk, or somebody's share of it, is full; of safetensors and SQLite by its words."""
    return getattr(error, "errno", None) in FULL or any(words in str(error) for words in FULL_WORDS)


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
