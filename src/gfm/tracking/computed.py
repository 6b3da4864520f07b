"""Energy by arithmetic, beside what is measured: hours x power of the devices x PUE, and x intensity of the grid."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gfm.params import Carbon

STATED = "stated in carbon.device_power_w"


@dataclass(frozen=True, slots=True)
class Power:
    """What the devices of this machine draw at most, and whose figure that is."""

    watts: float
    source: str


def stated_power(carbon: Carbon) -> Power | None:
    """The power that the parameters state."""
    return None if carbon.device_power_w is None else Power(carbon.device_power_w, STATED)


def design_power(tracker: Any) -> Power | None:
    """The design power of the CPU, as codecarbon's tracker lists it, and the power limits of the GPUs that it sees."""
    cpu = sum(float(part._tdp) for part in tracker._hardware if type(part).__name__ == "CPU" and part._tdp)
    limits = _gpu_limits() if any(type(part).__name__ == "GPU" for part in tracker._hardware) else []
    words = [f"CPU {cpu:g} W by design"] if cpu else []
    if limits:
        words.append(f"{len(limits)} GPU{'' if len(limits) == 1 else 's'} limited to {sum(limits):g} W")
    return Power(cpu + sum(limits), ", ".join(words)) if words else None


def compute(
    carbon: Carbon, power: Power | None, seconds: float, kg_per_kwh: float | None
) -> tuple[float | None, float | None, str]:
    """kWh, kg CO2eq and how they are known; None where power or grid are not."""
    if power is None:
        return None, None, "not computed: the devices' power is not known; state carbon.device_power_w"
    kwh = seconds / 3600 * power.watts / 1000 * carbon.pue
    how = f"hours x {power.watts:g} W ({power.source}) x PUE {carbon.pue:g}"
    return kwh, None if kg_per_kwh is None else kwh * kg_per_kwh, how


def _gpu_limits() -> list[float]:
    """The power limit of every NVIDIA GPU, watts; empty where its driver does not say."""
    limits: list[float] = []
    with suppress(Exception):  # pynvml's errors share no base but this
        import pynvml

        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            limits.append(pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1000)
    return limits
