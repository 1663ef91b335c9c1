"""A run folder: what is in it, make one, open one into a ready network with its classes."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sancli import model, weights
from sancli.config.download_weights import is_repository
from sancli.console import detail, say
from sancli.errors import WeightsError, closest, command
from sancli.files import storage_errors, write_json
from sancli.runs.foreign import info_of_foreign, info_of_part, published_info
from sancli.runs.info import UNLIKE, ModelInfo, versions

__all__ = [
    "Model",
    "ModelInfo",
    "Run",
    "create_run",
    "open_file",
    "open_model",
    "open_part",
    "published_info",
    "runs_by_age",
    "versions",
]

LISTED = 6
"""Tensors that are named on the screen."""


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
        except (OSError, *UNLIKE) as error:
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


def open_model(spec: str | None, *, runs_dir: Path = Path("runs"), nameless: bool = False) -> Model:
    """Opens a run's folder, a file or a published network; without a name, the newest run. Says which.

    Args:
        spec: What the user named.
        runs_dir: Where runs are looked for.
        nameless: A network whose outputs have no names will do: its head is made anew.

    Raises:
        WeightsError: It is not there, is damaged, or does not say what its classes are.
    """
    path, run = _newest(runs_dir) if spec is None else _find(spec, runs_dir)
    opened = open_file(path, run, nameless=nameless)
    info = opened.info
    say(f"Using {path} ({info.arch} {info.attention}, {len(info.classes)} classes)")
    return opened


def open_file(path: Path, run: Run | None = None, *, nameless: bool = False) -> Model:
    """Opens a file of ours, of a run or alone, or one of others that holds a network known here.

    Raises:
        WeightsError: It is not there, is damaged, or does not say what its classes are.
    """
    info = _embedded_info(path)
    state = weights.read(path)
    if info is None:
        info = info_of_foreign(path, state, nameless=nameless)
    with torch.device("meta"):  # neither memory nor random numbers: the file's own tensors take their place
        network = model.build(
            info.arch, attention=info.attention, relation=info.relation, num_classes=len(info.classes)
        )
    weights.load_into(network, state, source=path)
    return Model(network.eval(), info, path, run)


def open_part(
    spec: str, *, arch: str, attention: str, relation: str | None, seed: int, runs_dir: Path = Path("runs")
) -> Model:
    """A network with as much of the file's weights as fits, the rest fresh by the seed. Says what was left.

    Raises:
        WeightsError: The file is not there or damaged, or nothing of it fits.
    """
    path, run = _find(spec, runs_dir)
    described, state = _embedded_info(path), weights.read(path)
    info = info_of_part(path, state, described, arch=arch, attention=attention, relation=relation)
    torch.manual_seed(seed)
    network = model.build(
        arch,
        attention=attention,
        relation=relation,
        num_classes=len(info.classes),
        zero_init_residual=True,
    )
    left = weights.load_part(network, state, source=path)
    count = len(network.state_dict())
    say(f"Using a part of {path}: {count - len(left.fresh)} of {count} tensors of {arch} {attention}")
    for what, names in (("made anew", left.fresh), ("not used", left.unused)):
        if names:
            more = f" and {len(names) - LISTED} more (--verbose names them)" if len(names) > LISTED else ""
            say(f"  {what}: {', '.join(names[:LISTED])}{more}")
            detail(f"  {what}, all: {', '.join(names)}")
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
    for name in (spec, f"{spec}-patchwise"):  # as san download-weights reads san15
        if name in model.zoo.PUBLISHED:
            return weights.published(name), None
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


def _embedded_info(path: Path) -> ModelInfo | None:
    if path.name in CHECKPOINTS:
        raise WeightsError(
            f"{path} is what a training goes on from, not a model.",
            why="its weights are those of the last step, not the best ones, and its classes stand beside it.",
            fix=f"--model {path.parent} takes the best weights of that run.",
        )
    if path.suffix == ".onnx":
        raise WeightsError(
            f"{path} is for other programs.",
            why="san runs its networks in torch, not from ONNX files.",
            fix="--model takes the run that it was exported from, or another export of it.",
        )
    text = weights.read_info(path)
    if text is None:
        return None
    try:
        return ModelInfo.from_dict(json.loads(text))
    except UNLIKE as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} does not describe a model.",
        why=f"{type(error).__name__}: {error}.",
        fix="take another run, or train it again.",
    )
