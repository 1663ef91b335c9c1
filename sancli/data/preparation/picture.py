"""One usable image of the source on its way into a prepared folder."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Picture:
    """Where it comes from, what it shows, and where it goes."""

    path: str
    """Relative to the source, with / between its parts."""
    file: str
    """Where its bytes are now. Text: a million of Path would take half a gigabyte."""
    label: str | None
    """None: unlabelled."""
    split: str | None
    """None: the source does not say, and it was not assigned yet."""
    sha256: str
    width: int
    height: int
    format: str
    group: str | None = None
    """Images of one group go to one split; None: it stands alone."""

    def order(self) -> bytes:
        """Sorts pictures the same way on every system."""
        return os.fsencode(self.path)
