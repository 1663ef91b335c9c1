"""How far an archive may expand: what comes out of it is counted, whatever its headers say."""

from pathlib import Path

from sancli.console import size
from sancli.errors import DataError

FREE_EXPANSION = 100 * 2**20
"""Bytes that any archive may expand to; a bomb is stopped before it has written more."""
MAX_EXPANSION = 200
"""Times its own size that an archive may expand to: drawings in flat colours stay under 100 as BMP."""


class Budget:
    """Counts what every layer of one archive expands to, those of archives in it too.

    Args:
        path: The outermost archive, or a folder of some.
        own: Their size, which nothing inside can lie about.
    """

    def __init__(self, path: Path, own: int) -> None:
        self.path, self.own = path, own
        self.limit = max(FREE_EXPANSION, MAX_EXPANSION * self.own)
        self.spent = 0

    def expect(self, count: int) -> None:
        """Refuses `count` more bytes before they are made, where there are too many.

        Raises:
            DataError: It may be a bomb.
        """
        if self.spent + count > self.limit:
            raise DataError(
                f"{self.path} expands past {size(self.limit)}; nothing was kept.",
                why=f"it is {size(self.own)} itself, and no set of images packs that well: it may be a bomb.",
                fix="unpack it yourself if you trust it, then give the folder to san prepare.",
            )

    def add(self, count: int) -> None:
        """Counts bytes that have come out.

        Raises:
            DataError: There are too many.
        """
        self.expect(count)
        self.spent += count
