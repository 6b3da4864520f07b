"""Where each stage writes, relative to the working folder (the repository, or a workspace made by `gfm workspace`)."""

from pathlib import Path

COLLECTION = Path("data/geopile")
MANIFEST = COLLECTION / "manifest.parquet"
SHARDS = COLLECTION / "shards"
QUARANTINE = COLLECTION / "quarantine.csv"
TASKS = Path("data/tasks")
SPLITS = Path("data/splits")
COLLECTION_SPLIT = SPLITS / "collection.parquet"
LEAKS = SPLITS / "leaks.csv"
EXPECTATIONS = Path("expectations")
EMBEDDINGS = Path("data/embeddings")
ENCODERS = Path("models/encoders")
TASK_MODELS = Path("models/tasks")
SEARCHES = Path("models/search")
TRIALS = Path(".gfm/search")  # what an interrupted search goes on from
FINISHED_SEEDS = Path(".gfm/finetune")  # what an interrupted fine-tuning goes on from
REPORTS = Path("reports")
VALIDATION = REPORTS / "validation.json"
VALIDATION_PASSED = REPORTS / "validation_passed.txt"  # the same bytes for any data: trainings wait for it
STATISTICS = REPORTS / "statistics.json"  # of the last validated collection, and of the one before
DATA_DOCS = REPORTS / "data_docs"
COLLECTION_REPORT = REPORTS / "collection"
EMBEDDING_REPORTS = REPORTS / "embeddings"
RESULTS = REPORTS / "results.csv"
REPORT = REPORTS / "report.html"


def manifest_without(source: str) -> Path:
    """The manifest of the collection as it would be without one of its sources, over the same shards."""
    return COLLECTION / "without" / f"{source}.parquet"


def manifests_without() -> list[Path]:
    """The manifests of the collection without one source that are there."""
    return sorted(manifest_without("*").parent.glob("*.parquet"))


def task_index(task: str) -> Path:
    """The table of one task's samples: files, target, place, split."""
    return TASKS / f"{task}.parquet"


def task_corners(task: str) -> Path:
    """Corners of one task's validation and test images, where `splits.find_shifted` asks for them."""
    return TASKS / f"{task}.corners.npz"


def encoder_folder(name: str) -> Path:
    """One encoder: `config.json` and `model.safetensors`, loadable by timm's `local-dir:`."""
    return ENCODERS / name


def task_folder(task: str, model: str) -> Path:
    """What fine-tuning one model on one task leaves: scores, history, weights, pictures."""
    return TASK_MODELS / task / model


def search_folder(task: str, model: str) -> Path:
    """What `gfm search` leaves: the best settings, every trial, a picture."""
    return SEARCHES / task / model


def trials_file(task: str, model: str) -> Path:
    """The finished trials of one model on one task, of all spaces that were ever searched; Optuna's journal."""
    return TRIALS / task / f"{model}.journal"


def finished_seeds(task: str, model: str) -> Path:
    """The finished seeds of one model on one task, while the fine-tuning has not ended."""
    return FINISHED_SEEDS / task / model
