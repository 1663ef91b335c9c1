"""Going on with a run: which one, and whether it is still the same."""

import dataclasses
from pathlib import Path
from typing import Any

from sancli import console
from sancli.config import TrainConfig
from sancli.engine import checkpoint
from sancli.errors import UsageError, WeightsError, command
from sancli.runs import Run
from sancli.tasks.training.planning import Plan
from sancli.tasks.training.session import FORMAT

USED = {
    "resume",
    "resume_from",
    "epochs",
    "device",
    "workers",
    "time_limit",
    "early_stop",
    "runs_dir",
    "dry_run",
}
"""Options that a run which goes on still obeys; any other that differs from the run's is an error."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """A run as its checkpoint has it."""

    run: Run
    config: TrainConfig
    """The run's own, with what the command line changes."""
    state: dict[str, Any]


def reopen(config: TrainConfig, given: frozenset[str]) -> Saved:
    """The run to go on with, and its settings.

    Raises:
        WeightsError: There is none, or its checkpoints are damaged.
        UsageError: An option would be ignored, or the run is complete.
    """
    run = Run(config.resume_from) if config.resume_from else newest_unfinished(config.runs_dir)
    if not checkpoint.exists(run.checkpoint):
        raise WeightsError(
            f"{run.folder} is no run that can go on.",
            why=f"it has no {run.checkpoint.name}.",
            fix="name the folder of a run, or start a new one without --resume-from.",
        )
    state = checkpoint.load(run.checkpoint)
    if state.get("format") != FORMAT:
        raise WeightsError(
            f"{run.checkpoint} was written by another version of sancli.",
            why=f"its format is {state.get('format')}, this version reads {FORMAT}.",
            fix=f"start a new run from its best weights: {command('san', 'train', '--weights', run.folder)}",
        )
    saved = TrainConfig.from_toml(state["config"])
    check_options(config, saved, given, run)
    changes = {name: getattr(config, name) for name in given & {"epochs", "time_limit", "early_stop"}}
    machine = {name: getattr(config, name) for name in given & {"device", "workers"}}
    place = {"data": config.data} if config.data is not None else {}
    config = saved.replace(**changes, **machine, **place, dry_run=config.dry_run, runs_dir=config.runs_dir)
    progress = state["progress"]
    if progress["epoch"] >= (config.epochs or 0):
        raise UsageError(
            f"{run.folder} is complete.",
            why=f"it has learnt for {progress['epoch']} epochs.",
            fix="give it more: "
            + command("san", "train", "--resume-from", run.folder, "--epochs", 2 * progress["epoch"]),
        )
    where = f"epoch {progress['epoch'] + 1}, step {progress['step']}"
    console.say(f"Going on with {run.folder}, from {where}")
    if saved.epochs != config.epochs:
        console.say(f"New plan: {config.epochs} epochs instead of {saved.epochs}; the learning rate follows")
    return Saved(run, config, state)


def newest_unfinished(runs_dir: Path) -> Run:
    """The run that was saved last among those that are not complete.

    Raises:
        WeightsError: There is none.
    """
    runs = [Run(folder) for folder in runs_dir.glob("*") if checkpoint.exists(Run(folder).checkpoint)]
    open_runs = [run for run in runs if not is_finished(run)]
    if not open_runs:
        raise WeightsError(
            "there is no unfinished run here.",
            why=f"looked for {runs_dir}/*/last.ckpt under {Path.cwd()}; {len(runs)} found, all complete.",
            fix="start one without --resume, or give a complete one more: --resume-from RUN --epochs N.",
        )
    newest = max(open_runs, key=lambda run: saved_at(run))
    if len(open_runs) > 1:
        others = sorted(str(run.folder) for run in open_runs if run != newest)
        console.say(
            f"Taking {newest.folder}, the newest of {len(open_runs)}; others: {', '.join(others[:5])}"
        )
    return newest


def saved_at(run: Run) -> float:
    """When the run was saved last."""
    paths = (run.checkpoint, checkpoint.previous(run.checkpoint))
    return max(path.stat().st_mtime for path in paths if path.exists())


def is_finished(run: Run) -> bool:
    """Whether the run came to its end; one without a model has not."""
    try:
        return run.read_info().finished
    except WeightsError:
        return False


def check_options(config: TrainConfig, saved: TrainConfig, given: frozenset[str], run: Run) -> None:
    """Refuses options that differ from the run's own and could only be ignored.

    Raises:
        UsageError: With each of them, and the run's value.
    """
    names = {field.name for field in dataclasses.fields(config)} & given - USED - {"data"}
    if config.resume and config.resume_from:
        raise UsageError(
            "--resume and --resume-from do not go together.",
            why="--resume takes the newest unfinished run, --resume-from the one it names.",
            fix="leave one of them out.",
        )
    differing = [name for name in sorted(names) if getattr(config, name) != getattr(saved, name)]
    if differing:
        listed = ", ".join(
            f"{option(name)} {getattr(config, name)} (the run has {getattr(saved, name)})"
            for name in differing
        )
        raise UsageError(
            f"a run that goes on keeps its settings: {listed}.",
            why=f"{run.folder} was started with others, and these would be ignored.",
            fix="leave them out, or start a new run without --resume.",
        )


def option(name: str) -> str:
    """The name of a setting on the command line."""
    return f"--{name.replace('_', '-')}"


def check_same_data(plan: Plan, saved: Saved) -> None:
    """Refuses to go on with other images or classes.

    Raises:
        UsageError: With what differs.
    """
    before, now = saved.state["classes"], list(plan.classes)
    if before != now:
        gone, new = [n for n in before if n not in now], [n for n in now if n not in before]
        changes = [f"gone: {', '.join(gone)}"] * bool(gone) + [f"new: {', '.join(new)}"] * bool(new)
        what = f"has other classes ({'; '.join(changes) or 'in another order'})"
    elif saved.state["data"] != plan.fingerprint():
        what = "holds other images: its dataset.json has changed"
    else:
        return
    raise UsageError(
        f"{plan.prepared.root} {what}.",
        why=f"{saved.run.folder} was started on other data, and its figures would mean nothing.",
        fix="start a new run from it: "
        + command("san", "train", plan.prepared.root, "--weights", saved.run.folder),
    )
