"""Checkpoints: tensors and plain values, written whole or not at all; the one before the newest is kept."""

import hashlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from sancli.console import warn
from sancli.errors import StorageError, WeightsError, command
from sancli.files import replacing

State = dict[str, Any]
DIGEST_BYTES = 32
"""A sha256 behind the archive, which torch.load passes over: it does not notice a flipped bit itself."""


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest is kept: previous.ckpt beside last.ckpt."""
    return path.with_name(f"previous{path.suffix}")


def save(path: Path, state: State) -> None:
    """Writes the state; what was there becomes the previous one.

    Raises:
        StorageError: No space, or the folder is gone; the old checkpoint is still there.
    """
    file = io.BytesIO()
    torch.save(state, file)  # in memory first: onto a full disk, torch's own writer hides the reason
    content = file.getvalue()
    if not path.parent.is_dir():
        raise StorageError(
            f"{path.parent} is gone.",
            why="the run folder was moved or deleted while the run went on.",
            fix="start the run again.",
        )
    with replacing(path) as partial:
        partial.write_bytes(content + hashlib.sha256(content).digest())
        if path.exists():
            _keep(path)


def _keep(path: Path) -> None:
    previous(path).unlink(missing_ok=True)
    try:
        os.link(path, previous(path))  # costs neither time nor space
    except OSError:  # a disk without hard links
        shutil.copyfile(path, previous(path))


def exists(path: Path) -> bool:
    """Whether there is a checkpoint, the newest or the one before."""
    return path.exists() or previous(path).exists()


def load(path: Path) -> State:
    """The newest checkpoint that can be read; says so loudly when that is the one before.

    Raises:
        WeightsError: There is none, or none can be read.
    """
    reasons = []
    for candidate in (path, previous(path)):
        try:
            state = _read(candidate)
        except (ValueError, OSError) as error:
            reasons.append(f"{candidate.name}: {error}")
            continue
        if reasons:
            warn(f"{path} cannot be used ({reasons[0]}); going on from {candidate}, the one before.")
        return state
    raise WeightsError(
        f"{path.parent} has no checkpoint that can be read.",
        why=f"{'; '.join(reasons)}.",
        fix=f"start a new run from its best weights: {command('san', 'train', '--weights', path.parent)}",
    )


def _read(path: Path) -> State:
    """The state in a file, without running any code that it may hold."""
    content = path.read_bytes()
    if not content:
        raise ValueError("it is empty")
    content, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError(f"damaged: its {len(content):,} bytes are not those that were written")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # another's file; torch's own text would advise to run the code in it
        raise ValueError(f"no checkpoint of sancli ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise ValueError("it is no checkpoint")
    return state
