"""Containers of files: what lies in them, and one clear line for everything that can be wrong with one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gfm.downstream.formats.tortilla import Container, Stretch, missing_parts
from gfm.imagery.raster import ImageError

FILES = [("a", b"first", {"labels": ["x", "y"], "month": "May"}), ("b", b"the second", {"labels": ["z"]})]


def _container(path, data):
    path.write_bytes(data)
    return Container(Stretch(path), path)


def test_files_are_found_in_the_tables_order_with_the_fields_asked_for(tmp_path, tortillas):
    found = _container(tmp_path / "set.tortilla", tortillas.pack(FILES)).entries(["labels", "month", "absent"])
    assert [(entry.id, entry.format, entry.stretch.read(tmp_path)) for entry in found] == [
        ("a", "GTiff", b"first"),
        ("b", "GTiff", b"the second"),
    ]
    assert found[0].fields == {"labels": ["x", "y"], "month": "May"}
    assert found[1].fields == {"labels": ["z"]}


def test_a_taco_is_read_alike(tmp_path, tortillas):
    data = tortillas.pack(FILES, magic=b"WX")
    assert [entry.id for entry in _container(tmp_path / "set.taco", data).entries()] == ["a", "b"]


def test_offsets_of_a_container_in_a_container_count_from_its_own_beginning(tmp_path, tortillas):
    inner = tortillas.pack(FILES)
    outer = tortillas.pack([("skipped", b"0" * 77), ("deep", tortillas.pack([("inner", inner)]))])
    (_, deep) = _container(tmp_path / "set.tortilla", outer).entries()
    (inside,) = Container(deep.stretch, tmp_path / "deep").entries()
    found = Container(inside.stretch, tmp_path / "inner").entries()
    assert [entry.stretch.read(tmp_path) for entry in found] == [b"first", b"the second"]


def _cut(data):
    return data[:-10]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: b"", "has 0 bytes, too few for a tortilla"),
        (lambda data: data[:20], "has 20 bytes, too few"),
        (_cut, "truncated: its table should lie at bytes 215 to"),
        (lambda data: b"II*\0" + data[4:], "is no tortilla or taco: it begins with b'II'"),
        (lambda data: b"PK\x03\x04" + data[4:], "is a zip, as tacos are from version 2 on"),
        (lambda data: data[:2] + bytes([255] * 8) + data[10:], "truncated"),
        (lambda data: data[:-60] + b"\0" * 60, "its table cannot be read"),
    ],
)
def test_a_damaged_container_is_one_line_that_says_what_is_wrong(tmp_path, tortillas, damage, told):
    container = _container(tmp_path / "set.tortilla", damage(tortillas.pack(FILES)))
    with pytest.raises(ImageError, match=r"set\.tortilla") as raised:
        container.entries()
    assert told in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"tortilla:length": None}, "its table has no column tortilla:length"),
        ({"tortilla:offset": [200, 5_000]}, "b: lies at bytes 5000 to 5010, outside the data (to 215)"),
        ({"tortilla:offset": [3, 205]}, "a: lies at bytes 3 to 8, outside the data"),
        ({"tortilla:offset": [-200, 205]}, "a: lies at bytes -200"),
        ({"tortilla:length": [5, 2**62]}, "b: lies at bytes 205"),
        ({"tortilla:length": [0, 10]}, "a: lies at bytes 200 to 200"),
        ({"tortilla:length": ["5", "10"]}, "a: lies at bytes 200 to ?"),
        ({"tortilla:id": ["../../etc", "b"]}, "lists a file of the name '../../etc', which is none"),
        ({"tortilla:id": [None, "b"]}, "lists a file of the name None"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(tmp_path, tortillas, columns, told):
    container = _container(tmp_path / "set.tortilla", tortillas.pack(FILES, **columns))
    with pytest.raises(ImageError) as raised:
        container.entries()
    assert told in str(raised.value)


def test_a_nested_container_cannot_reach_beyond_itself(tmp_path, tortillas):
    inner = tortillas.pack(FILES, **{"tortilla:length": [5, 10_000]})
    outer = tortillas.pack([("inner", inner), ("other", b"1" * 20_000)])
    entry, _ = _container(tmp_path / "set.tortilla", outer).entries()
    with pytest.raises(ImageError, match="outside the data"):
        Container(entry.stretch, tmp_path / "inner").entries()


def test_an_empty_table_and_a_missing_file_are_said(tmp_path, tortillas):
    container = _container(tmp_path / "set.tortilla", tortillas.pack([], **{"tortilla:id": np.array([], str)}))
    with pytest.raises(ImageError, match="lists no file"):
        container.entries()
    with pytest.raises(ImageError, match="no such file"):
        Container(Stretch(tmp_path / "gone.tortilla"), tmp_path / "gone.tortilla").entries()


def test_parts_that_are_missing_are_named_once(tmp_path, tortillas):
    data = tortillas.pack(FILES, parts=4)
    there = [_container(tmp_path / f"set.000{number}.part.tortilla", data) for number in (0, 2)]
    whole = _container(tmp_path / "whole.tortilla", data)
    assert [path.name for path in missing_parts([*there, whole])] == [
        "set.0001.part.tortilla",
        "set.0003.part.tortilla",
    ]


@pytest.mark.parametrize(("parts", "name"), [(0, "0000"), (2, "0002")])
def test_a_part_that_counts_too_few_parts_is_not_taken_as_complete(tmp_path, tortillas, parts, name):
    container = _container(tmp_path / f"set.{name}.part.tortilla", tortillas.pack(FILES, parts=parts))
    told = rf"set\.{name}\.part\.tortilla: says that its data set has {parts} parts, and is number {name} of them"
    with pytest.raises(ImageError, match=told):
        list(missing_parts([container]))


def test_a_number_of_parts_that_cannot_be_is_no_endless_search(tmp_path, tortillas):
    container = _container(tmp_path / "set.0000.part.tortilla", tortillas.pack(FILES, parts=2**60))
    with pytest.raises(ImageError, match="one of 1152921504606846976 parts"):
        list(missing_parts([container]))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 25), value=st.integers(0, 255))
def test_any_byte_of_the_header_may_be_wrong(tmp_path, tortillas, at, value):
    data = bytearray(tortillas.pack(FILES))
    data[at] = value
    container = _container(tmp_path / "set.tortilla", bytes(data))
    try:
        found = container.entries()
    except ImageError:
        return
    assert [entry.stretch.read(tmp_path) for entry in found] == [b"first", b"the second"]
