"""Published and foreign checkpoints -> checked tensors; ours are safetensors that describe themselves."""

import json
from pathlib import Path

import safetensors.torch
from torch import Tensor

from sancli.errors import WeightsError
from sancli.files import cache_folder, replacing
from sancli.weights.fitting import Kind, Left, describe, load_into, load_part, recognise
from sancli.weights.reading import METADATA, checksum, read, read_info

__all__ = [
    "Kind",
    "Left",
    "cached",
    "cached_repositories",
    "cached_repository",
    "describe",
    "is_downloaded",
    "load_into",
    "load_part",
    "published",
    "read",
    "read_info",
    "recognise",
    "save",
]


def save(path: Path, state: dict[str, Tensor], *, info: str) -> None:
    """Writes the tensors as safetensors, whole or not at all, with `info` and a checksum in the header.

    Raises:
        StorageError: No space, or a place that cannot be written; the old file is still there.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # one entry: safetensors writes several in random order, and equal weights are to give equal bytes
    metadata = {METADATA: json.dumps({"crc32": checksum(tensors, info), "info": info})}
    with replacing(path) as partial:  # bytes first: safetensors' own writer hides which error the disk gave
        partial.write_bytes(safetensors.torch.save(tensors, metadata))


def cached(name: str) -> Path:
    """Where the published network `name` lies, once it was converted."""
    return cache_folder("weights") / f"{name}.safetensors"


def is_downloaded(name: str) -> bool:
    """Whether the published network `name` is in the cache."""
    return cached(name).is_file()


def cached_repository(name: str) -> Path:
    """Where the model of the repository OWNER/NAME of the Hugging Face Hub lies, once it was downloaded."""
    return cache_folder("weights") / "hub" / f"{name.replace('/', '--')}.safetensors"


def cached_repositories() -> list[str]:
    """The repositories of the Hugging Face Hub whose models are in the cache."""
    found = (cache_folder("weights") / "hub").glob("*--*.safetensors")
    return sorted(path.stem.replace("--", "/") for path in found)


def published(name: str) -> Path:
    """The file of the published network `name`.

    Raises:
        WeightsError: It is not in the cache.
    """
    if not is_downloaded(name):
        raise WeightsError(
            f"the weights of {name} are not here.",
            why=f"looked for {cached(name)}.",
            fix=f"san download-weights {name}",
        )
    return cached(name)
