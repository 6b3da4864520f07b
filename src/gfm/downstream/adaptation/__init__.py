"""Ways to adapt an encoder to a task, one file each; `build_adaptation` gives the one that the parameters name."""

from __future__ import annotations

from gfm.downstream.adaptation.adaptation import Adaptation
from gfm.downstream.adaptation.frozen import Frozen
from gfm.downstream.adaptation.full import Full
from gfm.downstream.adaptation.knn import Knn
from gfm.downstream.adaptation.linear import Linear
from gfm.downstream.adaptation.lora import Lora
from gfm.params import Finetune, Mode

__all__ = ["Adaptation", "build_adaptation"]

MODES: dict[Mode, type[Adaptation]] = {"full": Full, "frozen": Frozen, "linear": Linear, "knn": Knn, "lora": Lora}


def build_adaptation(settings: Finetune) -> Adaptation:
    """The adaptation of a mode."""
    return MODES[settings.mode](settings)
