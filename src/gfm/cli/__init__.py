"""The `gfm` command: every command parses its options, loads the parameters and calls one function.

Heavy imports stay inside the commands, so that `gfm --help` is instant.
"""

from __future__ import annotations

import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from gfm.cli import check, data, models, registry, results  # noqa: F401  (each registers its commands)
from gfm.cli.app import app
from gfm.disk_room import is_full_disk
from gfm.dvc_stage import stop_with_dvc
from gfm.errors import GfmError
from gfm.redaction import redact

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["app", "main"]


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A programming error's traceback, without the passwords that its words may hold."""
    print(redact("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def main() -> None:
    """Run a command; an error meant for the user is its one line and exit code 2."""
    sys.excepthook = _print_traceback
    stop_with_dvc()
    try:
        app(prog_name="gfm")
    except SystemExit as ended:
        # Lightning ends a training at SIGTERM by a SystemExit of its own without a code, which would pass for success.
        if ended.code is None and type(ended) is not SystemExit:
            print("gfm: stopped by SIGTERM before its end; run the same command again", file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)
        raise
    except GfmError as error:
        _stop_with(str(error))
    except Exception as error:
        if not is_full_disk(error):
            raise
        _stop_with(f"{error}; make room and run the same command again")


def _stop_with(reason: str) -> NoReturn:
    print(f"gfm: {redact(' '.join(reason.split()))}", file=sys.stderr)
    sys.exit(2)
