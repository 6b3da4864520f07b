"""Reading a parameter file: each wrong key, type or combination is one line that names the key."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from gfm.params.known_keys import suggestion
from gfm.params.section import Contradictions, LocalFile, ParameterError, ParameterFaults
from gfm.params.whole import Params

PARAMS_FILE = Path("params.yaml")


def load(path: Path = PARAMS_FILE) -> Params:
    """Read and check a parameter file.

    Raises ParameterError with one line that names the file, the key and what would be right; of several such faults
    ParameterFaults, which has a line of each.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParameterError(f"{path}: no such file; run in a folder that has one, or give --params FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path}: cannot be read: {error}") from None
    try:
        raw = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise ParameterError(f"{path}: not valid YAML: {_yaml_problem(error)}") from None
    except RecursionError:
        raise ParameterError(f"{path}: nested too deeply to be a parameter file") from None
    if not isinstance(raw, dict):
        what = "nothing" if raw is None else f"a {type(raw).__name__}"
        raise ParameterError(f"{path}: must hold a mapping of parameters, but holds {what}")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParameterFaults([f"{path}: {line}" for line in _lines(error, raw)]) from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word; a parameter given twice is an error here."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`, whose keys may be overridden
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                problem = "a list or mapping cannot be a key"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}: {getattr(error, 'problem', None) or error}"
    return " ".join(str(error).split())


# What pydantic says of a type, in the words of somebody who writes YAML; each continues "KEY = VALUE: must be ...".
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping of keys",
    "model": "a mapping of keys",
}
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9_-]*$": "a name of letters, digits, - and _",
    r"^[0-9a-fA-F]{64}$": "the 64 hexadecimal digits that `sha256sum FILE` prints",
    r"\S": "the terms of use, in words",
    r"^\S": "the name of a class, which does not begin with a blank",
    r"^[A-Z]{3}$": "three capital letters, such as FRA",
    r"^[a-z][a-z0-9+.-]*://": "an address, such as s3://bucket/folder",
    r"^[A-Za-z]+:\d+$": "a registered coordinate system, such as EPSG:3035",
}


def _lines(error: ValidationError, raw: dict[str, Any]) -> list[str]:
    """What is wrong, a line each, in the order of the schema."""
    found = [(tuple(_keys(entry, raw)), entry) for entry in error.errors()]
    lines: list[str] = []
    while found:
        first = found[0][0]
        # Every branch of a union complains; the one that went deepest into the value is the one that was meant.
        below = [(keys, entry) for keys, entry in found if keys[: len(first)] == first]
        deepest = max((keys for keys, _ in below), key=len) if first else first
        lines += _told(".".join(deepest), [entry for keys, entry in below if keys == deepest])
        found = [(keys, entry) for keys, entry in found if keys[: len(first)] != first]
    return lines


def _told(key: str, entries: list[Any]) -> list[str]:
    """The lines of one key, about which the branches of a union may say different things."""
    contradictions = entries[0].get("ctx", {}).get("error")
    if isinstance(contradictions, Contradictions):
        return list(contradictions.faults)
    told = [_predicate(entry) for entry in entries]
    line = told[0][0] + _any_of(list(dict.fromkeys(reason for _, reason in told)))
    return [key + line if key else line.removeprefix(": ")]


def _keys(entry: Any, raw: Any) -> list[str]:
    """The location of an error as the keys that stand in the file, without pydantic's labels of union branches."""
    keys: list[str] = []
    value, location = raw, entry["loc"]
    for number, part in enumerate(location, start=1):
        if part == "[key]":
            continue
        if number == len(location) and entry["type"] in ("missing", "extra_forbidden"):
            keys.append(str(part))
        elif isinstance(value, dict) and part in (value.get("format"), value.get("kind"), value.get("recipe")):
            continue
        elif (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        ):
            value = value[part]
            keys.append(str(part))
    return keys


def _predicate(entry: Any) -> tuple[str, str]:
    """What is wrong with the value at a key: how to go on after the key, and the reason."""
    kind, context, value = entry["type"], entry.get("ctx", {}), entry["input"]
    if kind == "extra_forbidden":
        return ": ", f"unknown key{suggestion(Params, entry['loc'])}"
    if kind == "missing":
        return " ", "is missing"
    if kind == "value_error":
        return ": ", entry["msg"].removeprefix("Value error, ")
    if kind == "union_tag_not_found":
        return f".{context['discriminator'].strip(chr(39))} ", "is missing"
    if kind == "union_tag_invalid":
        tags = context["expected_tags"].replace("'", "")
        return f".{context['discriminator'].strip(chr(39))} = {context['tag']!r}: ", f"must be one of {tags}"
    if value is None:
        return " ", "is empty: give a value, or leave the key out"
    shown = repr(value)
    start = f" = {shown}: " if len(shown) < 60 else ": "
    if kind in ("too_short", "too_long"):
        bound, limit = ("least", "min_length") if kind == "too_short" else ("most", "max_length")
        count = context[limit]
        return start, f"needs at {bound} {count} {'entry' if count == 1 else 'entries'}, not {context['actual_length']}"
    if kind == "string_too_short":
        return start, "must not be empty"
    if kind in ("string_type", "invalid_key"):
        quoted = isinstance(value, bool | int | float)
        # A number is not repeated: YAML has dropped its zeros, or read it as octal.
        return ": " if quoted and not isinstance(value, bool) else start, "must be text" + " in quotes" * quoted
    if kind == "string_pattern_mismatch" and context["pattern"] in _PATTERNS:
        return start, f"must be {_PATTERNS[context['pattern']]}"
    if kind == "float_type" and isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value):
        return start, f"must be a number; YAML takes it for text, write {value.lower().replace('e', '.0e', 1)}"
    if kind.split("_")[0] in _KINDS:
        return start, f"must be {_KINDS[kind.split('_')[0]]}"
    return start, entry["msg"].replace("Input should", "must")


def _any_of(reasons: list[str]) -> str:
    """What the branches of a union ask for, as one sentence."""
    if len(reasons) > 1 and all(reason.startswith("must be ") for reason in reasons):
        *most, last = (reason.removeprefix("must be ") for reason in reasons)
        return f"must be {', '.join(most)} or {last}"
    return " or ".join(reasons)


def rebase(raw: dict[str, Any], old: Path, new: Path) -> dict[str, Any]:
    """The same parameter file, moved: every LocalFile made relative to folder `new` instead of `old`."""
    params = Params.model_validate(raw)

    def walk(values: Any, model: Any) -> Any:
        if isinstance(model, LocalFile):
            path = Path(model)
            return str(path) if path.is_absolute() else os.path.relpath((old / path).resolve(), new.resolve())
        if isinstance(model, BaseModel) and isinstance(values, dict):
            return {k: walk(v, getattr(model, k)) for k, v in values.items()}
        if isinstance(model, dict) and isinstance(values, dict):
            return {k: walk(v, model[k]) for k, v in values.items()}
        return values

    return walk(raw, params)  # type: ignore[no-any-return]
