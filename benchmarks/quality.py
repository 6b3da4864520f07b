"""What the recipes are worth for the same samples and for the same wall clock, on real imagery.

    python benchmarks/quality.py [--minutes-per-run 1] [--seeds 0 1 2] [--workspace DIR] [--json OUT] [--markdown OUT]

Pretrains every recipe of configs/quality.yaml with every seed: for as many epochs as `gfm` has in the given minutes,
then for as many seconds as `gfm` took. Each encoder, and the student without pretraining, is adapted to every task
with the seed of its pretraining, which `random` draws its weights from. Prints a table of the test scores. What lies
in the workspace is not made again, so that a stopped benchmark goes on; the table is written after every encoder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from gfm import layout
from gfm.downstream.finetune import finetune
from gfm.errors import GfmError
from gfm.evaluation.scores import primary_metrics, primary_only, read_record, read_runs, results_table
from gfm.params import PARAMS_FILE, FollowsTeacher, Params, load, rebase
from gfm.pretraining.run import pretrain
from gfm.pretraining.teacher_cache import FOLDER as TEACHER_FEATURES
from gfm.tracking.provenance import cpu_model
from quality_plan import REFERENCE, SAMPLES, TIME, UNTRAINED, Cost, Run, epochs_in, parameters, same_samples, same_time
from quality_table import Trained, markdown, summarise

REPOSITORY = Path(__file__).resolve().parents[1]
SETTINGS = Path("benchmark.json")  # what a workspace was begun with
CALIBRATION = Run(REFERENCE, "calibration", 0, 1)  # how fast this machine is; compared with nothing
STAGES = {  # command: what it leaves
    "assemble": layout.MANIFEST,
    "index": layout.TASKS,
    "split": layout.COLLECTION_SPLIT,
    "validate": layout.encoder_folder("teacher"),  # what comes after it: a report is left by a failure too
    "teacher": layout.encoder_folder("teacher"),
    "untrained": layout.encoder_folder(UNTRAINED),
}
MARGIN = 1.0  # points of 100
CONFIDENCE = 0.95


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes-per-run", type=float, default=1.0, help="of a `gfm` pretraining (1)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="each a pretraining of all (0 1 2)")
    parser.add_argument("--config", type=Path, default=REPOSITORY / "configs/quality.yaml", help="configs/quality.yaml")
    parser.add_argument("--recipes", nargs="+", help="of the configuration's; gfm must be among them (all)")
    parser.add_argument(
        "--not-timed", nargs="*", default=["gfm-fast-1-crop"], help="recipes left out of the same wall clock"
    )
    parser.add_argument("--workspace", type=Path, default=REPOSITORY / "workspaces/quality", help="workspaces/quality")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number here")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write the table here too")
    args = parser.parse_args(given)
    if args.minutes_per_run <= 0 or min(args.seeds) < 0 or len(set(args.seeds)) < len(args.seeds):
        parser.error("--minutes-per-run must be above 0, --seeds different and not negative")
    config = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    args.workspace = args.workspace.resolve()
    args.recipes = args.recipes or list(config["pretrain"])
    unknown = [name for name in args.recipes if name not in config["pretrain"]]
    if unknown or REFERENCE not in args.recipes:
        parser.error(f"--recipes must be of {', '.join(config['pretrain'])}, {REFERENCE} among them")
    for name in ("json", "markdown"):  # given from here, written from the workspace
        setattr(args, name, getattr(args, name) and getattr(args, name).resolve())
    return args


def main(given: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table."""
    args = arguments(given)
    began = time.monotonic()
    try:
        config = claim(args)
        os.chdir(args.workspace)
        measure(args, config)
    except GfmError as error:
        print(f"quality: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"\n{Path('quality.md').read_text(encoding='utf-8')}\n{time.monotonic() - began:.0f} s in all")
    return 0


def claim(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration with its paths as the workspace sees them; GfmError where that belongs to other settings."""
    folder = args.workspace
    raw = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    settings = {
        "config": raw,
        "minutes_per_run": args.minutes_per_run,
        "seeds": args.seeds,
        "recipes": args.recipes,
        "not_timed": args.not_timed,
    }
    path = folder / SETTINGS
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8")) != settings:
            raise GfmError(
                f"{folder}: begun with other settings or another configuration; give another --workspace, or remove it"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise GfmError(f"{folder}: is not empty and no workspace of this benchmark; give another --workspace")
        path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    shutil.copytree(REPOSITORY / layout.EXPECTATIONS, folder / layout.EXPECTATIONS, dirs_exist_ok=True)
    return rebase(raw, args.config.parent, folder)


def measure(args: argparse.Namespace, config: dict[str, Any]) -> None:
    """Everything, in the workspace."""
    write_params(config, [CALIBRATION], args.seeds)
    for stage, output in STAGES.items():
        if not output.exists():
            subprocess.run([sys.executable, "-c", "from gfm.cli import main; main()", stage], check=True)
    params = load(PARAMS_FILE)
    train(params, CALIBRATION)
    # Its own first steps are slow, and are not in its rate.
    epochs = epochs_in(60 * args.minutes_per_run, cost(params, CALIBRATION))
    first = same_samples(args.recipes, args.seeds, epochs)
    params = write_params(config, first, args.seeds)
    for task in params.tasks:
        adapt(params, task, UNTRAINED, args.seeds)
    run_all(params, first, [], args)
    costs = {recipe: [cost(params, run) for run in first if run.recipe == recipe] for recipe in args.recipes}
    timed = [recipe for recipe in args.recipes if recipe not in args.not_timed]
    second = same_time(timed, args.seeds, costs)
    params = write_params(config, [*first, *second], args.seeds)
    run_all(params, second, first, args)


def write_params(config: dict[str, Any], runs: Sequence[Run], seeds: Sequence[int]) -> Params:
    """Write params.yaml with these runs and read it as every command does."""
    text = yaml.safe_dump(parameters(config, runs, seeds), sort_keys=False, allow_unicode=True, width=120)
    PARAMS_FILE.write_text(text, encoding="utf-8")
    return load(PARAMS_FILE)


def run_all(params: Params, runs: Sequence[Run], done: Sequence[Run], args: argparse.Namespace) -> None:
    """Pretrain and adapt in order, and write the tables of what is there after each."""
    finished = list(done)
    for run in runs:
        train(params, run)
        for task in params.tasks:
            adapt(params, task, run.name, [run.seed])
        finished.append(run)
        write_tables(params, finished, args)


def train(params: Params, run: Run) -> None:
    """Pretrain, unless the encoder is there. Every run that caches features computes them itself and pays for it."""
    if not record_path(run).exists():
        shutil.rmtree(TEACHER_FEATURES, ignore_errors=True)
        pretrain(params, run.name)


def adapt(params: Params, task: str, model: str, seeds: Sequence[int]) -> None:
    """Fine-tune and test with these seeds, unless that is done."""
    if (layout.task_folder(task, model) / "run.json").exists():
        return
    settings = params.tasks[task]
    own = settings.model_copy(update={"finetune": settings.finetune.model_copy(update={"seeds": list(seeds)})})
    finetune(params.model_copy(update={"tasks": {**params.tasks, task: own}}), task, model)


def record_path(run: Run) -> Path:
    """Where a pretraining says what it took."""
    return layout.encoder_folder(run.name) / "run.json"


def cost(params: Params, run: Run) -> Cost:
    """What a finished pretraining took."""
    record = read_record(record_path(run), "python benchmarks/quality.py")
    followed = params.pretrain[run.name]
    cached = followed.cached_crops if isinstance(followed, FollowsTeacher) else 0
    return Cost(run.epochs, record["seconds"], record["samples"], record["metrics"]["samples_per_s"], cached)


def write_tables(params: Params, runs: Sequence[Run], args: argparse.Namespace) -> None:
    """quality.md in the workspace, and what the command line asks for."""
    trained = collect(params, runs)
    lines = summarise(trained, margin=MARGIN, confidence=CONFIDENCE)
    records = [read_record(record_path(run), "python benchmarks/quality.py") for run in runs]
    told = header(records, args)
    text = f"{told}\n\n{markdown(trained, lines, margin=MARGIN, confidence=CONFIDENCE)}"
    for path in filter(None, (Path("quality.md"), args.markdown)):
        path.write_text(text, encoding="utf-8")
    if args.json:
        whole = {
            "header": told,
            "margin": MARGIN,
            "confidence": CONFIDENCE,
            "runs": [asdict(run) for run in trained],
            "lines": [asdict(line) for line in lines],
            "records": records,
        }
        args.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def collect(params: Params, runs: Sequence[Run]) -> list[Trained]:
    """Costs and primary test scores of finished runs, and of the student without pretraining, which comes last."""
    found = read_runs(params.model_copy(update={"models": [UNTRAINED, *(run.name for run in runs)]}))
    table = primary_only(results_table(found), primary_metrics(found))
    scores: dict[tuple[str, int], dict[str, float]] = {}
    for model, task, score, seed in zip(table["model"], table["task"], table["score"], table["seed"], strict=True):
        scores.setdefault((str(model), int(seed)), {})[str(task)] = 100 * float(score)
    trained = []
    for run in runs:
        record = read_record(record_path(run), "python benchmarks/quality.py")
        budgets = (SAMPLES, TIME) if run.recipe == REFERENCE else (run.budget,)
        own = scores[run.name, run.seed]
        kwh = record["energy"]["kwh"]
        trained.append(
            Trained(run.recipe, budgets, run.seed, run.epochs, record["seconds"], record["samples"], kwh, own)
        )
    seeds = [seed for model, seed in scores if model == UNTRAINED]
    both = (SAMPLES, TIME)
    return trained + [Trained(UNTRAINED, both, seed, 0, 0.0, 0, 0.0, scores[UNTRAINED, seed]) for seed in seeds]


def header(records: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    """What the numbers were made with."""
    first = records[0]
    origin, energy = first["provenance"], first["energy"]
    commits = sorted(
        {f"{r['provenance']['commit']}{' and edits' if r['provenance']['dirty'] else ''}" for r in records}
    )
    given = (
        f"Seeds {', '.join(map(str, args.seeds))}, {args.minutes_per_run:g} minutes for a pretraining of `{REFERENCE}`."
    )
    return (
        f"{cpu_model()}, {origin['hardware']['cores']} cores, GPU: {', '.join(origin['hardware']['gpu']) or 'none'}; "
        f"Python {origin['python']}, torch {origin['torch']}, timm {origin['timm']}, lightning {origin['lightning']}; "
        f"commit {', '.join(commits)}; data {origin['data']['manifest']}.\n"
        f"{given} Energy: {energy['method']}."
    )


if __name__ == "__main__":
    sys.exit(main())
