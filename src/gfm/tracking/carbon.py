"""Energy and kg CO2eq of a piece of work, each figure with the method that gave it. Never a guess, never fatal."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import JsonValue

from gfm.params import Carbon
from gfm.progress import say
from gfm.tracking.computed import compute, design_power, stated_power
from gfm.tracking.provenance import cpu_model

SAMPLE_EVERY_S = 5.0  # how often codecarbon turns power into energy
NO_SAMPLE = "no sample yet"
STATED = "stated in carbon.intensity_kg_per_kwh"
RANK_VARIABLES = ("RANK", "LOCAL_RANK")  # torchrun and Lightning set them

_said: set[str] = set()
_unlisted_cpus: set[str] = set()


@dataclass(frozen=True, slots=True)
class Energy:
    """What a piece of work took, and how that is known; kwh None: it was not measured, and method says why."""

    kwh: float | None
    kg_co2eq: float | None
    seconds: float
    method: str
    power_source: str  # measured, estimated, partly measured, none
    country: str  # ISO code of the grid whose intensity is used
    intensity_kg_per_kwh: float | None
    intensity_source: str = ""  # stated in the parameters, or whose figure it is
    computed_kwh: float | None = None  # hours x power x PUE, whatever was measured
    computed_kg_co2eq: float | None = None
    computed_from: str = ""  # by which power and PUE

    def over(self, seconds: float) -> Energy:
        """The same work with the seconds of all of its parts, which the computed figures follow."""
        scale = seconds / self.seconds if self.seconds > 0 else 1.0
        kwh, kg = self.computed_kwh, self.computed_kg_co2eq
        return replace(
            self,
            seconds=seconds,
            computed_kwh=None if kwh is None else kwh * scale,
            computed_kg_co2eq=None if kg is None else kg * scale,
        )

    def as_dict(self) -> dict[str, JsonValue]:
        return asdict(self)


class _Totals:
    """codecarbon's output handler that keeps the latest totals instead of writing them anywhere."""

    def __init__(self) -> None:
        self.latest: Any = None

    def live_out(self, total: Any, delta: Any) -> None:
        """Called after each sample, on codecarbon's thread."""
        self.latest = total

    def out(self, total: Any, delta: Any) -> None:
        """Called at the end."""
        self.latest = total

    def task_out(self, data: Any, experiment_name: str) -> None:
        """There are no tasks."""

    def exit(self) -> None:
        """There is nothing to close."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What a kWh costs in CO2eq, and whose figure that is."""

    country: str
    kg_per_kwh: float
    source: str


def grid(carbon: Carbon) -> Grid | None:
    """The intensity that the parameters state, else codecarbon's for their country; None without codecarbon."""
    if carbon.intensity_kg_per_kwh is not None:
        return Grid(carbon.country_iso, carbon.intensity_kg_per_kwh, STATED)
    try:
        from codecarbon.core.emissions import Emissions
        from codecarbon.core.units import Energy as CodecarbonEnergy
        from codecarbon.external.geography import GeoMetadata
        from codecarbon.input import DataSource
    except ImportError:
        return None
    data = DataSource()
    country = data.get_global_energy_mix_data().get(carbon.country_iso, {}).get("country_name", "")
    with _complaints():
        kg = Emissions(data).get_country_emissions(
            CodecarbonEnergy.from_energy(kWh=1.0), GeoMetadata(carbon.country_iso, country)
        )
    return Grid(carbon.country_iso, float(kg), _whose(country, carbon.country_iso))


