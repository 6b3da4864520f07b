"""The class that a task's scores are about, and the pixels that are of none."""

from __future__ import annotations

from collections.abc import Sequence

from gfm.params import ParameterError, Task

IGNORED = 255  # class id of a pixel without one, and of padding: neither learned nor scored


def positive_id(name: str, task: Task, classes: Sequence[str]) -> int | None:
    """The id of the task's positive class, None where it declares none; ParameterError where it is no class."""
    if task.positive_class is None:
        return None
    if task.positive_class not in classes:
        known = ", ".join(classes)
        raise ParameterError(f"tasks.{name}.positive_class = {task.positive_class} is no class; classes are {known}")
    return classes.index(task.positive_class)
