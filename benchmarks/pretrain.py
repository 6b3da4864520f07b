"""What a step of every pretraining recipe costs, and each switch: time, memory, FLOPs and energy.

    python benchmarks/pretrain.py [--model base|tiny|toy|TIMM_SWIN] [--device cpu|cuda] [--batch N] [--json OUT] ...

Each row trains as `gfm pretrain` does, on random weights and generated 256 px JPEG images, in a process of its own a
round; rounds of all rows alternate. Ratios are taken within a round: to the recipe `gfm` without switches at the same
precision, which is what a recipe or switch gains, and to `gfm` in 32-true, which costs what the published code costs
and contains the gain of the precision. "All in" counts what building the teacher's features costs: one pass of the
teacher for each of --cached-crops crops, spread over --epochs epochs.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from gfm import layout
from gfm.geopile.shards import ShardWriter, encode
from gfm.models.encoder_file import EncoderCard, write_card
from gfm.params import Params, PretrainingBase
from gfm.tracking.provenance import code_version, hardware
from pretrain_table import FLOAT32, REFERENCE, Row, aims, header_text, summarise, tables

ROUND = Path(__file__).with_name("pretrain_round.py")
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("swin_base_patch4_window7_224", {}),
    "tiny": ("swin_tiny_patch4_window7_224", {}),
    "toy": ("swin_tiny_patch4_window7_224", {"embed_dim": 32, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}),
}
RECIPES = ("gfm", "simmim", "simmim-continual", "distill", "gfm-fast")
FOLLOW = ("gfm", "distill", "gfm-fast")  # a teacher
SWITCHES = {
    "cached": "the teacher's features read, not computed (gfm-fast: always)",
    "compile": "torch.compile",
    "checkpoint": "activations recomputed in the backward pass",
    "ema": "a moving average of the weights kept",
    "accumulate=N": "a step in N parts",
    "visible=N": "so many units visible, where masked ones are never computed (gfm-fast)",
    "plain-adamw": "without the fused AdamW that 32-true has",
    "contiguous": "without channels-last weights",
}
UNIT = 32
SOURCE_PX = 256
NAME = "row"  # of the pretraining in each process's parameters


def applies(recipe: str, switches: Sequence[str], precision: str) -> bool:
    """Whether switches change anything of a recipe."""
    return not (
        ("cached" in switches and (recipe not in FOLLOW or recipe == "gfm-fast"))
        or (any(switch.startswith("visible=") for switch in switches) and recipe != "gfm-fast")
        or ("plain-adamw" in switches and precision != FLOAT32)
    )


def switch_kind(switch: str) -> str:
    """The key of a switch in SWITCHES, if it is well formed."""
    name, equals, number = switch.partition("=")
    return f"{name}=N" if equals and number.isdigit() and int(number) else switch


def rows_of(args: argparse.Namespace) -> list[Row]:
    """The rows to measure, the references always among them."""
    if args.rows:
        wanted = [(recipe, tuple(switches)) for recipe, *switches in (name.split("+") for name in args.rows)]
    else:
        sets = [(), *(tuple(joined.split("+")) for joined in args.switches if joined)]
        wanted = [(recipe, switches) for recipe in args.recipes for switches in sets]
    rows = [Row(REFERENCE, (), FLOAT32)]
    for precision in args.precision:
        for recipe, switches in [(REFERENCE, ()), *wanted]:
            row = Row(recipe, switches, precision)
            if applies(recipe, switches, precision) and row not in rows:
                rows.append(row)
    return rows


def parameters(row: Row, args: argparse.Namespace) -> dict[str, Any]:
    """The parameter file of a row; one that does not hold together ends the benchmark with what is wrong."""
    architecture, sizes = MODELS.get(args.model, (args.model, {}))
    window = args.px // UNIT  # the last stage's whole map, as published: 6 at 192 px
    # As gfm-fast is meant to be used: windows that are mask units in stages 1 and 2.
    windows = [UNIT // 4, UNIT // 8, window, window] if row.recipe == "gfm-fast" else window
    units = (args.px // UNIT) ** 2
    visible = row.number("visible")
    run: dict[str, Any] = {
        "recipe": row.recipe,
        "precision": row.precision,
        "batch_size": args.batch,
        "accumulate": row.number("accumulate") or 1,
        "epochs": math.ceil((args.warmup + 2 * args.steps) / (args.images // args.batch)),
        "workers": args.workers,
        "compile": "compile" in row.switches,
        "checkpoint_activations": "checkpoint" in row.switches,
        "ema_decay": 0.999 if "ema" in row.switches else None,
        "schedule": {"warmup_epochs": 0},
    }
    if row.recipe in FOLLOW:
        run |= {"teacher_px": args.teacher_px, "cached_crops": int(row.caches)}  # one is built and timed
    if row.recipe != "distill":
        run["masking"] = {"unit": UNIT, "ratio": (units - visible) / units if visible else args.masking_ratio}
    placeholder = {"format": "class-folders", "root": "x"}
    raw = {
        "device": args.device,
        "geopile": {"sources": {"generated": {**placeholder, "licence": "none"}}},
        "teacher": {
            "kind": "timm",
            "architecture": {"name": architecture, "image_px": args.teacher_px},
            "weights": "hub",
            "licence": "none",
        },
        "student": {
            "architecture": {
                "name": architecture,
                "image_px": args.px,
                "args": {**sizes, "window_size": windows, "drop_path_rate": 0.0},
            }
        },
        "pretrain": {NAME: run},
        "tasks": {
            "none": {
                "kind": "classification",
                "data": {**placeholder, "split": {"val_share": 0.1, "test_share": 0.1}},
            }
        },
        "models": ["teacher"],
        "tracking": {"uri": "none"},
    }
    try:
        Params.model_validate(raw)
    except ValidationError as error:
        sys.exit(f"{row.name}: {error.errors()[0]['msg']}")
    return raw


def write_workspace(folder: Path, args: argparse.Namespace) -> None:
    """A working folder with a collection of smooth noise, and a teacher of random weights."""
    rng = np.random.default_rng(0)
    records = []
    shard = folder / layout.SHARDS / "generated-00000.tar"
    shard.parent.mkdir(parents=True)
    with ShardWriter(shard) as writer:
        for index in range(args.images):
            coarse = cv2.resize(rng.integers(0, 256, (16, 16, 3), np.uint8), (SOURCE_PX, SOURCE_PX))
            noise = rng.integers(-8, 9, coarse.shape, np.int16)
            image = np.clip(coarse + noise, 0, 255).astype(np.uint8)
            identity = f"generated/{index:06d}"
            data, suffix = encode(image, 90)
            offset = writer.add(identity, data, suffix)
            own = {"id": identity, "source": "generated", "label": None, "licence": "none"}
            place = {"shard": shard.name, "offset": offset, "size": len(data)}
            records.append({**own, **place, "width": SOURCE_PX, "height": SOURCE_PX})
    schema = pa.schema([*((name, pa.string()) for name in ("id", "source", "label", "licence", "shard"))])
    for number in ("offset", "size", "width", "height"):
        schema = schema.append(pa.field(number, pa.int64()))
    pq.write_table(pa.Table.from_pylist(records, schema), folder / layout.MANIFEST)
    (folder / layout.SPLITS).mkdir(parents=True)
    split = [{"id": record["id"], "split": "train"} for record in records]
    pq.write_table(pa.Table.from_pylist(split), folder / layout.COLLECTION_SPLIT)
    architecture, sizes = MODELS.get(args.model, (args.model, {}))
    card = EncoderCard(
        architecture=architecture,
        model_args={**sizes, "window_size": args.teacher_px // UNIT},
        image_px=args.teacher_px,
        bands=["R", "G", "B"],
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        batch_norm="live",
        origin="random",
        licence="none",
    )
    write_card(folder / layout.encoder_folder("teacher"), card, fixed_px=True)


def run_round(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Measure one round of a row in a process of its own; RuntimeError with its last words where it fails."""
    given, found = folder / "spec.json", folder / "result.json"
    given.write_text(json.dumps(spec), encoding="utf-8")
    found.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, str(ROUND), str(given), str(found)], capture_output=True, text=True)
    if done.returncode or not found.exists():
        words = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        begins = max((index for index, line in enumerate(words) if not line.startswith(" ")), default=0)
        raise RuntimeError(f"{' '.join(' '.join(words[begins:]).split())[:500]} (exit status {done.returncode})")
    return dict(json.loads(found.read_text(encoding="utf-8")))