class Meter:
    """Measures from `start` to `stop`; `energy` holds what was found."""

    def __init__(self, carbon: Carbon) -> None:
        self.carbon = carbon
        self.energy = self._not_measured("still running", 0.0)
        self._tracker: Any = None
        self._totals = _Totals()
        self._reason = ""
        self._begun = time.monotonic()

    def start(self) -> None:
        local_rank = os.environ.get("LOCAL_RANK", "0")
        if local_rank != "0":
            self._reason = f"the node's first process measures it (this is process {local_rank})"
            return
        try:
            from codecarbon import OfflineEmissionsTracker
        except ImportError:
            self._reason = "codecarbon is not installed"
            return
        with _complaints() as complaints, _quick_cpu_detection():
            tracker = OfflineEmissionsTracker(
                country_iso_code=self.carbon.country_iso,
                allow_multiple_runs=True,
                tracking_mode="machine",
                measure_power_secs=SAMPLE_EVERY_S,
                output_methods=[],
                output_handlers=[self._totals],
                api_call_interval=1,  # hand over the totals with every sample
                log_level="warning",
                electricitymaps_api_token=None,
                force_carbon_intensity_g_co2e_kwh=None,
            )
            tracker.start()
        # codecarbon suppresses every exception of its own; an unset start time is how it shows.
        if getattr(tracker, "_start_time", None) is None:
            self._reason = f"codecarbon did not start: {complaints.reason()}"
            return
        self._tracker = tracker
        # codecarbon looks the CPU up once a process.
        if complaints.has("we don't know it"):
            _unlisted_cpus.add(cpu_model())

    def stop(self) -> None:
        seconds = time.monotonic() - self._begun
        if self._tracker is None:
            self.energy = self._with_computed(self._not_measured(self._reason, seconds))
            return
        with _complaints() as complaints:
            self._tracker.stop()
        final = getattr(self._tracker, "final_emissions_data", None)
        if final is None or not final.energy_consumed > 0:
            self._reason = f"codecarbon gave no figure: {complaints.reason()}"
            self.energy = self._with_computed(self._not_measured(self._reason, seconds))
            return
        self.energy = self._with_computed(self._measured(final, seconds))

    def so_far(self) -> Energy:
        """The energy since `start`, at most SAMPLE_EVERY_S old, and the final figure once stopped. Nearly free."""
        seconds = time.monotonic() - self._begun
        if self.energy.kwh is not None:
            return self.energy
        if self._tracker is None:
            return self._not_measured(self._reason or "not started", seconds)
        latest = self._totals.latest
        if latest is None or not latest.energy_consumed > 0:
            return self._not_measured(NO_SAMPLE, seconds)
        return self._measured(latest, seconds)

    @property
    def measures(self) -> bool:
        """Whether a tracker runs, so that figures can be expected."""
        return self._tracker is not None

    def _measured(self, total: Any, seconds: float) -> Energy:
        """The energy of codecarbon's totals."""
        method, source = describe(self._tracker)
        stated = self.carbon.intensity_kg_per_kwh
        kwh = float(total.energy_consumed)
        intensity = stated if stated is not None else float(total.emissions) / kwh
        return Energy(
            kwh=kwh,
            kg_co2eq=kwh * intensity,
            seconds=seconds,
            method=method,
            power_source=source,
            country=self.carbon.country_iso,
            intensity_kg_per_kwh=intensity,
            intensity_source=STATED if stated is not None else _whose(total.country_name, total.country_iso_code),
        )

    def _with_computed(self, energy: Energy) -> Energy:
        """The final figures with those by arithmetic beside them."""
        power = stated_power(self.carbon) or (None if self._tracker is None else design_power(self._tracker))
        intensity = energy.intensity_kg_per_kwh
        if intensity is None and power is not None and (known := grid(self.carbon)) is not None:
            intensity = known.kg_per_kwh
        kwh, kg, how = compute(self.carbon, power, energy.seconds, intensity)
        return replace(energy, computed_kwh=kwh, computed_kg_co2eq=kg, computed_from=how)

    def _not_measured(self, reason: str, seconds: float) -> Energy:
        stated = self.carbon.intensity_kg_per_kwh
        return Energy(None, None, seconds, f"not measured: {reason}", "none", self.carbon.country_iso, stated)


@contextmanager
def measure(carbon: Carbon, what: str) -> Iterator[Meter]:
    """Measure the energy of the block on this machine; afterwards `meter.energy` holds it, also when the block raised.

    The figure covers the whole machine while the block runs (one tracker a node), and adds nothing to a run where it
    cannot be had: the energy is then None with the reason, said aloud once a process.
    """
    meter = Meter(carbon)
    meter.start()
    try:
        yield meter
    finally:
        meter.stop()
        if meter.energy.kwh is None and meter.energy.method not in _said and not _follower():
            _said.add(meter.energy.method)
            say(f"{what}: energy {meter.energy.method}")


