"""Checkpoints that are cut, flipped, spliced, rewritten inside with right sums, or that hold code."""

import io
import json
import pickle
import random
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sancli import weights

State = dict[str, Tensor]
CALLS = ("builtins open", "builtins exec", "builtins eval", "os system", "posix system", "subprocess Popen")
HARMLESS = ("builtins bytearray", "builtins list", "torch zeros", "torch.nn Linear", "collections deque")
KINDS = ("F32", "F64", "F16", "BF16", "I64", "I8", "BOOL", "F33", "F8_E4M3", "")
NUMBERS = (0, -1, 1, 2, 5, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 1e300, -(2**63), None, "5", [], True)
PIECES = (
    b"\0",
    b"\xff" * 8,
    b"{",
    b"}",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x80\x02",
    b"\x80\x04\x95",
    b".",
    b"R",
    b"i",
)
SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt", ".json")


@dataclass(frozen=True)
class Case:
    """A file to be read."""

    suffix: str
    data: bytes
    state: State | None = None
    """What it holds if it is accepted; None: whatever it says."""


def network() -> nn.Module:
    """What the checkpoints are for."""
    return nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 2))


@cache
def good_state() -> State:
    """The tensors of every good checkpoint."""
    torch.manual_seed(0)
    return dict(network().state_dict())


@cache
def good() -> dict[str, bytes]:
    """Good files of every form."""
    state = good_state()
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1, momentum=0.9)
    authors = {
        "epoch": 100,
        "state_dict": {f"module.{name}": value for name, value in state.items()},
        "optimizer": optimizer.state_dict(),
        "top1_val": 78.0,
    }
    return {
        "plain": _torch(state),
        "older": _torch(state, zipped=False),
        "authors": _torch(authors),
        "older authors": _torch(authors, zipped=False),
        "foreign": safetensors.torch.save(state, {"format": "pt"}),
        "ours": _ours(state),
    }


