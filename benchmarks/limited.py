"""Runs stages one after the other in a process of their own, each within a limit of time.

A stage that raises, hangs or takes its process along loses what it had not yet given, and nothing else: the
next one gets a fresh process. An error on a GPU leaves a process that can do nothing more there.
"""

import contextlib
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

Figures = dict[str, Any]
Stage = Callable[[Any, float], Iterator[Figures]]
"""Given settings, and when on the clock of time.time() to be done; gives its figures part by part."""
GRACE = 10.0
"""Seconds that a stage may overrun: it looks at the clock between its parts alone."""


class Worker:
    """The process; it starts with the first stage."""

    def __init__(self, stages: dict[str, Stage]) -> None:
        self.stages = stages
        self.process: Any = None
        self.connection: Any = None

    def run(self, name: str, settings: Any, seconds: float) -> tuple[Figures, Figures]:
        """The figures of a stage, and how it went: status and seconds."""
        if self.process is None:
            self._start()
        began = time.time()
        self.connection.send((name, settings, began + seconds))
        figures: Figures = {}
        status = "stopped: out of time"
        try:
            while self.connection.poll(max(0.0, began + seconds + GRACE - time.time())):
                kind, content = self.connection.recv()
                if kind == "end":
                    status = content
                    break
                figures = merged(figures, content)
        except EOFError:
            self.process.join()
            status = f"failed: its process ended with {self.process.exitcode}"
        if status != "ok":
            self.stop()
        return figures, {"status": status, "seconds": round(time.time() - began, 1)}

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.stages), daemon=False)
        self.process.start()
        theirs.close()

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
        self.process = self.connection = None


def merged(figures: Figures, part: Figures) -> Figures:
    """Lists grow, dicts are joined, anything else is replaced."""
    joined = dict(figures)
    for key, value in part.items():
        before = joined.get(key)
        if isinstance(value, list) and isinstance(before, list):
            joined[key] = before + value
        elif isinstance(value, dict) and isinstance(before, dict):
            joined[key] = merged(before, value)
        else:
            joined[key] = value
    return joined


def serve(connection: Connection, stages: dict[str, Stage]) -> None:
    """The process's own loop: a stage, its parts, how it ended."""
    with contextlib.suppress(EOFError):  # nobody asks any more
        while True:
            name, settings, until = connection.recv()
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                connection.send(("end", attempted(connection, stages[name], settings, until)))


def attempted(connection: Connection, stage: Stage, settings: Any, until: float) -> str:
    """Sends what a stage gives; how it ended."""
    try:
        for part in stage(settings, until):
            connection.send(("part", part))
    except Exception as error:  # whatever it is, it stands in the results, and the next stage runs
        traceback.print_exc()
        return f"failed: {type(error).__name__}: {str(error)[:500]}"
    return "ok"
