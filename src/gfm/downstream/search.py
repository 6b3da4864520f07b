"""Hyper-parameter search: learning rate and batch size by Optuna's TPE, scored on validation alone, resumable."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue

from gfm.downstream.fingerprint import fingerprint
from gfm.downstream.module import Diverged
from gfm.downstream.requirements import need_optuna
from gfm.downstream.training import Learned
from gfm.errors import DataError
from gfm.layout import encoder_folder, trials_file
from gfm.output_folder import only_writer
from gfm.params import Finetune, Params, Search, Task
from gfm.progress import say
from gfm.tracking.carbon import Energy, measure, total
from gfm.tracking.provenance import run_of
from gfm.tracking.runs import ENCODER_TAG, Run, child_run

RANDOM_TRIALS = 5  # before TPE has enough to go by; Optuna's own 10 would be most of a budget of 16
DIGITS = 3  # of a learning rate

Learn = Callable[[Finetune, str], Learned]  # one training with these settings, described in words, never tested


@dataclass(frozen=True, slots=True)
class Subject:
    """What is searched for: one model's settings on one task."""

    task_name: str
    model_name: str
    task: Task
    index: str  # digest of the task's samples
    data: Mapping[str, Any]  # the version of the collection that the encoder saw

    @property
    def search(self) -> Search:
        assert self.task.search is not None
        return self.task.search

    @property
    def name(self) -> str:
        """For people, in logs and runs."""
        return f"{self.task_name}/{self.model_name}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One training with the values tried, and the score of its best epoch on validation."""

    number: int  # from 1
    lr: float
    batch_size: int
    score: float | None  # None: it diverged
    epoch: int
    reason: str  # of having no score
    energy: Energy
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """All trials, the best of them, and what they took together."""

    trials: list[Trial]
    best: Trial
    settings: Finetune  # at the best values
    metric: str
    energy: Energy
    run_id: str | None
    optuna: str  # its version


