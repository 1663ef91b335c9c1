"""`san demo`: drawn scenes through the real commands, each shown as one would type it."""

import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from sancli import console
from sancli.config import DemoConfig, EvalConfig, PredictConfig, PrepareConfig, TrainConfig
from sancli.config.base import Config
from sancli.console import say
from sancli.data.scenes.folder import Fault, draw_folder
from sancli.errors import command
from sancli.files import unused
from sancli.tasks import evaluate, predict, prepare, train

SOURCE = Path("scenes")
DRAWN = {"train": 76, "test": 20, "unlabelled": 12, "side": 96}
PREPARE = PrepareConfig(source=SOURCE)
TRAIN = TrainConfig(weights="none", epochs=12, batch_size=32, lr=1e-3, image_size=64)
EVALUATE = EvalConfig()
PREDICT = PredictConfig(paths=(str(SOURCE / "seg_pred"),))
POSITIONAL = ("source", "out", "data", "paths")


def run(config: DemoConfig) -> None:
    """Draws the scenes, then prepares, trains, evaluates and predicts, in a new folder.

    Raises:
        StorageError: The folder cannot be written.
    """
    folder = unused(config.folder)
    say(f"Everything happens in {folder}: delete it when you have seen enough.")
    faults = draw_folder(folder / SOURCE, seed=config.seed, **DRAWN)
    introduce(faults)
    outcome: dict[str, Any] = {"command": "demo", "folder": str(folder)}
    with chdir(folder):
        say(f"$ {command('cd', folder)}", style="bold")
        outcome["prepare"] = step("prepare", prepare.run, PREPARE)
        outcome["train"] = step("train", train.run, TRAIN)
        outcome["eval"] = step("eval", evaluate.run, EVALUATE)
        outcome["predict"] = step("predict", predict.run, PREDICT)
    console.emit(outcome)
    say("")
    say("Now your own images: san prepare PATH", style="bold")


def introduce(faults: list[Fault]) -> None:
    """Says what was drawn, and which faults san prepare has to find in it."""
    count = DRAWN["train"] + DRAWN["test"]
    say(f"Drew landscapes of six kinds, about {count} each, in colours that do not tell the kinds apart.")
    say("Planted in them, as in real data sets:")
    for fault in faults:
        say(f"  {fault.path}: {fault.what}")


def step(name: str, task: Callable[[Any], None], config: Config) -> dict[str, Any]:
    """Runs one command as the command line would; gives back its JSON object, with --json."""
    say("")
    say(f"$ {command_line(name, config)}", style="bold")
    with captured() as output:
        task(config)
    content: dict[str, Any] = json.loads(output.getvalue() or "{}")
    return content


@contextmanager
def captured() -> Iterator[io.StringIO]:
    """Holds back the JSON objects of the single commands: --json promises one object."""
    output = io.StringIO()
    if not console.settings.json:
        yield output
        return
    try:
        with redirect_stdout(output):
            yield output
    finally:
        console.settings.emitted = False  # not on the real stdout


def command_line(name: str, config: Config) -> str:
    """The command that gives these settings: what differs from the defaults."""
    words = ["san", name]
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if value == field.default:
            continue
        if field.name in POSITIONAL:
            words += [str(word) for word in (value if isinstance(value, tuple) else (value,))]
        else:
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    return command(*words)
