"""GEO-Bench-2: which kind of task each of its data sets is, and how a task is one of them."""

from __future__ import annotations

from pydantic import PositiveFloat, field_validator

from gfm.params.section import Section

# Its data sets by the kind of task that they are here; the four of detection have none.
GEOBENCH2_KINDS: dict[str, str] = {
    **dict.fromkeys(("forestnet", "so2sat"), "classification"),
    **dict.fromkeys(("benv2", "treesatai"), "multilabel"),
    "biomassters": "regression",
    **dict.fromkeys(("burn_scars", "caffe", "cloudsen12", "dynamic_earthnet", "flair2"), "segmentation"),
    **dict.fromkeys(("fotw", "kuro_siwo", "pastis", "spacenet2", "spacenet7"), "segmentation"),
}
_DETECTION = ("everwatch", "nzcattle", "pastis_r", "substation")


class GeoBench2(Section):
    """Which data set of GEO-Bench-2 a task is: its scores go into a submission under that name (`gfm submission`)."""

    dataset: str
    # Of biomassters: RMSE times this is in the board's unit, where targets are standardised. None elsewhere.
    rmse_scale: PositiveFloat | None = None

    @field_validator("dataset")
    @classmethod
    def _is_known(cls, dataset: str) -> str:
        if dataset in _DETECTION:
            raise ValueError(f"{dataset} is a task of detection, of which there is no kind here")
        if dataset not in GEOBENCH2_KINDS:
            raise ValueError(f"{dataset} is no data set of GEO-Bench-2; those are {', '.join(sorted(GEOBENCH2_KINDS))}")
        return dataset

    def misfit(self, kind: str, positive_class: str | None) -> str:
        """Why a task of this kind cannot be the data set; empty where it can."""
        wanted = GEOBENCH2_KINDS[self.dataset]
        if kind != wanted:
            return f"dataset = {self.dataset} is a {wanted} task, this one is {kind}"
        if kind == "segmentation" and positive_class is not None:
            return f"dataset = {self.dataset} is scored by the mean over classes; leave out positive_class"
        if (kind == "regression") != (self.rmse_scale is not None):
            if kind == "regression":
                return "rmse_scale is missing: the board's RMSE is of standardised targets (1 / std)"
            return "rmse_scale is for biomassters; leave it out"
        return ""
