"""Whether a disk has room for what is to be written: said before the first byte, not after half of them."""

from pathlib import Path

from sancli.console import size
from sancli.errors import StorageError
from sancli.files import free_bytes


def check_room(needed: int, to: Path, task: str) -> None:
    """Refuses to begin what cannot end.

    Args:
        needed: Bytes that will be written.
        to: A folder on the disk.
        task: What they are needed for, as in "copy the images".

    Raises:
        StorageError: They are not free.
    """
    if needed > (free := free_bytes(to)):
        raise StorageError(
            f"no space to {task}.",
            why=f"it needs {size(needed)}, and {size(free)} are free at {to.parent}.",
            fix="free some space, or name an OUT on another disk.",
        )
