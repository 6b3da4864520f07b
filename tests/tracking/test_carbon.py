"""Energy: a figure carries its method, and no figure is ever made up."""

from __future__ import annotations

import builtins
import sys
import time
from typing import Any

import pytest

from gfm.params import Carbon
from gfm.tracking import carbon
from gfm.tracking.carbon import Energy, Meter, describe, grid, measure, total
from gfm.tracking.computed import compute, design_power


@pytest.fixture(autouse=True)
def say_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carbon, "_said", set())


def test_a_figure_names_the_tracker_the_parts_and_the_grid(capfd: pytest.CaptureFixture[str]) -> None:
    with measure(Carbon(country_iso="FRA"), "work") as meter:
        sum(i * i for i in range(2_000_000))
    energy = meter.energy
    assert energy.kwh is not None and energy.kwh > 0
    assert energy.kg_co2eq == pytest.approx(energy.kwh * energy.intensity_kg_per_kwh)
    assert energy.method.startswith("codecarbon ") and "whole machine" in energy.method
    assert "CPU" in energy.method and "RAM modelled" in energy.method
    assert energy.power_source in ("measured", "partly measured", "estimated")
    assert energy.intensity_source == "codecarbon's yearly figure for France"
    assert 0.01 < energy.intensity_kg_per_kwh < 0.2
    assert capfd.readouterr() == ("", "")  # none of codecarbon's log


@pytest.mark.parametrize(
    "stated", [Carbon(country_iso="FRA"), Carbon(country_iso="XYZ"), Carbon(intensity_kg_per_kwh=0.5)]
)
def test_a_grid_without_a_run_is_the_one_that_a_run_would_use(stated: Carbon) -> None:
    with measure(stated, "work") as meter:
        sum(i * i for i in range(2_000_000))
    found = grid(stated)
    assert found is not None
    assert found.kg_per_kwh == pytest.approx(meter.energy.intensity_kg_per_kwh)
    assert (found.country, found.source) == (meter.energy.country, meter.energy.intensity_source)


def test_a_stated_intensity_wins_over_the_countrys() -> None:
    with measure(Carbon(country_iso="FRA", intensity_kg_per_kwh=0.5), "work") as meter:
        sum(i * i for i in range(2_000_000))
    assert meter.energy.kg_co2eq == pytest.approx(meter.energy.kwh * 0.5)  # type: ignore[operator]
    assert meter.energy.intensity_source == "stated in carbon.intensity_kg_per_kwh"


def test_a_country_without_a_figure_is_said_to_use_the_world_average() -> None:
    with measure(Carbon(country_iso="XYZ"), "work") as meter:
        sum(i * i for i in range(2_000_000))
    assert "world average" in meter.energy.intensity_source and "XYZ" in meter.energy.intensity_source


def test_without_codecarbon_work_goes_on_and_the_energy_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("codecarbon"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for _ in range(2):
        with measure(Carbon(), "pretraining") as meter:
            pass
    assert (meter.energy.kwh, meter.energy.kg_co2eq) == (None, None)
    assert meter.energy.method == "not measured: codecarbon is not installed"
    assert capsys.readouterr().out == "pretraining: energy not measured: codecarbon is not installed\n"


def test_a_tracker_that_fails_at_its_start_gives_its_reason_and_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    from codecarbon import OfflineEmissionsTracker

    def broken(self: Any) -> None:
        raise RuntimeError("no sensors here")

    monkeypatch.setattr(OfflineEmissionsTracker, "_ensure_hardware_ready", broken)
    with measure(Carbon(), "work") as meter:
        pass
    assert meter.energy.kwh is None
    assert meter.energy.method == "not measured: codecarbon did not start: RuntimeError: no sensors here"


def test_an_error_in_the_work_is_the_error_that_is_seen_and_the_energy_is_still_known() -> None:
    with pytest.raises(ValueError, match="of the work"), measure(Carbon(), "work") as meter:
        sum(i * i for i in range(2_000_000))
        raise ValueError("of the work")
    assert meter.energy.kwh is not None


def test_only_the_nodes_first_process_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with measure(Carbon(), "work") as meter:
        pass
    assert meter.energy.method == "not measured: the node's first process measures it (this is process 2)"


def test_counters_are_called_measured_and_models_estimated() -> None:
    class CPU:
        _mode, _tdp = "intel_rapl", 100

    class GPU:
        pass

    class RAM:
        pass

    class Tracker:
        def __init__(self, *parts: object) -> None:
            self._hardware = parts

    assert describe(Tracker(CPU(), GPU()))[1] == "measured"
    method, source = describe(Tracker(CPU(), RAM()))
    assert source == "partly measured"
    assert "CPU measured by RAPL, RAM modelled from its size, no GPU seen" in method
    CPU._mode = "cpu_load"
    assert describe(Tracker(CPU(), RAM()))[1] == "estimated"


def test_the_energy_so_far_is_known_while_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carbon, "SAMPLE_EVERY_S", 0.2)
    with measure(Carbon(country_iso="FRA"), "work") as meter:
        assert meter.measures
        until = time.monotonic() + 20
        while meter.so_far().kwh is None and time.monotonic() < until:
            sum(i * i for i in range(100_000))
        early = meter.so_far()
        assert early.kwh is not None and early.kwh > 0
        assert early.kg_co2eq == pytest.approx(early.kwh * early.intensity_kg_per_kwh)
        sum(i * i for i in range(2_000_000))
    assert meter.energy.kwh is not None and meter.energy.kwh >= early.kwh
    assert meter.so_far() == meter.energy


