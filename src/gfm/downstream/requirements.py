"""What the tasks' parameters need beside the packages that are always installed."""

from __future__ import annotations

from importlib.util import find_spec

from gfm.params import ParameterError, Params


def check_requirements(params: Params) -> None:
    """ParameterError where a task asks for LoRA or a search and peft or Optuna is not installed."""
    for name, task in params.tasks.items():
        if task.finetune.mode == "lora":
            _must_have("peft", "lora", f"tasks.{name}.finetune.mode = lora", "choose another mode")
        if task.search is not None:
            need_optuna(f"tasks.{name}.search")


def need_optuna(what: str) -> None:
    """ParameterError where Optuna is not installed, which `what` needs."""
    _must_have("optuna", "search", what, "leave the search out")


def _must_have(package: str, extra: str, what: str, otherwise: str) -> None:
    if find_spec(package) is None:
        raise ParameterError(
            f"{what} needs {package}, which is not installed; "
            f"run `pip install -c constraints.txt -e '.[{extra}]'`, or {otherwise}"
        )
