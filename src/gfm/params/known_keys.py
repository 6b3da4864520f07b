"""What a key that the schema does not know may have been meant to be."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from gfm.params.section import Section

TAGS = ("format", "kind", "recipe")  # fields by whose value a section is one of several


def suggestion(whole: type[Section], location: Sequence[Any]) -> str:
    """How an error about the unknown key at `location` (as pydantic gives it) goes on; empty where nothing is near."""
    *above, key = location
    here = _sections_at(whole, above)
    below = [f"{name}.{key}" for one in here for name in one.model_fields if _has(_sections_of(one, name), key)]
    near = get_close_matches(str(key), {name for one in here for name in one.model_fields}, n=1)
    sections = [(name, section) for name in whole.model_fields for section in _sections_of(whole, name)]
    elsewhere = [f"{name}.{key}" for name, section in sections if key in _by_name(section)]
    meant = [*below, *near, *elsewhere]
    return f"; did you mean {meant[0]}?" if meant else ""


def _sections_at(whole: type[Section], location: Sequence[Any]) -> list[type[Section]]:
    """The sections that may stand at a location: its parts are fields, names of entries, or tags of a union."""
    here = [whole]
    for part in location:
        if _has(here, part):
            here = [section for one in here if part in one.model_fields for section in _sections_of(one, part)]
        else:
            here = [one for one in here if part in _tags(one)] or here
    return here


def _has(sections: list[type[Section]], key: Any) -> bool:
    return any(key in one.model_fields for one in sections)


def _sections_of(section: type[Section], field: str) -> list[type[Section]]:
    """The sections that a field holds, however they are wrapped: in a union, a list, a mapping."""
    return _sections_in(section.model_fields[field].annotation)


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections_in(part)]


def _by_name(section: type[Section]) -> list[str]:
    """The fields that say something of entries of another section, by their names."""
    return [name for name, field in section.model_fields.items() if get_origin(field.annotation) is dict]


def _tags(section: type[Section]) -> tuple[Any, ...]:
    fields = (section.model_fields[name].annotation for name in TAGS if name in section.model_fields)
    return tuple(value for annotation in fields if get_origin(annotation) is Literal for value in get_args(annotation))
