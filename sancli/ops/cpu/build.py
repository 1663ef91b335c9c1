"""The CPU kernels, built by the system's C++ compiler at first use and kept in the user's cache.

A library's name holds a hash of all that decides its bytes: no other source, compiler or machine meets it.
Old libraries stay: half a megabyte for each new version of san or of the compiler.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sancli.errors import StorageError, UsageError
from sancli.files import cache_folder, locked, replacing, storage_errors, write_text

INSTRUCTION_SETS = {  # the best first
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"),
    "avx2": ("-mavx2", "-mfma"),
    "plain": (),
}
LABELS = {"avx512": "AVX-512", "avx2": "AVX2", "plain": "plain vectors"}
FLAGS = (  # of -ffast-math only what keeps infinities, NaN and the order of sums
    *("-std=c++17", "-fPIC", "-fopenmp"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
)
EFFORT = {"float": "-O3", "double": "-O1"}
"""Double is what float is held to: for that it need not be fast, and is compiled in half the time."""
COMPILERS = ("c++", "g++", "clang++")
TYPICAL_S = 10
"""Seconds a build takes: measured with g++ 12 on 2 cores."""
PATIENCE = 120.0
"""Seconds to wait for another process that builds."""


class UnavailableError(Exception):
    """Why this machine has no compiled kernels: plain PyTorch does their work."""


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")


announce: Callable[[str], None] = _to_stderr
"""Shows one line; whoever has a better way to speak puts it here."""


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler, and the options that $CXX has behind its name."""

    path: str
    options: tuple[str, ...] = ()

    def identity(self) -> str:
        """Changes with the program, and is read without running it: a start costs no subprocess."""
        program = Path(self.path).resolve()
        found = program.stat()
        return f"{program} {found.st_size} {found.st_mtime_ns} {self.options}"

    def version(self) -> str:
        """Its own first line about itself."""
        output = _run([[self.path, *self.options, "--version"]])
        return next(iter(output[0].splitlines()), self.path)


def find_compiler() -> Compiler | None:
    """The compiler that $CXX names, or else the system's."""
    for name, *options in (os.environ.get("CXX", "").split() or [""], *([name] for name in COMPILERS)):
        if path := shutil.which(name):
            return Compiler(path, tuple(options))
    return None


def sources() -> Path:
    """The folder of the C++ sources: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[2]
    inside = package / "kernels" / "cpu"
    return inside if inside.is_dir() else package.parent / "kernels" / "cpu"


@contextmanager
def library(instruction_set: str, real: str) -> Iterator[Path]:
    """Gives the shared library, built where the cache does not hold it; it can be gone after the block.

    Raises:
        UnavailableError: There is no compiler, or it fails.
    """
    compiler = find_compiler()
    if compiler is None:
        raise UnavailableError(f"no C++ compiler found, neither $CXX nor {', '.join(COMPILERS)}")
    recipe = Recipe(compiler, instruction_set, real)
    try:
        kept = recipe.kept()
    except (StorageError, UsageError) as error:  # a cache that cannot be written, or is never free
        with tempfile.TemporaryDirectory(prefix="san-kernels-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / recipe.name()
            recipe.build(path, note=f"for this run alone, because {error.what.rstrip('.')}")
            yield path
    else:
        yield kept


@dataclass(frozen=True)
class Recipe:
    """All that decides a library's bytes."""

    compiler: Compiler
    instruction_set: str
    real: str
    """float or double."""

    def name(self) -> str:
        """The file's name in the cache."""
        parts = [self.compiler.identity(), platform.machine(), *self.flags()]
        hashed = hashlib.sha256("\n".join(parts).encode())
        for path in sorted([*sources().glob("*.h"), *sources().glob("*.cpp")]):
            hashed.update(f"\n{path.name}\n".encode() + path.read_bytes())
        return f"san-{self.instruction_set}-{self.real}-{hashed.hexdigest()[:16]}.so"

    def flags(self) -> tuple[str, ...]:
        """What the compiler is told for every file."""
        return (EFFORT[self.real], *FLAGS, *INSTRUCTION_SETS[self.instruction_set], f"-DSAN_REAL={self.real}")

    def kept(self) -> Path:
        """The library in the cache; one process builds it while the others wait.

        Raises:
            StorageError: The cache cannot be written.
            UsageError: Another process holds it for too long.
        """
        path = cache_folder("kernels") / self.name()
        if _is_whole(path):
            return path
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent, wait=PATIENCE):
            if not _is_whole(path):  # still not: it was not this that another process built
                self.build(path, note="once")
                write_text(_checksum_file(path), _checksum(path))
        return path

    def build(self, path: Path, *, note: str) -> None:
        """Compiles every source by a process of its own, and links them.

        Raises:
            UnavailableError: The compiler fails; its first error is named.
            StorageError: The folder cannot be written.
        """
        files = sorted(sources().glob("*.cpp"))
        if not files:
            raise UnavailableError(f"no sources in {sources()}: install sancli anew")
        version = self.compiler.version()
        kind = f"{LABELS[self.instruction_set]}, {self.real}"
        announce(f"Building the CPU kernels ({kind}) with {version}, {note}; about {TYPICAL_S} s.")
        run = [self.compiler.path, *self.compiler.options]
        with tempfile.TemporaryDirectory(prefix="san-kernels-") as folder, replacing(path) as partial:
            objects = [str(Path(folder) / f"{file.stem}.o") for file in files]
            _run(
                [*run, *self.flags(), "-c", str(file), "-o", made]
                for file, made in zip(files, objects, strict=True)
            )
            _run([[*run, "-shared", "-fopenmp", *objects, "-o", str(partial)]])


def _run(commands: Iterable[list[str]]) -> list[str]:
    """Runs the commands, as many at once as there are cores; what each of them printed."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(_output, commands))


def _output(command: list[str]) -> str:
    english = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, env=english, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise UnavailableError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        first = next(
            (line for line in lines if "error" in line.lower()),
            (lines or [f"exit code {done.returncode}"])[0],
        )
        raise UnavailableError(f"the C++ compiler fails: {first}")
    return done.stdout


def _checksum(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


def _checksum_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _is_whole(library: Path) -> bool:
    """A library that was cut short would not fail to load: it would kill the process."""
    try:
        return _checksum(library) == _checksum_file(library).read_text(encoding="ascii")
    except (OSError, ValueError):
        return False
