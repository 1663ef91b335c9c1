"""What the user sees: everything printed passes through here.

Results go to stdout, so they can be piped; everything said about the work goes to stderr. With --json, stdout
holds one JSON object and nothing else.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.errors import LiveError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sancli.errors import SanError, command, printable

T = TypeVar("T")
LINE_INTERVAL = 2.0
"""Seconds between two lines of progress in a log file: quick work gets its last line alone."""
people = Console(stderr=True, highlight=False, markup=False, emoji=False)
results = Console(highlight=False, markup=False, emoji=False)


@dataclass
class Settings:
    """How much is said, and in which form: the options that every command shares."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    emitted: bool = False
    """Whether the object of --json is out."""


settings = Settings()


class Log:
    """Remembers what was said, and writes it to a file as long as there is one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.path: Path | None = None

    def add(self, text: str) -> None:
        """Takes one line, or several."""
        if self.path is None:
            self.lines.append(text)
            return
        with suppress(OSError), self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")  # a full disk stops the work where it matters, and says so there


log = Log()


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Adds to `path` what was said so far, what is said in the block, and the error that ends it."""
    log.path = path
    log.add("\n".join(log.lines))
    log.lines.clear()
    try:
        yield
    except SanError as error:
        log.add(str(error))
        raise
    finally:
        log.path = None


def silence() -> None:
    """Nothing more is shown by this process: another one of the same work speaks."""
    people.quiet = results.quiet = True
    settings.json = False


def say(text: str, *, style: str = "") -> None:
    """One line about the work, on stderr; not with --quiet."""
    log.add(printable(text, keep="\n"))
    if not settings.quiet:
        people.print(Text(printable(text, keep="\n"), style=style), soft_wrap=True)


def detail(text: str) -> None:
    """A line for --verbose alone."""
    if settings.verbose:
        say(text, style="dim")


def warn(text: str) -> None:
    """Something the user should know, on stderr, also with --quiet."""
    log.add(printable(f"Warning: {text}", keep="\n"))
    people.print(Text(printable(f"Warning: {text}", keep="\n"), style="yellow"), soft_wrap=True)


def error(text: str) -> None:
    """Why the command ends here, on stderr."""
    people.print(Text(printable(text, keep="\n"), style="red"), soft_wrap=True)


def result(content: str | RenderableType) -> None:
    """A result for people, on stdout; with --json on stderr."""
    out = people if settings.json else results
    out.print(Text(printable(content, keep="\n")) if isinstance(content, str) else content, soft_wrap=True)


def emit(content: dict[str, Any]) -> None:
    """The one JSON object of --json; nothing without it, and nothing after the first."""
    if settings.json and not settings.emitted:
        settings.emitted = True
        sys.stdout.write(json.dumps(content) + "\n")


def drawable(char: str, plain: str) -> str:
    """The character where stdout can show it, else the plain one."""
    try:
        char.encode(results.encoding)
    except (UnicodeEncodeError, LookupError):
        return plain
    return char


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """Rows under a header, numbers to the right; hand it to `result`."""
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    rows = [list(row) for row in rows]
    for column, name in enumerate(header):
        numeric = all(isinstance(row[column], int | float) for row in rows)
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(printable(value)) for value in row))
    return grid


def next_command(*words: object) -> None:
    """The last line of a command that went well: what to type now, ready to paste."""
    say(f"Next: {command(*words)}", style="bold")


@contextmanager
def progress(what: str, *, total: int, unit: str, lines: bool = True) -> Iterator["Bar"]:
    """A bar that moves on a terminal; in a log file a line for each tenth of the work, none for quick work.

    Without `lines` a log file gets none: the caller says better ones.
    """
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
    fields = (TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("{task.fields[extra]}"))
    live = people.is_terminal and not settings.quiet
    with _Narrow(*columns, *fields, console=people, disable=not live, transient=True) as rich_bar:
        yield Bar(rich_bar, what, total=total, unit=unit, lines=lines)


class _Narrow(Progress):
    """Leaves room for the ^C that a terminal writes behind it: in a new line that would keep the old bar."""

    def get_renderables(self) -> Iterator[RenderableType]:
        for renderable in super().get_renderables():
            yield Constrain(renderable, people.width - len("^C "))


class Bar:
    """Counts what is done; `progress` makes it."""

    def __init__(self, rich_bar: Progress, what: str, *, total: int, unit: str, lines: bool) -> None:
        self.lines = lines and rich_bar.disable
        self.rich_bar, self.what, self.total, self.unit = rich_bar, what, total, unit
        self.task = rich_bar.add_task(what, total=total, rate="", extra="")
        self.began = self.came = self.last_line = time.monotonic()
        self.done = self.said = self.first = 0

    def advance(self, count: int = 1, *, extra: str = "") -> None:
        """Adds `count` to what is done; `extra` stands at the end of the line."""
        now = time.monotonic()
        if self.done == 0:
            self.first, self.came = count, now
        self.done += count
        rate = f"{self.done / max(now - self.began, 1e-9):.1f} {self.unit}/s"
        self.rich_bar.update(self.task, completed=self.done, rate=rate, extra=extra)
        if self.lines:
            time_left = f", {duration(self._left(now))} left" if self.done < self.total else ""
            self._say_a_tenth(f"{self.what} {self.done}/{self.total} {rate}{time_left} {extra}".rstrip())

    def _left(self, now: float) -> float:
        """Seconds, at the pace since the first came: what was started before says nothing of the others."""
        if self.done == self.first:
            return (now - self.began) * (self.total - self.done) / max(self.done, 1)
        return (now - self.came) * (self.total - self.done) / (self.done - self.first)

    def _say_a_tenth(self, line: str) -> None:
        tenth, now = self.done * 10 // max(self.total, 1), time.monotonic()
        if tenth > self.said and (now - self.last_line >= LINE_INTERVAL or self.done == self.total):
            self.said, self.last_line = tenth, now
            say(line)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Something that turns on a terminal while the block goes on; nothing in a log or beside a moving bar."""
    with ExitStack() as stack:
        if people.is_terminal and not settings.quiet:
            with suppress(LiveError):  # one thing moves at a time
                stack.enter_context(people.status(printable(what)))
        yield


def track(items: Iterable[T], what: str, *, total: int, unit: str) -> Iterator[T]:
    """Passes the items on and shows how many are done, how fast, and how long is left."""
    with progress(what, total=total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance()


def duration(seconds: float) -> str:
    """The time in words: 45 s, 12 min, 1 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def size(count: float) -> str:
    """Bytes in words: 512 B, 3.4 MiB, 1.2 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def plural(count: int, thing: str, things: str | None = None) -> str:
    """The count with its noun: 1 image, 2 images, 10,900 images."""
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"
