"""`gfm leaderboard`: GEO-Bench-2 group scores of submissions, printed and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gfm.errors import DataError
from gfm.evaluation.columns import aligned
from gfm.evaluation.geobench2 import (
    BOARD_COLUMNS,
    GROUPS,
    Board,
    GroupScore,
    read_normaliser,
    read_submission,
    score_groups,
)
from gfm.output_file import write_whole
from gfm.progress import say


def leaderboard(files: Sequence[Path], normaliser: Path, out: Path | None) -> None:
    """Print the score and its standard deviation of every model and group; write them to `out` as JSON.

    Each file is a submission of its own. Where several score a model of one name, its rows are told apart by the
    submission's folder: `MODEL (FOLDER)`. DataError where no group is complete for any model.
    """
    ranges = read_normaliser(normaliser)
    submissions = {path: read_submission(path, ranges) for path in dict.fromkeys(files)}
    for column in BOARD_COLUMNS:
        kinds = {str(table[column].iloc[0]): path for path, table in submissions.items() if column in table}
        if len(kinds) > 1:
            told = " and ".join(f"{kind} in {path}" for kind, path in kinds.items())
            raise DataError(f"{column} is {told}: boards of their own; give them one at a time")
    boards = {path: score_groups(table) for path, table in submissions.items()}
    whole = _together(boards)
    if not any(whole.scores.values()):
        model, lacks = next((model, lacks) for model, lacks in whole.lacking.items())
        group, absent = min(lacks.items(), key=lambda item: len(item[1]) / len(GROUPS[item[0]]))
        raise DataError(
            f"{files[0]}: no model has results on all data sets of any group; {model} is nearest to {group} "
            f"and lacks {', '.join(absent)}"
        )
    say(_table(whole))
    if out is not None:
        scores = {
            model: {group: asdict(score) for group, score in groups.items()} for model, groups in whole.scores.items()
        }
        write_whole(out, json.dumps(scores, indent=1) + "\n")


def _together(boards: dict[Path, Board]) -> Board:
    count = Counter(model for board in boards.values() for model in board.scores)
    whole = Board({}, {}, {})
    for path, board in boards.items():
        for model in board.scores:
            name = model if count[model] == 1 else f"{model} ({path.resolve().parent.name})"
            if name in whole.scores:
                raise DataError(f"{path}: {name} is in another file of the same folder too; give them one at a time")
            whole.scores[name], whole.lacking[name] = board.scores[model], board.lacking[model]
            whole.rows[name] = board.rows[model]
    return whole


def _table(board: Board) -> str:
    rows = [["model", *GROUPS]]
    for model, groups in sorted(board.scores.items(), key=lambda item: _order(item[1]), reverse=True):
        cells = [f"{100 * groups[g].mean:.1f} ± {100 * groups[g].sd:.1f}" if g in groups else "-" for g in GROUPS]
        rows.append([model, *cells])
    lines = aligned(rows)
    lines.append("Normalised scores x 100 ± standard deviation over the bootstrap's repeats; best by Core first.")
    for model, (fewest, most) in board.rows.items():
        if fewest == 1:
            lines.append(f"{model}: has data sets with one score only, whose spread is not known: its ± is too small")
        if fewest < most:
            lines.append(f"{model}: has {fewest} to {most} scores a data set, and those with more weigh more")
    for model, lacks in board.lacking.items():
        if lacks:
            absent = dict.fromkeys(name for names in lacks.values() for name in names)
            lines.append(f"{model}: no score in {', '.join(lacks)}; it lacks {', '.join(absent)}")
    return "\n".join(lines)


def _order(groups: dict[str, GroupScore]) -> tuple[float, float]:
    """By Core where there is one, else after those, by the mean of the groups."""
    core = groups["Core"].mean if "Core" in groups else float("-inf")
    return core, sum(score.mean for score in groups.values()) / len(groups) if groups else float("-inf")
