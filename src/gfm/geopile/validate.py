"""`gfm validate`: every suite of expectations/ on the tables of the chain; a critical finding stops it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfm.errors import DataError
from gfm.geopile.data_docs import write_data_docs
from gfm.geopile.drift import read_before, statistics, write_statistics
from gfm.geopile.expectations import CRITICAL, Check, Checker, read_suite
from gfm.geopile.expected_tables import Subject, subjects
from gfm.layout import DATA_DOCS, EXPECTATIONS, MANIFEST, REPORTS, STATISTICS, VALIDATION, VALIDATION_PASSED
from gfm.output_file import write_whole
from gfm.output_folder import new_folder
from gfm.progress import say
from gfm.tracking.provenance import data_version

if TYPE_CHECKING:
    from gfm.params import Params

FAILED = REPORTS / "validation_failed.json"  # not the stage's output: a chain that stops leaves no validation.json
_IN_ERROR = 8  # findings named in the error


def validate(params: Params) -> None:
    """Write reports/validation.json, that nothing critical was found, Data Docs, and print what was found.

    Raises DataError, naming what and where, when a critical expectation fails; the report is then in FAILED.
    """
    checks, results = run_suites(subjects(params), EXPECTATIONS)
    with new_folder(DATA_DOCS) as folder:
        write_data_docs(folder, results)
    failed = [check for check in checks if not check.success]
    critical = [check for check in failed if check.severity == CRITICAL]
    _write(FAILED if critical else VALIDATION, checks)
    for outdated in (VALIDATION, VALIDATION_PASSED) if critical else (FAILED,):
        outdated.unlink(missing_ok=True)
    if not critical:
        write_whole(VALIDATION_PASSED, "no critical finding\n")
        _remember()
    if failed:
        say(_table(failed))
    say(f"{len(checks)} expectations: {len(critical)} critical findings, {len(failed) - len(critical)} warnings")
    if critical:
        lines = [f"  {_line(check)}" for check in critical[:_IN_ERROR]]
        if len(critical) > _IN_ERROR:
            lines.append(f"  and {len(critical) - _IN_ERROR} more")
        raise DataError(
            f"validation failed, see {FAILED}; mend the data or the source's declaration:\n" + "\n".join(lines)
        )


def run_suites(tables: dict[str, Subject], folder: Path) -> tuple[list[Check], dict[str, Any]]:
    """Every table's suite, `folder`/NAME.json, and Great Expectations' own result of each.

    DataError where a suite is missing, broken, or of no table.
    """
    suites = {name: read_suite(folder / f"{name}.json") for name in tables}
    strange = sorted(path.name for path in folder.glob("*.json") if path.stem not in tables)
    if strange:
        raise DataError(f"{folder / strange[0]}: is the suite of no table; tables are {', '.join(tables)}")
    checker = Checker()
    checks = [
        check
        for name, subject in tables.items()
        for check in checker.check(name, suites[name], subject.table, subject.parameters)
    ]
    return checks, checker.results


def _remember() -> None:
    """Keep the statistics of the collection that passed, for the next version to be compared with."""
    import pandas as pd

    manifest = data_version()["manifest"]
    before = read_before(STATISTICS, manifest)
    write_statistics(STATISTICS, manifest, statistics(pd.read_parquet(MANIFEST)), before)


def _write(path: Path, checks: Sequence[Check]) -> None:
    failed = [check for check in checks if not check.success]
    report: dict[str, Any] = {
        "success": not any(check.severity == CRITICAL for check in failed),
        "critical": [_line(check) for check in failed if check.severity == CRITICAL],
        "warnings": [_line(check) for check in failed if check.severity != CRITICAL],
        "checks": [check.as_dict() for check in checks],
    }
    write_whole(path, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def _line(check: Check) -> str:
    where = f"{check.suite}.{check.column}" if check.column else check.suite
    rows = f" ({'; '.join(check.unexpected)})" if check.unexpected else ""
    return f"{where}: not so: {check.description or check.expectation}; found {check.observed}{rows}"


def _table(failed: Sequence[Check]) -> str:
    rows = [("severity", "table", "column", "expected", "found", "where")]
    rows += [
        (
            check.severity,
            check.suite,
            check.column,
            check.description or check.expectation,
            check.observed,
            "; ".join(check.unexpected[:2]),
        )
        for check in failed
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)), row[5]]).rstrip()
        for row in rows
    )
