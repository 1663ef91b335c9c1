"""A run folder: what is in it, make one, open one into a ready network with its classes."""

import json
import platform
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from sancli import __version__, model, weights
from sancli.config.download_weights import is_repository
from sancli.console import say
from sancli.data.preprocessing import Preprocessing
from sancli.errors import WeightsError, closest, command
from sancli.files import storage_errors, write_json

FORMAT = 1


def versions() -> dict[str, str]:
    """What made a file, for whoever reads it later."""
    return {"sancli": __version__, "torch": torch.__version__, "python": platform.python_version()}


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Everything but the numbers that a model needs to be used; it travels inside model.safetensors."""

    name: str
    """Of the run, or of the published network."""
    classes: tuple[str, ...]
    """The network's output i is classes[i]."""
    arch: str
    attention: str
    relation: str | None
    """None: the authors' own for this attention."""
    preprocessing: Preprocessing
    metrics: dict[str, float] = field(default_factory=dict)
    """On val, fractions from 0 to 1, of these very weights."""
    epoch: int = 0
    """Epochs that these weights have learnt for."""
    finished: bool = True
    """False while the run goes on, or where it was stopped."""
    data: dict[str, Any] = field(default_factory=dict)
    """name, path and sha256 (of dataset.json) of what it was trained on."""
    started_from: str = "scratch"
    versions: dict[str, str] = field(default_factory=versions)
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `to_dict` gave.

        Raises:
            KeyError, TypeError: It was not made by `to_dict`.
            ValueError: The class names are missing, empty or not unique.
        """
        classes = tuple(map(str, values["classes"]))
        if len(set(classes)) != len(classes) or not classes:
            raise ValueError("its class names are missing or not unique")
        preprocessing = Preprocessing.from_dict(values["preprocessing"])
        return cls(**values | {"classes": classes, "preprocessing": preprocessing})


@dataclass(frozen=True)
class Run:
    """The folder of one training run, and the names of the files in it."""

    folder: Path

    @property
    def weights(self) -> Path:
        """The best weights, with the ModelInfo inside."""
        return self.folder / "model.safetensors"

    @property
    def info(self) -> Path:
        """The ModelInfo as JSON, to be read by people and by `san runs`."""
        return self.folder / "model.json"

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.folder / "config.toml"

    @property
    def checkpoint(self) -> Path:
        """Everything that --resume needs."""
        return self.folder / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """One row an epoch."""
        return self.folder / "metrics.csv"

    @property
    def log(self) -> Path:
        """What the screen showed."""
        return self.folder / "log.txt"

    def save_model(self, state: dict[str, Tensor], info: ModelInfo) -> None:
        """Writes the weights with their info, then the info beside them: each whole or not at all."""
        weights.save(self.weights, state, info=json.dumps(info.to_dict()))
        write_json(self.info, info.to_dict())

    def read_info(self) -> ModelInfo:
        """The ModelInfo of model.json.

        Raises:
            WeightsError: It is missing or damaged.
        """
        try:
            return ModelInfo.from_dict(json.loads(self.info.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damaged(self.info, error) from None


@dataclass(frozen=True)
class Model:
    """A network that is ready to be asked, with everything that its answers mean."""

    network: nn.Module
    """In eval mode, on the CPU, fp32."""
    info: ModelInfo
    path: Path
    """The file that the weights came from."""
    run: Run | None
    """The run that they belong to; None for a published network or a lone file."""


def create_run(runs_dir: Path, stem: str) -> Run:
    """Makes a new numbered folder: runs/<stem>-001, -002, ...; never one that exists.

    Raises:
        StorageError: The place cannot be written.
    """
    with storage_errors(runs_dir):
        runs_dir.mkdir(parents=True, exist_ok=True)
        taken = [re.fullmatch(rf"{re.escape(stem)}-(\d+)", path.name) for path in runs_dir.iterdir()]
        number = max((int(match[1]) for match in taken if match), default=0)
        while True:
            number += 1
            folder = runs_dir / f"{stem}-{number:03}"
            try:
                folder.mkdir()
            except FileExistsError:  # another process took the number
                continue
            return Run(folder)


def runs_by_age(runs_dir: Path = Path("runs")) -> list[Run]:
    """The runs that hold a model, newest first."""
    found = [Run(path.parent) for path in runs_dir.glob("*/model.json")]
    return sorted(found, key=lambda run: run.info.stat().st_mtime, reverse=True)


def open_model(spec: str | None, *, runs_dir: Path = Path("runs")) -> Model:
    """Opens a run's folder, a file or a published network; without a name, the newest run. Says which.

    Raises:
        WeightsError: It is not there, is damaged, or does not say what its classes are.
    """
    path, run = _newest(runs_dir) if spec is None else _find(spec, runs_dir)
    opened = open_file(path, run)
    info = opened.info
    say(f"Using {path} ({info.arch} {info.attention}, {len(info.classes)} classes)")
    return opened


def open_file(path: Path, run: Run | None = None) -> Model:
    """Opens a file of ours, of a run or alone.

    Raises:
        WeightsError: It is not there, is damaged, or does not say what its classes are.
    """
    info = _embedded_info(path)
    with torch.device("meta"):  # neither memory nor random numbers: the file's own tensors take their place
        network = model.build(
            info.arch, attention=info.attention, relation=info.relation, num_classes=len(info.classes)
        )
    weights.load_into(network, weights.read(path), source=path)
    return Model(network.eval(), info, path, run)


def _newest(runs_dir: Path) -> tuple[Path, Run]:
    if not (runs := runs_by_age(runs_dir)):
        raise WeightsError(
            "there is no trained model here.",
            why=f"looked for {runs_dir}/*/model.json under {Path.cwd()}.",
            fix="san prepare PATH, then san train; or name a model with --model.",
        )
    rank = "the only run" if len(runs) == 1 else f"the newest of {len(runs)} runs"
    say(f"Taking {runs[0].folder}, {rank}")
    if len(runs) > 1:
        say(f"  others: {', '.join(str(run.folder) for run in runs[1:6])}")
    return runs[0].weights, runs[0]


def _find(spec: str, runs_dir: Path) -> tuple[Path, Run | None]:
    path = Path(spec)
    if path.is_dir() and (path / "model.json").is_file():
        return path / "model.safetensors", Run(path)
    if path.is_file():
        return path, Run(path.parent) if (path.parent / "model.json").is_file() else None
    if spec in model.zoo.PUBLISHED:
        return weights.published(spec), None
    if is_repository(spec):
        if (downloaded := weights.cached_repository(spec)).is_file():
            return downloaded, None
        if not path.parent.exists():
            raise WeightsError(
                f"there is no model {spec} here.",
                why="it is no run, no file, and no repository of the Hugging Face Hub that was downloaded.",
                fix=f"{command('san', 'download-weights', spec)}; in Python: load(..., download=True)",
            )
    known = [*(str(run.folder) for run in runs_by_age(runs_dir)), *model.zoo.PUBLISHED]
    raise WeightsError(
        f"there is no model {spec}.",
        why="it is neither a run's folder, nor a file, nor a published network, nor a downloaded repository.",
        fix=closest(spec, known),
    )


CHECKPOINTS = {"last.ckpt", "previous.ckpt"}


def _embedded_info(path: Path) -> ModelInfo:
    if path.name in CHECKPOINTS:
        raise WeightsError(
            f"{path} is what a training goes on from, not a model.",
            why="its weights are those of the last step, not the best ones, and its classes stand beside it.",
            fix=f"--model {path.parent} takes the best weights of that run.",
        )
    text = weights.read_info(path)
    if text is None:
        raise WeightsError(
            f"{path} does not say what its classes are.",
            why="it was not written by sancli.",
            fix="san download-weights NAME --from FILE converts the authors' checkpoints.",
        )
    try:
        return ModelInfo.from_dict(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} does not describe a model.",
        why=f"{type(error).__name__}: {error}.",
        fix="take another run, or train it again.",
    )
