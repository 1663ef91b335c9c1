"""What a torch checkpoint would call when it is opened, read from its opcodes: nothing is executed here.

torch.load(weights_only=True) is the lock; this stands before it, because it can name what it found, refuses
the few harmless calls that can still fill the memory (bytearray), and knows every version of pickle.
"""

import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

NEEDED = re.compile(  # what tensors in dicts and lists are made of
    r"collections\.(OrderedDict|Counter|defaultdict)|builtins\.(set|complex)|_codecs\.encode"
    r"|torch(\.storage)?\.\w+Storage|torch\.(Size|device|b?float\d+|u?int\d+|bool|complex\d+)"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|parameter)|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.serialization\._get_layout"
)
LEGACY_PICKLES = (
    5  # torch's older form: magic number, version, system, content, storage names; then raw numbers
)


def foreign_call(path: Path) -> str | None:
    """The first name in the file that no checkpoint needs, such as builtins.open; None where there is none.

    Raises:
        ValueError, EOFError, zipfile.BadZipFile, ...: It is damaged.
    """
    for name in _names(path):
        if not NEEDED.fullmatch(name):
            return name
    return None


def _names(path: Path) -> Iterator[str]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(".pkl"):
                    with archive.open(member) as file:
                        yield from _called(file)
        return
    with path.open("rb") as file:
        for _ in range(LEGACY_PICKLES):
            yield from _called(file)


def _called(file: IO[bytes]) -> Iterator[str]:
    words = ["", ""]
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".").replace("__builtin__", "builtins")
        elif opcode.name == "STACK_GLOBAL":  # takes the two words before it
            yield ".".join(words[-2:])
        elif isinstance(argument, str):
            words.append(argument)