def search(params: Params, subject: Subject, learn: Learn) -> Found:
    """Try values within the budget, or take the trials that are there already; the best by validation.

    What is tried depends on `search.seed` and the trials before it alone, so that a search which is killed and started
    again gives the same result: its finished trials are kept, and the one that ran is repeated. A training that
    diverges or does not fit the GPU's memory counts as a trial without a score. DataError where no trial has one,
    ParameterError without Optuna, GfmError where another process searches for the same.
    """
    need_optuna(f"tasks.{subject.task_name}.search")
    file = trials_file(subject.task_name, subject.model_name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(file):
        study = _open(file, subject)
        done = _finished(study)
        budget = subject.search.trials
        if done:
            say(f"{subject.name}: {min(len(done), budget)} of {budget} trials were finished before ({file})")
        if len(done) < budget:
            _spend(params, subject, study, learn)
        return _found(study, subject)


def _spend(params: Params, subject: Subject, study: Any, learn: Learn) -> None:
    settings = {"task": subject.task_name, "model": subject.model_name, **subject.task.model_dump(mode="json")}
    begun = study.user_attrs.get("run_id")
    with child_run(params, f"search {subject.name}", "search", settings, resume_run_id=begun, data=subject.data) as run:
        study.set_user_attr("run_id", run.run_id)
        run.tags({"scored_on": "val", ENCODER_TAG: run_of(encoder_folder(subject.model_name))})
        while (number := len(_finished(study)) + 1) <= subject.search.trials:
            _try(params, subject, study, learn, number, run)
        found = _found(study, subject)
        run.metrics({f"best.val_{found.metric}": found.best.score or 0.0, "best.lr": found.best.lr})
        run.metrics({"best.batch_size": found.best.batch_size, "best.trial": found.best.number})
        told = [trial.user_attrs for trial in _finished(study)]
        # Of this run's own trials: those of a search that was finished before are counted there.
        run.energy(total([Energy(**known["energy"]) for known in told if known["search_run_id"] == run.run_id]))


def _try(params: Params, subject: Subject, study: Any, learn: Learn, number: int, search_run: Run) -> None:
    """One trial, asked for, trained and told."""
    from optuna.trial import TrialState

    space = subject.search
    study.sampler = _sampler(space.seed, number)
    trial = study.ask()
    tried = trial.suggest_float("lr", *space.lr, log=True)
    lr = min(max(float(f"{tried:.{DIGITS}g}"), space.lr[0]), space.lr[1])
    batch_size = trial.suggest_categorical("batch_size", space.batch_sizes)
    settings = subject.task.finetune.at(lr, batch_size)
    what = f"{subject.name}, trial {number} of {space.trials} (lr {lr:g}, batch size {batch_size})"
    values = {"lr": lr, "encoder_lr": settings.encoder_lr, "batch_size": batch_size, "number": number}
    score, epoch, metric, reason, run_id = math.nan, 0, "", "", None
    try:
        with child_run(params, f"trial {number}", "trial", values, seed=space.seed, below=search_run) as run:
            run_id = run.run_id
            try:
                with measure(params.carbon, what) as meter:
                    learned = learn(settings, what)
            finally:
                spent = meter.energy
                run.energy(spent)
            metric, score = next(iter(learned.val.items()))
            epoch = learned.epoch
            for entry in learned.history:
                run.metrics({f"val_{metric}": entry["val_score"]}, step=int(entry["step"]))
            if not math.isfinite(score):
                raise Diverged(f"the validation {metric} is {score}")
            run.metrics({f"best.val_{metric}": score})
    except (Diverged, torch.OutOfMemoryError) as error:
        reason = " ".join(str(error).split())[:300]
    known: dict[str, JsonValue] = {
        "number": number,
        "lr": lr,
        "batch_size": batch_size,
        "epoch": epoch,
        "metric": metric,
        "reason": reason,
        "energy": spent.as_dict(),
        "run_id": run_id,
        "search_run_id": search_run.run_id,
    }
    for key, value in known.items():
        trial.set_user_attr(key, value)
    if reason:
        study.tell(trial, state=TrialState.PRUNED)  # TPE then keeps away from there; of FAIL it learns nothing
        say(f"{what}: no score: {reason}")
    else:
        study.tell(trial, score)
        say(f"{what}: validation {metric} {score:.4f} at epoch {epoch}; the best so far is {study.best_value:.4f}")


def _open(file: Path, subject: Subject) -> Any:
    """The study of exactly this space, task, data and encoder; others in the same file are left alone."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what a user should know is said here
    # We hold `only_writer`: a lock that is there is a killed process's.
    Path(f"{file}.lock").unlink(missing_ok=True)
    _mend(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = JournalStorage(JournalFileBackend(str(file), JournalFileOpenLock(str(file))))
        study = optuna.create_study(
            study_name=_study_name(subject), storage=storage, direction="maximize", load_if_exists=True
        )
    except (ValueError, KeyError) as error:
        raise DataError(f"{file}: is no journal of Optuna's ({error}); remove it, and the search begins anew") from None
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)  # a kill's; the same values come again
    return study


def _mend(file: Path) -> None:
    """Drop a last line that a kill cut off: Optuna would write behind it, and read neither."""
    if file.exists() and not (content := file.read_bytes()).endswith(b"\n"):
        with file.open("rb+") as journal:
            journal.truncate(content.rfind(b"\n") + 1)


def _sampler(seed: int, number: int) -> Any:
    """TPE whose draws depend on the seed, the trial's number and the finished trials: not on when it was started."""
    import optuna

    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return optuna.samplers.TPESampler(seed=own, n_startup_trials=RANDOM_TRIALS)


def _study_name(subject: Subject) -> str:
    """Of all that the trials' scores depend on, but for the code."""
    lowest = subject.task.finetune.at(subject.search.lr[0], subject.search.batch_sizes[0])  # the ratio of its rates
    task = subject.task.model_copy(update={"finetune": lowest})
    return fingerprint(task, subject.index, subject.model_name)


def _finished(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    return list(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED]))


def _found(study: Any, subject: Subject) -> Found:
    """The first trials of the study, as many as the budget has; of equals the first is the best."""
    import optuna

    told = _finished(study)[: subject.search.trials]
    trials = [_trial(trial.user_attrs, trial.value) for trial in told]
    scored = [trial for trial in trials if trial.score is not None]
    if not scored:
        key = f"tasks.{subject.task_name}.search"
        raise DataError(
            f"{subject.name}: none of {len(trials)} trials has a score (the first: {trials[0].reason}); lower {key}.lr "
            f"or {key}.batch_sizes"
        )
    best = max(scored, key=lambda trial: (trial.score or 0.0, -trial.number))
    return Found(
        trials=trials,
        best=best,
        settings=subject.task.finetune.at(best.lr, best.batch_size),
        metric=next(str(trial.user_attrs["metric"]) for trial in told if trial.user_attrs["metric"]),
        energy=total([trial.energy for trial in trials]),
        run_id=study.user_attrs.get("run_id"),
        optuna=optuna.__version__,
    )


def _trial(known: Mapping[str, Any], score: float | None) -> Trial:
    values = {key: value for key, value in known.items() if key not in ("metric", "energy", "search_run_id")}
    return Trial(score=score, energy=Energy(**known["energy"]), **values)
