"""Great Expectations, kept small: suites from JSON files, run on tables in memory, as plain findings.

Its traps are closed here: a check that raised counts as failed, and success of the whole is judged by severity.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

CRITICAL = "critical"
EXAMPLES = 5  # rows named in a finding


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation and what came of it."""

    suite: str
    expectation: str
    column: str  # of two columns, "a, b"; empty for checks of the whole table
    severity: str  # critical, warning or info
    success: bool
    description: str
    observed: str
    unexpected: list[str]  # rows that break it, as "id: value"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_suite(path: Path) -> dict[str, Any]:
    """A suite file; DataError where it is missing, not JSON, or asks for nothing."""
    try:
        suite = json.loads(path.read_text(encoding="utf-8"))
        kinds = [expectation["type"] for expectation in suite["expectations"]]
    except FileNotFoundError:
        raise DataError(f"{path}: no such suite; restore it, every table needs one") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a suite of Great Expectations: {error!r}") from None
    if not kinds:
        raise DataError(f"{path}: holds no expectation; a table that nothing is asked of would always pass")
    return dict(suite)


class Checker:
    """Runs suites on tables; one in-memory context for all of them."""

    def __init__(self) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
        import great_expectations as gx

        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = {"globally": False}
        self._source = self._context.data_sources.add_pandas("tables")
        self.results: dict[str, Any] = {}  # of every suite that ran, as Great Expectations gives them

    def check(self, name: str, suite: dict[str, Any], table: pd.DataFrame, parameters: dict[str, Any]) -> list[Check]:
        """Every expectation of the suite on the table, which has a column `id`; in the suite's order.

        Raises DataError where the suite cannot be run as a whole (an unknown expectation or parameter).
        """
        from great_expectations.core.expectation_suite import ExpectationSuite
        from great_expectations.exceptions import GreatExpectationsError
        from pydantic import ValidationError
        from pydantic.v1 import ValidationError as ValidationErrorV1

        wanted = _parameters(suite["expectations"])
        unknown = sorted(wanted - set(parameters))
        if unknown:
            raise DataError(f"expectations/{name}.json: names ${unknown[0]}; known are {', '.join(sorted(parameters))}")
        # Great Expectations returns results in an order of its own; the number leads back to the file's.
        numbered = [{**one, "meta": {"number": number}} for number, one in enumerate(suite["expectations"])]
        result_format: dict[str, Any] = {"result_format": "SUMMARY"}
        if "id" in table:
            result_format["unexpected_index_column_names"] = ["id"]
        try:
            expectations = ExpectationSuite(name=name, expectations=numbered)
            asset = self._source.add_dataframe_asset(name)
            batch = asset.add_batch_definition_whole_dataframe(name).get_batch({"dataframe": table})
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = batch.validate(
                    expectations,
                    result_format=result_format,
                    expectation_parameters={key: parameters[key] for key in wanted} or None,
                )
        except (GreatExpectationsError, ValidationError, ValidationErrorV1, TypeError, ValueError) as error:
            raise DataError(f"expectations/{name}.json: cannot be run: {' '.join(str(error).split())[:300]}") from None
        self.results[name] = result
        done = {one.expectation_config.meta["number"]: one for one in result.results}
        for number, one in enumerate(numbered):
            if number not in done:  # an expectation that it cannot build is left out with no more than a log line
                raise DataError(f"expectations/{name}.json: expectation {number + 1} ({one['type']}) is not valid")
        return [_check(name, one, done[number], parameters) for number, one in enumerate(numbered)]


def _parameters(value: Any) -> set[str]:
    """The names in {"$PARAMETER": name}, anywhere inside."""
    if isinstance(value, dict):
        if set(value) == {"$PARAMETER"}:
            return {value["$PARAMETER"]}
        return set().union(*(_parameters(part) for part in value.values()))
    return set().union(*(_parameters(part) for part in value)) if isinstance(value, list) else set()


def _check(suite: str, expectation: dict[str, Any], outcome: Any, parameters: dict[str, Any]) -> Check:
    kwargs = expectation["kwargs"]
    columns = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    result = outcome.result or {}
    error = _exception(outcome.exception_info or {})
    success = bool(outcome.success) and not error
    wanted = "" if success or error else _wanted(kwargs, parameters)
    return Check(
        suite=suite,
        expectation=expectation["type"],
        column=", ".join(columns),
        severity=expectation.get("severity", CRITICAL),
        success=success,
        description=expectation.get("description", ""),
        observed=error or _observed(result) + wanted,
        unexpected=[] if outcome.success else _examples(result),
    )


def _exception(info: dict[str, Any]) -> str:
    """What a check raised (a missing column, for one), in one line; empty where it ran."""
    for one in [info, *(value for value in info.values() if isinstance(value, dict))]:
        if one.get("raised_exception") or one.get("exception_message"):
            return f"could not run: {' '.join(str(one.get('exception_message')).split())}"
    return ""


def _observed(result: dict[str, Any]) -> str:
    if "unexpected_count" in result:
        return f"{result['unexpected_count']} of {result['element_count']} rows"
    if "missing_count" in result:
        return f"{result['missing_count']} missing"
    return str(result.get("observed_value"))


def _wanted(kwargs: dict[str, Any], parameters: dict[str, Any]) -> str:
    """The limits of an expectation beside what was observed; empty where it has none."""
    limits = []
    for key, words, strict in (
        ("value", "", ""),
        ("min_value", "at least ", "above "),
        ("max_value", "at most ", "below "),
    ):
        limit = kwargs.get(key)
        if isinstance(limit, dict):
            limit = parameters.get(limit.get("$PARAMETER", ""))
        if isinstance(limit, int | float):
            limits.append((strict if kwargs.get(f"strict_{key[:3]}") else words) + _short(limit))
    return f", wanted {' and '.join(limits)}" if limits else ""


def _examples(result: dict[str, Any]) -> list[str]:
    if result.get("partial_missing_list"):
        return [str(value) for value in result["partial_missing_list"][:EXAMPLES]]
    rows = result.get("partial_unexpected_index_list") or []
    values = result.get("partial_unexpected_list") or []
    if rows and isinstance(rows[0], dict):
        named = [(row["id"], [value for key, value in row.items() if key != "id"]) for row in rows[:EXAMPLES]]
        return [f"{name}: {', '.join(map(_short, found))}" if found else str(name) for name, found in named]
    return [_short(value) for value in values[:EXAMPLES]]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
