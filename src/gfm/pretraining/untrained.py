"""`gfm untrained`: the student's architecture without knowledge, described without drawing it. No torch is needed."""

from __future__ import annotations

from gfm import layout
from gfm.models.encoder_file import EncoderCard, write_card
from gfm.output_folder import new_folder
from gfm.params import Params
from gfm.pretraining.record import RunRecord
from gfm.progress import say
from gfm.tracking.provenance import provenance


def describe_untrained(params: Params) -> None:
    """Write models/encoders/random: a card without weights; whoever loads it draws them from a seed of their own."""
    student = params.student
    card = EncoderCard(
        architecture=student.architecture.name,
        model_args=dict(student.architecture.args),
        image_px=student.architecture.image_px,
        bands=list(params.geopile.bands),
        mean=list(student.normalisation.mean),
        std=list(student.normalisation.std),
        batch_norm="live",
        origin="random",
        licence="none needed: no weights",
    )
    final = layout.encoder_folder("random")
    with new_folder(final) as folder:
        write_card(folder, card)
        RunRecord(
            name="random",
            kind="untrained",
            seed=None,
            seconds=0.0,
            samples=0,
            provenance=provenance(None) | {"data": {}},
            energy={"kwh": 0.0, "kg_co2eq": 0.0, "seconds": 0.0, "method": "nothing was run", "power_source": "none"},
            run_id=None,
            metrics={},
        ).write(folder)
    say(f"{final}: {card.architecture} without weights, drawn from the seed when it is loaded")
