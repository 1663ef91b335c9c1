"""`san runs`: the runs of a folder with their figures, newest first."""

import csv
from datetime import datetime
from pathlib import Path
from typing import Any

from sancli import console
from sancli.errors import WeightsError
from sancli.files import is_locked
from sancli.runs import Run, runs_by_age

HEADER = ("run", "network", "top-1", "epochs", "date")
"""As much as fits into 80 columns; --json has the rest."""


def run(runs_dir: Path) -> None:
    """Shows every run that holds a model or can go on; a damaged one is named as such and hides no other."""
    runs = [describe(run) for run in runs_by_age(runs_dir)] + [*map(begun, without_model(runs_dir))]
    runs.sort(key=lambda entry: str(entry["date"]), reverse=True)
    console.emit({"runs": runs})
    if not runs:
        console.say(f"There are no runs in {runs_dir}.")
        prepared = any(Path("data").glob("*/dataset.json"))
        console.next_command("san", *(("train",) if prepared else ("prepare", "PATH")))
        return
    console.result(console.table(HEADER, [row(entry) for entry in runs]))
    how = ("eval", "--model") if "arch" in runs[0] else ("train", "--resume-from")
    console.next_command("san", *how, runs[0]["folder"])


def without_model(runs_dir: Path) -> list[Run]:
    """The runs that were stopped, or go on, before their first epoch was measured."""
    runs = [Run(path.parent) for path in sorted(runs_dir.glob("*/last.ckpt"))]
    return [run for run in runs if not run.info.exists()]


def begun(run: Run) -> dict[str, Any]:
    """What is known of one of them."""
    state = state_of(run, finished=False)
    return {"folder": str(run.folder), "date": date_of(run.checkpoint), "state": state, "epochs": 0}


def date_of(path: Path) -> str:
    """When a file was written, to the second."""
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(timespec="seconds")


def describe(run: Run) -> dict[str, Any]:
    """What is known of a run, as plain values."""
    entry: dict[str, Any] = {"folder": str(run.folder), "date": date_of(run.info)}
    try:
        info = run.read_info()
    except WeightsError as error:
        return entry | {"state": "damaged", "reason": error.why}
    done = max(last_epoch(run), info.epoch)
    return entry | {
        "state": state_of(run, finished=info.finished),
        "arch": info.arch,
        "attention": info.attention,
        "data": info.data.get("name"),
        "classes": len(info.classes),
        "image_size": info.preprocessing.image_size,
        "metrics": info.metrics,
        "best_epoch": info.epoch,
        "epochs": done,
    }


def state_of(run: Run, *, finished: bool) -> str:
    """Whether the run is complete, goes on at this moment, or can be resumed."""
    if finished:
        return "finished"
    return "training" if is_locked(run.folder) else "stopped"


def last_epoch(run: Run) -> int:
    """The epochs that were finished, best or not: the rows of metrics.csv; 0 where there is none."""
    if not run.metrics.is_file():
        return 0
    with run.metrics.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


def row(entry: dict[str, Any]) -> tuple[object, ...]:
    """A run as a line of the table."""
    state, arch = entry["state"], entry.get("arch", "")
    network = f"{arch} {entry['attention']}" if arch.startswith("san") else arch
    top1 = entry.get("metrics", {}).get("top1")
    best = "" if top1 is None else f"{100 * top1:.1f} %"
    epochs = state if state == "damaged" else str(entry["epochs"])
    if state not in ("finished", "damaged"):
        epochs += f", {state}"
    return Path(entry["folder"]).name, network, best, epochs, day(entry["date"])


def day(date: str) -> str:
    """A date as short as it can be told: the hour within this year, else the year."""
    then = datetime.fromisoformat(date)
    this_year = then.year == datetime.now(then.tzinfo).year
    return f"{then:%d %b %H:%M}" if this_year else f"{then:%d %b %Y}"
