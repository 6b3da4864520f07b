"""Which of a task's bands stand for wanted ones: the same name, else the same colour of light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gfm.params import ParameterError, Params

SAME_COLOUR_UM = 0.05  # sensors' red, green, blue and near infrared differ by less, from each other by more


def matching_bands(
    params: Params,
    task: str,
    wanted: Sequence[str],
    collection_um: Mapping[str, float | None],
    own_um: Sequence[float | None] = (),
) -> list[str]:
    """The task's band for each of `wanted`, in that order: bands of the collection, or an encoder's with `own_um`.

    A band of another name matches when its wavelength is the nearest, and within 0.05 um. `own_um` are wavelengths
    that an encoder's bands have of their own; those of the collection, `collection_um`, stand for what it does not say.
    ParameterError names the band that has no match.
    """
    of_encoder = dict(zip(wanted, own_um, strict=False))
    whose = "encoder" if of_encoder else "collection"
    declared = params.tasks[task].data.imagery.bands
    chosen: list[str] = []
    for band in wanted:
        wavelength = of_encoder.get(band) or collection_um.get(band)
        distances = {
            name: abs(own - wavelength)
            for name, own in declared.items()
            if own is not None and wavelength is not None and name not in chosen
        }
        nearest = min(distances, key=lambda name: distances[name], default=None)
        if band in declared:
            own = declared[band]
            if own is not None and wavelength is not None and abs(own - wavelength) > SAME_COLOUR_UM:
                raise ParameterError(
                    f"tasks.{task}.data.imagery.bands.{band} is {own} um, but the {whose}'s {band} is {wavelength}; "
                    "correct one of them, or rename the task's band"
                )
            chosen.append(band)
        elif nearest is not None and distances[nearest] <= SAME_COLOUR_UM:
            chosen.append(nearest)
        else:
            colour = wavelength or "no wavelength"
            known = ", ".join(f"{name} ({own or 'no wavelength'})" for name, own in declared.items())
            raise ParameterError(
                f"tasks.{task}.data.imagery.bands has none for the {whose}'s {band} ({colour}); "
                f"it has {known}; declare the band, or its wavelength in um"
            )
    return chosen


def collection_wavelengths(params: Params) -> dict[str, float | None]:
    """The wavelength of each of the collection's bands, um, as the first source that has the band declares it."""
    sources = [source.imagery.bands for source in params.geopile.sources.values()]
    return {band: next((own[band] for own in sources if band in own), None) for band in params.geopile.bands}