def measure(rows: list[Row], args: argparse.Namespace, folder: Path, after_round: Callable[[], None]) -> None:
    """Fill the rows' rounds; a row that fails is left out of the rounds that follow."""
    specs = [
        {
            "folder": str(folder),
            "params": parameters(row, args),
            "warmup": args.warmup,
            "steps": args.steps,
            "plain_adamw": "plain-adamw" in row.switches,
            "contiguous": "contiguous" in row.switches,
        }
        for row in rows
    ]
    for number in range(args.rounds):
        order = [(number + offset) % len(rows) for offset in range(len(rows))]
        for row, spec in ((rows[index], specs[index]) for index in order if not rows[index].failed):
            try:
                row.rounds.append(run_round({**spec, "count_flops": number == 0}, folder))
            except RuntimeError as error:
                row.failed = str(error)
            told = row.failed or f"{args.batch / row.rounds[-1]['step_s']:.2f} img/s"
            print(f"round {number + 1} of {args.rounds}: {row.name} {row.precision}: {told}", file=sys.stderr)
            if row is rows[0] and row.failed:
                sys.exit("nothing to compare with")
        after_round()


def header(args: argparse.Namespace, found: dict[str, Any]) -> dict[str, Any]:
    """What the numbers depend on, given one round's result."""
    commit, dirty = code_version()
    return {
        "hardware": hardware(),
        "device": found["device"],
        "threads": found["threads"],
        "versions": {name: metadata.version(name) for name in ("torch", "timm", "lightning")},
        "python": sys.version.split()[0],
        "commit": commit,
        "edited": dirty,
        "energy": found["energy"],
        "before_mb": found["before_mb"],
        "arguments": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
    }


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    switches = "; ".join(f"{name}: {what}" for name, what in SWITCHES.items())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"switches: {switches}"
    )
    listed: dict[str, Any] = {"type": lambda text: text.split(",")}
    known = get_args(PretrainingBase.model_fields["precision"].annotation)
    parser.add_argument("--model", default="base", help="base (Swin-B), tiny (Swin-T), toy, or a Swin's name in timm")
    parser.add_argument("--px", type=int, default=192, help="side of the student's images (192)")
    parser.add_argument("--teacher-px", type=int, default=224, help="side of the teacher's images (224)")
    parser.add_argument("--masking-ratio", type=float, default=0.6, help="share of units masked (0.6: 22 of 36)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", default=[FLOAT32, "bf16-mixed"], help=", ".join(known), **listed)
    parser.add_argument("--recipes", default=list(RECIPES), help=", ".join(RECIPES), **listed)
    parser.add_argument(
        "--switches",
        default=["cached", "compile", "checkpoint", "ema", "accumulate=2", "visible=9", "plain-adamw", "contiguous"],
        help="each tried alone on each recipe; join some with + to try them together",
        **listed,
    )
    parser.add_argument("--rows", default=[], help="only these: gfm,gfm+cached,gfm-fast+compile,...", **listed)
    parser.add_argument("--batch", type=int, help="images a step (8 on a CPU, 128 on a GPU)")
    parser.add_argument("--images", type=int, help="in the generated collection (2 batches on a CPU, 32 on a GPU)")
    parser.add_argument("--workers", type=int, default=2, help="data loading processes (2)")
    parser.add_argument("--rounds", type=int, default=5, help="of all rows (5)")
    parser.add_argument("--steps", type=int, default=4, help="timed in a round (4)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before, not timed (2)")
    parser.add_argument("--cached-crops", type=int, default=8, help="crops of an image that a cache holds (8)")
    parser.add_argument("--epochs", type=int, default=100, help="that a cache serves (100)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number here, after each round")
    args = parser.parse_args(given)
    on_gpu = args.device == "cuda" or (args.device == "auto" and bool(hardware()["gpu"]))
    args.batch = args.batch or (128 if on_gpu else 8)
    args.images = max(args.images or args.batch * (32 if on_gpu else 2), args.batch)
    for name in ("rounds", "steps", "warmup", "cached_crops", "epochs"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if args.px % UNIT or args.teacher_px % UNIT:
        parser.error(f"--px and --teacher-px must be multiples of {UNIT}")
    unknown = [name for name in args.precision if name not in known]
    unknown += [name for name in (*args.recipes, *(row.split("+")[0] for row in args.rows)) if name not in RECIPES]
    switched = [switch for joined in args.switches for switch in joined.split("+") if switch]
    switched += [switch for row in args.rows for switch in row.split("+")[1:]]
    unknown += [switch for switch in switched if switch_kind(switch) not in SWITCHES]
    if unknown:
        parser.error(f"not known: {', '.join(unknown)}")
    return args


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print the tables and return the exit status: 1 where a row failed."""
    args = arguments(given)
    rows = rows_of(args)
    with tempfile.TemporaryDirectory(prefix="gfm-bench-") as name:
        folder = Path(name)
        write_workspace(folder, args)

        def keep() -> None:
            if args.json and any(row.rounds for row in rows):
                args.json.write_text(json.dumps(report(rows, args), indent=1) + "\n", encoding="utf-8")

        measure(rows, args, folder, keep)
    whole = report(rows, args)
    if whole["summary"]:
        print(f"{header_text(whole['header'])}\n\n{tables(whole['summary'], batch=args.batch)}")
        if (args.model, args.px) == ("base", 192) and args.masking_ratio == 0.6:
            print(f"\n{aims(whole['summary'], on_gpu=whole['header']['device'] != 'cpu')}")
    failed = [row for row in rows if row.failed]
    for row in failed:
        print(f"{row.name} {row.precision}: {row.failed}", file=sys.stderr)
    return 1 if failed else 0


def report(rows: list[Row], args: argparse.Namespace) -> dict[str, Any]:
    """Everything measured so far."""
    measured = [row for row in rows if row.rounds]
    return {
        "header": header(args, measured[0].rounds[0]) if measured else {},
        "summary": summarise(measured, batch=args.batch, cached_crops=args.cached_crops, epochs=args.epochs),
        "rows": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
