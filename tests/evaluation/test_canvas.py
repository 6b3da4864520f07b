"""Names beside bars: whole, in lines that fit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gfm.evaluation.canvas import in_lines, row_in


def test_a_long_name_breaks_at_its_hyphens_and_a_short_one_does_not() -> None:
    assert in_lines("gfm") == "gfm"
    assert in_lines("simmim-continual-of-the-north") == "simmim-continual-\nof-the-north"
    assert in_lines("Artificial sparse forest land") == "Artificial sparse\nforest land"


@given(st.text("ab-_ ", max_size=80), st.integers(3, 30))
def test_no_letter_of_a_name_is_lost_and_no_line_is_too_long(name: str, letters: int) -> None:
    lines = in_lines(name, letters).split("\n")
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert max(map(len, lines)) <= letters


def test_rows_grow_with_the_lines_of_their_names() -> None:
    assert row_in(["a", "b"], 0.36) == row_in([], 0.36) == 0.36 < row_in(["a\nb\nc"], 0.36)
