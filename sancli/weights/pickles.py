"""What a torch checkpoint would call when it is opened, read from its opcodes: nothing is executed here.

torch.load(weights_only=True) is the lock; this stands before it, because it can name what it found, knows
every version of pickle, and refuses the harmless calls that fill the memory from a few bytes: bytearray of a
number, a set of the parts of a tensor whose stride is 0, hexadecimal digits of hexadecimal digits.
"""

import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

NEEDED = re.compile(  # what tensors in dicts and lists are made of
    r"collections\.(OrderedDict|Counter|defaultdict)|builtins\.(set|complex)|_codecs\.encode"
    r"|torch(\.storage)?\.\w+Storage|torch\.(Size|device|b?float\d+|u?int\d+|bool|complex\d+)"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|parameter)|torch\.serialization\._get_layout"
)
REBUILDS = "torch._utils._rebuild_"
LEGACY_PICKLES = (
    5  # torch's older form: magic number, version, system, content, storage names; then raw numbers
)
MOST_OPCODES = 500_000
"""Of one pickle: a SAN15 with its optimizer has 27,000. One byte can make an object of 216, an empty set."""

Value = Any
"""What is on the stack: a Name, RESULT, MARK, a text, a tuple of values; None stands for all the rest, which
is about as large as its opcodes."""
RESULT = object()
"""What a call gave, or the numbers of a tensor: as large as it pleases."""
MARK = object()


class Name(str):
    """The full name of a function or a class."""

    __slots__ = ()


class TooLong(Exception):  # noqa: N818 -- it says what was found
    """A pickle has more opcodes than any checkpoint."""


def foreign_call(path: Path) -> str | None:
    """The first name or call in the file that no checkpoint needs, such as builtins.open; or None.

    Raises:
        TooLong: Its pickles would make too many objects.
        ValueError, EOFError, IndexError, zipfile.BadZipFile, ...: It is damaged.
    """
    return next((name for file in _pickles(path) for name in _foreign(file)), None)


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    """The file as often as pickles stand in it, each time where the next one begins."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(LEGACY_PICKLES):
                yield file
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.endswith(".pkl"):
                with archive.open(member) as content:
                    yield content


def _foreign(file: IO[bytes]) -> Iterator[str]:
    stack: list[Value] = []
    memo: dict[Value, Value] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count == MOST_OPCODES:
            raise TooLong
        match opcode.name:
            case "GLOBAL":
                stack.append(_name(str(argument)))
            case "STACK_GLOBAL":  # takes the two words before it
                stack[-2:] = [_name(f"{stack[-2]} {stack[-1]}")]
            case "REDUCE" | "NEWOBJ":
                function, arguments = stack[-2:]
                stack[-2:] = [RESULT]
                if not _is_needed(function, arguments):
                    yield str(function)
            case "INST" | "OBJ" | "NEWOBJ_EX":  # no checkpoint has them
                yield _name(argument) if argument else opcode.name
            case "BUILD":
                if stack.pop() is RESULT:
                    yield "a state that was computed"
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case _:
                _move(stack, opcode, argument)
        if stack and isinstance(stack[-1], Name) and not NEEDED.fullmatch(stack[-1]):
            yield stack[-1]


def _name(words: str) -> Name:
    return Name(words.replace(" ", ".").replace("__builtin__", "builtins"))


def _move(stack: list[Value], opcode: pickletools.OpcodeInfo, argument: Value) -> None:
    """What the other opcodes do to the stack, as pickletools describes it."""
    before, after = opcode.stack_before, opcode.stack_after
    taken = _down_to_mark(stack) if pickletools.markobject in before else []
    fixed = [kind for kind in before if kind not in (pickletools.markobject, pickletools.stackslice)]
    taken = [stack.pop() for _ in fixed][::-1] + taken
    if opcode.name == "MARK":
        stack.append(MARK)
    elif opcode.name in ("PERSID", "BINPERSID"):
        stack.append(RESULT)
    elif pickletools.pytuple in after:
        stack.append(tuple(taken))
    elif opcode.name == "DUP":
        stack += taken * 2
    else:
        stack += [argument if isinstance(argument, str) else None for _ in after]


def _down_to_mark(stack: list[Value]) -> list[Value]:
    taken = []
    while (value := stack.pop()) is not MARK:
        taken.append(value)
    return taken[::-1]


def _is_needed(function: Value, arguments: Value) -> bool:
    """Whether a checkpoint makes such a call: what it gives is then about as large as what it is given."""
    if not isinstance(function, Name):
        raise ValueError("it calls what is no function")
    if not isinstance(arguments, tuple) or function.endswith("Storage"):
        return False
    if function.startswith(REBUILDS):  # of a storage, or of what another one gave: neither is gone through
        return not any(isinstance(value, Name) for value in arguments)
    if function == "_codecs.encode":
        return arguments[1:] == ("latin1",)
    return not any(value is RESULT or isinstance(value, Name) for value in arguments)