def _torch(content: Any, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _ours(state: State) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "m.safetensors"
        weights.save(path, state, info='{"classes": ["a", "b"]}')
        return path.read_bytes()


def case(draw: random.Random, marker: Path) -> Case:
    """One hostile file; code in it would make `marker`."""
    make: Callable[[random.Random, Path], Case] = draw.choice(
        (
            _damaged,
            _mutated,
            _mutated,
            _repacked,
            _repacked,
            _reheaded,
            _reheaded,
            _retyped,
            _code,
            _growing,
        )
    )
    return make(draw, marker)


def _damaged(draw: random.Random, _marker: Path) -> Case:
    """Cut, or one bit flipped: of a format with sums nothing may be lost without a word."""
    name = draw.choice(["plain", "authors", "ours"])
    data = bytearray(good()[name])
    if draw.random() < 0.3:
        data = data[: draw.randrange(len(data))]
    else:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return Case(draw.choice(SUFFIXES), bytes(data), good_state())


def _mutated(draw: random.Random, _marker: Path) -> Case:
    return Case(draw.choice(SUFFIXES), _mutate(draw, draw.choice([*good().values()])))


def _mutate(draw: random.Random, data: bytes) -> bytes:
    for _ in range(draw.choice((1, 1, 2, 4))):
        start, end = sorted(draw.randint(0, len(data)) for _ in range(2))
        kind = draw.randrange(6)
        if kind == 0:
            data = data[:start] + draw.choice(PIECES) * draw.choice((1, 1, 3)) + data[start:]
        elif kind == 1:
            data = data[:start] + data[min(end, start + draw.randint(1, 40)) :]
        elif kind == 2:
            data = data[:start] + draw.randbytes(draw.choice((1, 1, 2, 8))) + data[start + 1 :]
        elif kind == 3:
            data = data[:start] + data[start:end] * 2 + data[end:]
        elif kind == 4:
            data = data[:start] + draw.choice([*good().values()])[start:end] + data[end:]
        else:
            data = data[:start] + struct.pack("<q", draw.choice((0, -1, 2**31, 2**62))) + data[start + 8 :]
    return data[: 2**20]


def _repacked(draw: random.Random, _marker: Path) -> Case:
    """A member of a torch archive mutated, and packed again with right sums."""
    source = zipfile.ZipFile(io.BytesIO(good()[draw.choice(["plain", "authors"])]))
    chosen = draw.choice([name for name in source.namelist() if draw.random() < 0.4 or name.endswith(".pkl")])
    file = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if draw.random() < 0.1 else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", packing) as archive:
        warnings.simplefilter("ignore")  # of duplicate names
        for name in source.namelist():
            content = _mutate(draw, source.read(name)) if name == chosen else source.read(name)
            if draw.random() < 0.97:
                archive.writestr(name if draw.random() < 0.97 else draw.choice(source.namelist()), content)
    return Case(draw.choice(SUFFIXES), file.getvalue())


def _reheaded(draw: random.Random, _marker: Path) -> Case:
    """A safetensors file whose header says something else, with the right length before it."""
    data = good()[draw.choice(["foreign", "ours"])]
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    for _ in range(draw.choice((1, 1, 2, 3))):
        _change(draw, header)
    text = json.dumps(header).encode()
    if draw.random() < 0.2:
        text = _mutate(draw, text)
    return Case(draw.choice(SUFFIXES), struct.pack("<Q", len(text)) + text + data[8 + length :])


def _change(draw: random.Random, header: dict[str, Any]) -> None:
    name = draw.choice([*header] or [""])
    entry = header.get(name)
    kind = draw.randrange(8)
    if kind == 0:
        header.pop(name, None)
    elif kind == 1:
        header[draw.choice(["module.x", "", "\u0000", "x" * 5000, "\ud800", name + " "])] = entry
    elif kind == 2 or not isinstance(entry, dict) or "shape" not in entry:
        header[name] = draw.choice(
            [*NUMBERS, {}, {"sancli": "{}"}, {"sancli": "[1]"}, {"sancli": '{"crc32": 3}'}]
        )
    elif kind == 3:
        entry["dtype"] = draw.choice(KINDS)
    elif kind == 4:
        entry["shape"] = [draw.choice(NUMBERS) for _ in range(draw.randrange(5))]
    elif kind == 5:
        entry["data_offsets"] = [draw.choice(NUMBERS) for _ in range(draw.choice((0, 1, 2, 2, 2, 3)))]
    elif kind == 6 and isinstance(entry["shape"], list):
        entry["shape"] = [*entry["shape"], draw.choice((0, 1, 1))]
    else:
        entry[draw.choice(["dtype", "shape", "data_offsets"])] = draw.choice(NUMBERS)


def _retyped(draw: random.Random, _marker: Path) -> Case:
    """A whole file of a state that no network should take."""
    state: dict[str, Any] = dict(good_state())
    for _ in range(draw.choice((1, 1, 2))):
        name = draw.choice([*state])
        value = state[name]
        if not isinstance(value, Tensor) or value is not good_state()[name]:  # made odd already
            continue
        odd: list[Callable[[], Any]] = [
            lambda v=value: v * torch.nan,
            lambda v=value: -v - 1,
            lambda v=value: v.to(torch.complex64),
            lambda v=value: v.to(torch.int8),
            lambda v=value: v.double() * 1e300,
            lambda v=value: v[None],
            lambda v=value: v.flatten()[:0],
            lambda: torch.zeros(1).expand(2**20, 2**20),
            lambda: torch.zeros(3, device="meta"),
            lambda: torch.zeros(2, 3).to_sparse(),
            lambda: torch.quantize_per_tensor(torch.zeros(2, 3), 0.1, 0, torch.qint8),
            lambda: torch.zeros(6)[::2],
            lambda: {"deeper": torch.zeros(2)},
            lambda: draw.choice(NUMBERS),
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are on their way out
            state[name] = draw.choice(odd)()
    key = draw.choice(["state_dict", "model", "module", None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = _torch(state if key is None else {key: state, "epoch": 3}, zipped=draw.random() < 0.7)
    return Case(draw.choice(SUFFIXES), data)


class Payload:
    """Unpickled by a careless reader, it makes a file."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        """The call that a careless reader makes."""
        return self.call


def _code(draw: random.Random, marker: Path) -> Case:
    """Code in a pickle, by itself or in a checkpoint, in every form; sometimes damaged as well."""
    if draw.random() < 0.4:
        data = _spelled(draw, marker)
    else:
        text = f"open({str(marker)!r}, 'w')"
        payload = draw.choice((Payload(open, str(marker), "w"), Payload(exec, text), Payload(eval, text)))
        place = draw.choice(("state", "beside", "key", "alone"))
        content: dict[str, Any] = {"state_dict": dict(good_state())}
        if place == "state":
            content["state_dict"]["evil"] = payload
        else:
            content["evil"] = payload
        if place == "alone":
            data = pickle.dumps(payload, protocol=draw.randrange(6))
        else:
            data = _torch(content, zipped=draw.random() < 0.6)
    return Case(draw.choice(SUFFIXES), _mutate(draw, data) if draw.random() < 0.5 else data)


def _spelled(draw: random.Random, marker: Path) -> bytes:
    """A pickle written opcode by opcode: names found by GLOBAL, INST, STACK_GLOBAL or the memo."""
    module, name = draw.choice((*CALLS, *HARMLESS)).split()
    argument = b"X" + struct.pack("<I", len(str(marker))) + str(marker).encode()
    found = {
        "global": b"c" + f"{module}\n{name}\n".encode(),
        "stack": _short(module) + _short(name) + b"\x93",
        "memo": _short(module) + b"\x94" + _short(name) + b"\x940" + b"0h\x00h\x01\x93",
        "swapped": _short(name) + b"\x94" + _short(module) + b"h\x00\x93",
        "dotted": _short("torch") + _short(f"{module}.{name}") + b"\x93",
        "inst": b"(" + argument + f"i{module}\n{name}\n".encode(),
    }
    way = draw.choice([*found])
    call = found[way] if way == "inst" else found[way] + b"(" + argument + b"tR"
    pickled = b"\x80\x04" + call + b"."
    if draw.random() < 0.5:
        return pickled
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # pickles by several names, the first one harmless
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/version", "3\n")
        if draw.random() < 0.5:
            archive.writestr(
                draw.choice(["a/DATA.PKL", "a/code/x.py", "a/constants.pkl", "b/data.pkl"]), pickled
            )
    return file.getvalue()


def _growing(draw: random.Random, _marker: Path) -> Case:
    """Harmless calls, each of what the one before gave: they would fill the memory from a few bytes."""
    endless = _storage() + b"K\x00J" + struct.pack("<i", 2**21) + b"\x85K\x00\x85\x89"
    endless = b"ctorch._utils\n_rebuild_tensor_v2\n(" + endless + b"ccollections\nOrderedDict\n)RtR"
    start = draw.choice((endless, _word("a" * 64), _storage(), b"]" * 1000, b"\x8f" * 5000))
    names = ("collections Counter", "collections OrderedDict", "torch Size", "torch.storage UntypedStorage")
    functions, arguments = b"", b""
    for _ in range(draw.choice((1, 2, 22))):
        if draw.random() < 0.5:
            functions += b"c_codecs\nencode\n"
            arguments += draw.choice((_word("hex"), _word("latin1"), _word("%HEX"))) + b"\x86R"
        else:
            functions += b"c" + draw.choice((*names, "__builtin__ set")).replace(" ", "\n").encode() + b"\n"
            arguments += draw.choice((b"\x85R", b"R", b"\x85\x81", b"b"))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + functions + start + arguments + b".")
        archive.writestr("a/version", "3\n")
        archive.writestr("a/byteorder", "little")
        archive.writestr("a/data/0", bytes(4))
    return Case(draw.choice(SUFFIXES), file.getvalue())


def _storage() -> bytes:
    """Opcodes of the numbers of a tensor."""
    words = _word("storage") + b"ctorch\nFloatStorage\n" + _word("0") + _word("cpu")
    return b"(" + words + b"K\x01tQ"


def _word(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()
