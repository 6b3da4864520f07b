"""Which samples the pictures of predictions show: enough to see what a model can and cannot do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gfm.downstream.pictures import SAMPLES, to_show

LABELS = st.lists(st.tuples(st.sampled_from(["a", "b", "c"])), min_size=1, max_size=40)


@given(LABELS.flatmap(lambda labels: st.tuples(st.just(labels), st.lists(st.booleans(), min_size=len(labels)))))
def test_every_class_is_shown_and_none_twice_before_all_were(drawn: tuple[list[tuple[str]], list[bool]]) -> None:
    labels, verdicts = drawn
    chosen = to_show(labels, verdicts[: len(labels)])
    assert len(set(chosen)) == len(chosen) == min(SAMPLES, len(labels))
    assert {labels[one] for one in chosen} == set(labels)


def test_right_and_wrong_predictions_are_shown_alike() -> None:
    """Of a presence task whose first samples are all of one class, and all right."""
    labels = [("building",)] * 20 + [("none",)] * 10
    verdicts = [True] * 15 + [False] * 5 + [True] * 7 + [False] * 3
    chosen = to_show(labels, verdicts)
    assert [labels[one][0] for one in chosen].count("none") == 3
    assert [verdicts[one] for one in chosen].count(False) == 3
