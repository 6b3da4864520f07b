"""What the tasks' parameters need beside the packages that are always installed."""

from __future__ import annotations

from importlib.util import find_spec

from gfm.params import ParameterError, Params


def check_requirements(params: Params) -> None:
    """ParameterError where a task asks for LoRA and peft is not installed."""
    for name, task in params.tasks.items():
        if task.finetune.mode == "lora" and find_spec("peft") is None:
            raise ParameterError(
                f"tasks.{name}.finetune.mode = lora needs peft, which is not installed; "
                "run `pip install -c constraints.txt -e '.[lora]'`, or choose another mode"
            )
