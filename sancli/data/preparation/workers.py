"""Processes that look at files which nobody trusts: each file has a bound on time and memory, and may crash.

A worker tells the result of every file as it comes, so that where it dies the file to blame is known.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from sancli.data.preparation.bounds import NO_MEMORY, OVERTIME, Bounds, limit_memory, limited_time

T = TypeVar("T")
Work = Callable[[Path], T]
CHUNK = 16
"""Files handed to a worker while it has as many still: it never waits, and leaves few where it dies."""


@dataclass(frozen=True)
class Lost:
    """Stands for the result of a file on which its worker died."""

    reason: str


@dataclass
class Worker:
    """One process, and the files that it was handed and has not told of, by index: it is at the first."""

    process: BaseProcess
    pipe: "connection.Connection[Any, Any]"
    held: deque[int] = field(default_factory=deque)
    ready: bool = False

    @classmethod
    def start(cls, work: Work[Any], bounds: Bounds) -> "Worker":
        """A fresh one, on every system: a fork would copy locks that other threads hold."""
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=serve, args=(theirs, work, bounds), daemon=True)
        process.start()
        theirs.close()
        return cls(process, ours)

    def take(self, todo: deque[int], paths: Sequence[str | Path]) -> None:
        """Hands it more files, unless it has enough."""
        if todo and len(self.held) <= CHUNK:
            chunk = [todo.popleft() for _ in range(min(CHUNK, len(todo)))]
            self.held.extend(chunk)
            with suppress(OSError):  # it is dead, which shows where its results are read
                self.pipe.send([paths[index] for index in chunk])

    def told(self) -> Iterator[tuple[int, Any]]:
        """What it has told by now.

        Raises:
            EOFError: It has died.
        """
        while self.pipe.poll():
            try:
                result = self.pipe.recv()
            except OSError:
                raise EOFError from None
            if isinstance(result, Exception):
                raise result
            if self.ready:
                yield self.held.popleft(), result
            self.ready = True  # that is the first thing a worker tells

    def end(self) -> int | None:
        """Ends it, if it has not died, and gives the exit code."""
        self.pipe.close()
        self.process.join(1)  # where its end was seen it has closed its files, and is about to be gone
        self.process.kill()
        self.process.join()
        return self.process.exitcode


class Crew(Generic[T]):
    """Some workers on one row of files.

    Args:
        work: Raises nothing, and can be sent to another process.
        paths: Files.
        bounds: Of each.
        workers: How many.
    """

    def __init__(self, work: Work[T], paths: Sequence[str | Path], bounds: Bounds, workers: int) -> None:
        self.work, self.paths, self.bounds, self.size = work, paths, bounds, workers
        self.todo = deque(range(len(paths)))
        self.suspects: set[int] = set()
        self.workers: list[Worker] = []

    def results(self) -> Iterator[tuple[int, T | Lost]]:
        """The index of every path and what was made of it, in any order.

        A file at which a worker dies is tried once more, unless its time was over: another program may have
        used up the memory. Where no process can be had at all, the work is done in this one.
        """
        try:
            while self.todo or any(worker.held for worker in self.workers):
                while len(self.workers) < self.size and self.todo:
                    self.workers.append(Worker.start(self.work, self.bounds))
                for worker in self.workers:
                    worker.take(self.todo, self.paths)
                for worker in self._heard():
                    try:
                        yield from worker.told()
                    except EOFError:
                        yield from self._buried(worker)
        finally:
            for worker in self.workers:
                worker.process.kill()
                worker.end()

    def _heard(self) -> list[Worker]:
        """Those that have told something, or died; waits for one."""
        pipes = connection.wait([worker.pipe for worker in self.workers])
        return [worker for worker in self.workers if worker.pipe in pipes]

    def _buried(self, worker: Worker) -> Iterator[tuple[int, T | Lost]]:
        """Finds who is to blame, and gives the rest to others."""
        self.workers.remove(worker)
        code = worker.end()
        if not worker.ready:  # no file's fault: as in a script that does its work when it is imported
            self.todo.extendleft(reversed(worker.held))
            yield from self._here()
            return
        if worker.held:
            index = worker.held.popleft()
            self.todo.extendleft(reversed(worker.held))
            if code in OVERTIME:
                seconds = self.bounds.seconds_for(Path(self.paths[index]))
                yield index, Lost(f"takes too long to decode (over {seconds:.0f} s)")
            elif code == NO_MEMORY:
                yield index, Lost("not enough memory to decode it")
            elif index in self.suspects:
                yield index, Lost("the decoder crashed on it")
            else:
                self.suspects.add(index)
                self.todo.appendleft(index)

    def _here(self) -> Iterator[tuple[int, T | Lost]]:
        while self.todo:
            index = self.todo.popleft()
            crashed = index in self.suspects
            yield index, Lost("the decoder crashed on it") if crashed else self.work(Path(self.paths[index]))


def serve(pipe: "connection.Connection[Any, Any]", work: Work[Any], bounds: Bounds) -> None:
    """What a worker does, until nobody is there who hands it files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    limit_memory(bounds.memory_bytes)
    with suppress(EOFError, OSError), Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        pipe.send(None)
        while True:
            for path in map(Path, pipe.recv()):
                with limited_time(bounds.seconds_for(path), nowhere):
                    result = _done(work, path)
                pipe.send(result)


def _done(work: Work[Any], path: Path) -> Any:
    try:
        return work(path)
    except MemoryError:
        os._exit(NO_MEMORY)
    except Exception as bug:  # raised again in the parent, where it is told
        return bug