def test_energy_that_is_not_measured_is_not_known_so_far_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with measure(Carbon(), "work") as meter:
        assert not meter.measures
        assert (meter.so_far().kwh, meter.so_far().method) == (None, "not measured: codecarbon is not installed")


def test_what_is_computed_is_hours_times_power_times_pue_times_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)  # it needs no meter
    stated = Carbon(intensity_kg_per_kwh=0.5, pue=1.2, device_power_w=400)
    with measure(stated, "work") as meter:
        pass
    energy = meter.energy
    assert energy.kwh is None
    assert energy.computed_kwh == pytest.approx(energy.seconds / 3600 * 0.4 * 1.2)
    assert energy.computed_kg_co2eq == pytest.approx(0.5 * energy.computed_kwh)  # type: ignore[operator]
    assert energy.computed_from == "hours x 400 W (stated in carbon.device_power_w) x PUE 1.2"
    assert compute(stated, None, 10.0, 0.5)[2].endswith("state carbon.device_power_w")


def test_the_power_of_the_devices_is_that_of_their_design(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [type(kind, (), {"_tdp": 65.0})() for kind in ("CPU", "RAM", "GPU")]
    tracker = type("Tracker", (), {"_hardware": parts})()
    monkeypatch.setattr("gfm.tracking.computed._gpu_limits", lambda: [700.0, 700.0])
    power = design_power(tracker)
    assert power is not None
    assert (power.watts, power.source) == (1465.0, "CPU 65 W by design, 2 GPUs limited to 1400 W")
    tracker._hardware = [parts[1]]
    assert design_power(tracker) is None


def test_a_measured_figure_has_a_computed_one_beside_it() -> None:
    meter = Meter(Carbon(intensity_kg_per_kwh=0.5, device_power_w=100))
    meter.start()
    meter.stop()
    energy = meter.energy
    assert energy.computed_kg_co2eq == pytest.approx(energy.seconds / 3600 * 0.1 * 0.5)
    assert energy.kwh is not None and energy.kwh != energy.computed_kwh


def test_the_computed_figures_follow_the_seconds_of_all_parts() -> None:
    energy = Energy(0.25, 0.1, 60.0, "m", "estimated", "FRA", 0.4, "", 0.3, 0.12, "by the test").over(90.0)
    assert (energy.seconds, energy.kwh) == (90.0, 0.25)
    assert (energy.computed_kwh, energy.computed_kg_co2eq) == pytest.approx((0.45, 0.18))


def test_computed_figures_of_parts_are_summed_and_unknown_as_soon_as_one_is() -> None:
    def part(kwh: float | None, computed: float | None) -> Energy:
        return Energy(kwh, kwh, 1.0, "codecarbon", "measured", "FRA", 1.0, "", computed, computed)

    assert total([part(1.0, 2.0), part(1.0, 3.0)]).computed_kwh == 5.0
    assert total([part(None, 2.0), part(1.0, 3.0)]).computed_kg_co2eq == 5.0
    assert total([part(1.0, 2.0), part(1.0, None)]).computed_kwh is None
