"""A file from anywhere -> its tensors, without ever running what may be in it."""

import json
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sancli.console import size
from sancli.errors import WeightsError
from sancli.weights.pickles import MOST_OPCODES, TooLong, foreign_call

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
DIRECTORY = 0x10
"""An attribute of a zip's member. torch takes no bytes of one that has it, and gives memory as it lies."""
METADATA = "sancli"  # the entry of a safetensors header that is ours
LONGEST_HEADER = (
    100_000_000  # the safetensors library's own limit; eight letters of text make a larger number
)
MOST_HEADER = 4_000_000
"""Bytes of a header that are read: it fills the memory twenty times over; 2,000 tensors have 0.3 MB."""
NOT_WEIGHTS = (  # how other files begin that are found under the name of a checkpoint
    (rb"\s*<", "an HTML page; a download most likely brought an error message"),
    (rb"version https://git-lfs", "a git-LFS pointer: the file itself was not fetched (git lfs pull)"),
    (rb"\x00{8}", "zeros: the disk or the download failed"),
    (rb"\s*[{\[]", "JSON"),
    (rb"\x1f\x8b", "gzip; unpack it first"),
    (rb"\x89PNG|\xff\xd8\xff", "an image"),
)
SAFETENSORS_FAULTS = {  # the library's words -> ours
    "HeaderTooSmall": "it ends within its header",
    "HeaderTooLarge": "its header has an impossible size",
    "InvalidHeaderLength": "its header has an impossible size",
    "InvalidHeader": "its header is damaged",
    "MetadataIncompleteBuffer": "bytes are missing or too many at its end",
    "InvalidOffset": "its header places tensors where none can be",
    "TensorInvalidInfo": "its header gives sizes that contradict each other",
    "ValidationOverflow": "its header gives impossible sizes",
}


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a torch checkpoint, under their bare names.

    Of a checkpoint with more in it (the authors' have optimizer and scheduler) the `state_dict` is taken;
    the prefix `module.` that nn.DataParallel leaves is dropped.

    Raises:
        WeightsError: The file is missing, damaged, something else, or holds code.
    """
    if _is_safetensors(path, _head(path)):
        return _read_safetensors(path)
    content = _read_torch(path)
    return _checked_sizes(path, _without_prefix(_state_dict(path, content)))


def read_info(path: Path) -> str | None:
    """The description that `save` put into the header, and None where there is none; reads no tensors.

    Raises:
        WeightsError: The file is missing, damaged or something else.
    """
    if not _is_safetensors(path, _head(path)):
        return None
    return _description(path).get("info")


def checksum(tensors: Mapping[str, Tensor], info: str) -> str:
    """CRC-32 over the description and the tensors by name: safetensors has none of its own."""
    crc = zlib.crc32(info.encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def _head(path: Path) -> bytes:
    if path.is_symlink() and not path.exists():
        raise _missing(path, f"it is a link to {path.readlink()}, which is not there")
    if not path.exists():
        raise _missing(path, "there is no such file")
    if not path.is_file():
        raise _refused(path, "it is a folder" if path.is_dir() else "it is not a regular file")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise _refused(path, f"it cannot be read: {error.strerror}") from None
    if not head:
        raise _refused(path, "it is empty (0 bytes)")
    return head


def _is_safetensors(path: Path, head: bytes) -> bool:
    """Decides by content, and refuses at once what is neither safetensors nor torch's."""
    header_length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header_length <= LONGEST_HEADER:
        if header_length > MOST_HEADER:
            raise _refused(path, f"its header has {size(header_length)}, more than any network needs")
        return True
    for start, what in NOT_WEIGHTS:
        if re.match(start, head):
            raise _refused(path, f"it is {what}")
    return path.suffix == ".safetensors" and not head.startswith((ZIP, PICKLE))


def _description(path: Path) -> dict[str, str]:
    """What `save` put into the header: `info` and its `crc32`; nothing in a file of others."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(json.loads((file.metadata() or {}).get(METADATA, "{}")))
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise _refused(path, _safetensors_fault(error)) from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    description = _description(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise _refused(path, _safetensors_fault(error)) from None
    if "crc32" in description and checksum(tensors, str(description.get("info"))) != description["crc32"]:
        raise _refused(path, "its checksum is wrong: bytes have changed since it was written")
    return tensors


def _safetensors_fault(error: Exception) -> str:
    known = next((text for name, text in SAFETENSORS_FAULTS.items() if name in str(error)), None)
    return f"it is no whole safetensors file: {known or _first_line(error)}"


def _read_torch(path: Path) -> Any:
    if _head(path).startswith(ZIP) and (fault := _archive_fault(path)):
        raise _refused(path, fault)
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):  # our error says it
            if name := foreign_call(path):
                raise _code(path, name)
            # given a path, torch would look at its ending
            return torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except TooLong:
        raise _refused(path, f"it has over {MOST_OPCODES:,} parts, more than any network needs") from None
    except Exception as error:  # a damaged or hostile pickle raises nearly any kind
        # torch's own text is not shown: it advises to switch the check off
        fault = "memory is short" if isinstance(error, MemoryError) else "it is damaged"
        raise _refused(path, f"{fault}, or it is neither safetensors nor a torch checkpoint") from None


def _archive_fault(path: Path) -> str | None:
    """What is wrong with an archive that torch would believe: it checks neither sums nor sizes."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            content = any(member.filename.endswith("data.pkl") for member in members)
            whole = sum(member.file_size for member in members) <= path.stat().st_size
            if not (stored and content and whole):
                return "it is an archive, but no checkpoint of torch's"
            for member in members:
                if member.external_attr & DIRECTORY and member.file_size:
                    return f"it is damaged: {member.filename} is marked as a folder"
            if damaged := archive.testzip():
                return f"it is damaged: the checksum of {damaged} is wrong"
    except Exception as error:  # a damaged or hostile archive raises nearly any kind
        if "not a zip file" in str(error):
            return "its end is missing: the file was cut short"
        return f"it is truncated or damaged: {_first_line(error)}"
    return None


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    # the methods of dict itself: a pickle can put other things under the names of an OrderedDict's
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(dict.get(content, key), dict):
            content = dict.get(content, key)
    if not isinstance(content, dict) or not content:
        raise _refused(path, f"it holds no state dict but a {type(content).__name__}")
    for name, value in dict.items(content):
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _refused(path, f"it holds no state dict: {name!r} is a {type(value).__name__}")
    return {name: value.detach() for name, value in dict.items(content)}


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    wrapped = all(name.startswith("module.") for name in state)
    return {name.removeprefix("module."): value for name, value in state.items()} if wrapped else state


def _checked_sizes(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Refuses tensors that are larger than the file: a few KB can claim terabytes by a stride of 0."""
    for name, value in state.items():
        if value.layout is not torch.strided or value.is_meta or value.is_quantized:
            raise _refused(path, f"{name} is not a plain tensor")
    claimed = sum(value.numel() * value.element_size() for value in state.values())
    if claimed > path.stat().st_size:
        raise _refused(path, f"its tensors claim {size(claimed)}, the file has {size(path.stat().st_size)}")
    return state


def _first_line(error: Exception) -> str:
    return json.dumps(str(error).strip().split("\n")[0][:120])


def _code(path: Path, name: str) -> WeightsError:
    return WeightsError(
        f"{path} is refused: contains code ({name}).",
        why="a checkpoint needs nothing but tensors; nothing in it was run.",
        fix="take the file from a source you trust, best as safetensors.",
    )


def _missing(path: Path, why: str) -> WeightsError:
    return WeightsError(f"{path} does not exist.", why=f"{why}.", fix="check the path.")


def _refused(path: Path, why: str) -> WeightsError:
    return WeightsError(
        f"{path} holds no usable weights.", why=f"{why}.", fix="take another file, or fetch this one again."
    )