def total(parts: Sequence[Energy]) -> Energy:
    """The energy of several pieces of work together; not measured as soon as one of them was not."""
    if len(parts) == 1:
        return parts[0]
    computed = _sum(parts, "computed_kwh"), _sum(parts, "computed_kg_co2eq")
    first = replace(parts[0], computed_kwh=computed[0], computed_kg_co2eq=computed[1])
    seconds = sum(part.seconds for part in parts)
    missing = [part for part in parts if part.kwh is None or part.kg_co2eq is None]
    if missing:
        method = f"{missing[0].method} ({len(missing)} of {len(parts)} parts)"
        whole = replace(missing[0], computed_kwh=computed[0], computed_kg_co2eq=computed[1])
        return replace(whole, kwh=None, kg_co2eq=None, seconds=seconds, method=method)
    kwh, kg = (sum(getattr(part, name) for part in parts) for name in ("kwh", "kg_co2eq"))
    methods = "; ".join(dict.fromkeys(part.method for part in parts))
    sources = {part.power_source for part in parts}
    return replace(
        first,
        kwh=kwh,
        kg_co2eq=kg,
        seconds=seconds,
        method=methods,
        power_source=sources.pop() if len(sources) == 1 else "partly measured",
        intensity_kg_per_kwh=kg / kwh if kwh else first.intensity_kg_per_kwh,
    )


def _sum(parts: Sequence[Energy], name: str) -> float | None:
    """Of a figure that every part has; None as soon as one has none."""
    values = [getattr(part, name) for part in parts]
    return None if None in values else sum(values)


def describe(tracker: Any) -> tuple[str, str]:
    """How this codecarbon tracker knows the power of each part, in words, and in one word for the whole."""
    from codecarbon import __version__

    parts: list[str] = []
    measured: list[bool] = []
    for part in tracker._hardware:
        words, is_measured = _describe_part(part)
        parts.append(words)
        measured.append(is_measured)
    if not any(type(part).__name__ in ("GPU", "AppleSiliconChip") for part in tracker._hardware):
        parts.append("no GPU seen")
    if float(getattr(tracker, "_pue", 1.0) or 1.0) != 1.0:
        parts.append(f"times a PUE of {tracker._pue}")
    source = "measured" if all(measured) else "partly measured" if any(measured) else "estimated"
    return f"codecarbon {__version__}, power of the whole machine: {', '.join(parts)}", source


def _describe_part(part: Any) -> tuple[str, bool]:
    kind = type(part).__name__
    if kind == "CPU":
        mode, tdp = str(part._mode), part._tdp
        if mode == "intel_rapl":
            return "CPU measured by RAPL", True
        if mode in ("intel_power_gadget", "windows_emi"):
            return f"CPU measured by {mode.replace('_', ' ')}", True
        if mode == "cpu_load":
            why = ", 4 W a thread because codecarbon does not list this CPU" if cpu_model() in _unlisted_cpus else ""
            return f"CPU estimated from its load and a design power of {tdp:g} W (no RAPL{why})", False
        return f"CPU a constant {tdp} W (no RAPL)", False
    if kind == "RAM":
        return "RAM modelled from its size", False
    if kind == "GPU":
        return "GPU measured by its driver (NVML or AMD SMI)", True
    if kind == "AppleSiliconChip":
        return f"{part.chip_part} measured by powermetrics", True
    return f"{kind} by codecarbon", False


def _whose(country_name: str, country_iso: str) -> str:
    if country_name:
        return f"codecarbon's yearly figure for {country_name}"
    return f"codecarbon's world average (it has no figure for {country_iso})"


def _follower() -> bool:
    return any(os.environ.get(name, "0") != "0" for name in RANK_VARIABLES)


class _Complaints(logging.Filter):
    """Keeps what codecarbon logs instead of raising, so that a missing figure has a reason, and shows none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.records.append(record)
        return False

    def reason(self) -> str:
        for record in self.records:
            if record.exc_info and record.exc_info[1] is not None:
                return " ".join(f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}".split())
        errors = [record.getMessage() for record in self.records if record.levelno >= logging.ERROR]
        return " ".join(errors[0].split()) if errors else "it gave no reason"

    def has(self, words: str) -> bool:
        return any(words in record.getMessage() for record in self.records)


@contextmanager
def _complaints() -> Iterator[_Complaints]:
    """Collect codecarbon's log while it starts or stops, and keep it from the user's terminal."""
    logger = logging.getLogger("codecarbon")
    complaints = _Complaints()
    logger.addFilter(complaints)
    try:
        yield complaints
    finally:
        logger.removeFilter(complaints)
        logger.setLevel(logging.ERROR)


@contextmanager
def _quick_cpu_detection() -> Iterator[None]:
    """Give codecarbon the CPU's name from /proc: its own way forks for two seconds, beside torch's threads."""
    import cpuinfo  # type: ignore[import-untyped]

    slow = cpuinfo.get_cpu_info
    cpuinfo.get_cpu_info = lambda: {"brand_raw": cpu_model()}
    try:
        yield
    finally:
        cpuinfo.get_cpu_info = slow
