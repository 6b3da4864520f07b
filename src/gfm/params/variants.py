"""Tasks that repeat another one in another adaptation mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gfm.params.downstream import Task

_OWN = ("finetune", "variant_of")  # what a variant may say otherwise


def variant_faults(tasks: Mapping[str, Task]) -> Iterator[str]:
    """A line where `variant_of` names no task, a variant, or one that differs in more than its adaptation."""
    for name, task in tasks.items():
        if task.variant_of is None:
            continue
        key, first = f"tasks.{name}.variant_of = {task.variant_of}", tasks.get(task.variant_of)
        if first is None:
            yield f"{key}: is not in tasks; it has {', '.join(tasks)}"
            continue
        if first.variant_of is not None:
            yield f"{key}: is a variant itself; name {first.variant_of}"
            continue
        other = [
            field
            for field in type(task).model_fields
            if field not in _OWN and getattr(task, field) != getattr(first, field)
        ]
        if other:
            yield f"{key}: differs in {other[0]}; a variant differs in finetune only"
        twin = next((own for own, one in tasks.items() if own != name and _same(one, own, task)), None)
        if twin is not None:
            yield f"{key}: {twin} is in mode {task.finetune.mode} too; give each variant a mode of its own"


def _same(one: Task, name: str, task: Task) -> bool:
    return task.variant_of in (name, one.variant_of) and one.finetune.mode == task.finetune.mode
