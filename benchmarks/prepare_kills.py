"""Kills `san prepare` at random moments, and looks at what stays and at what the next run makes of it.

    python benchmarks/prepare_kills.py --kills 20 --images 2000 --out benchmarks/results/prepare-kills.json

For each form of archive: one run as it should be, then so many runs that SIGKILL ends after a random part of
that time, from a data folder that is there or not. After each, the prepared folder is there whole, with the
bytes of the undisturbed run, or not at all; in the end one more run has to make it, and leave nothing else.
"""

import argparse
import datetime
import hashlib
import io
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
FORMS = ("zip", "tar.gz")
TRIES = 10
"""Runs for each that is to be killed: some end before."""
STARTED = 0.2
"""Of the time of a run: before that Python is still importing."""


@dataclass
class Kills:
    """What became of the runs on one archive."""

    killed: int = 0
    ended_before: int = 0
    nothing_there: int = 0
    """Runs after which there was no prepared folder."""
    whole_there: int = 0
    remains_left: int = 0
    """Runs that left something else beside its place, for the next to clear away."""
    wrong: list[str] = field(default_factory=list)


def images(count: int) -> Iterator[tuple[str, bytes]]:
    """Small PNGs of two classes; no two are alike."""
    for number in range(count):
        file = io.BytesIO()
        Image.frombytes("RGB", (4, 4), random.Random(number).randbytes(48)).save(file, "PNG")
        yield f"{('cat', 'dog')[number % 2]}/{number}.png", file.getvalue()


def generate(path: Path, count: int) -> None:
    """Writes the archive."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in images(count):
                archive.writestr(name, data)
        return
    with tarfile.open(path, "w:gz") as packed:
        for name, data in images(count):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))


def start(place: Path, archive: str) -> subprocess.Popen[bytes]:
    """A run of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "sancli", "prepare", archive, "out/data"],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def contents(folder: Path) -> dict[str, str]:
    """{path: sha256} of all files in a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run(place: Path, form: str, *, kills: int, count: int, seed: int) -> Kills:
    """Kills that many runs on one archive in the empty folder `place`."""
    archive, data, draw, found = f"a.{form}", place / "out/data", random.Random(seed), Kills()
    generate(place / archive, count)
    began = time.monotonic()
    assert start(place, archive).wait() == 0
    took = time.monotonic() - began
    expected = contents(data)
    data.rename(place / "once")
    for number in range(TRIES * kills):
        if found.killed == kills:
            break
        if data.exists() and draw.random() < 0.5:
            data.rename(place / f"gone-{number}")  # else there is nothing to do for it
        process = start(place, archive)
        wait = draw.uniform(STARTED, 1) * took
        time.sleep(wait)
        process.kill()
        if process.wait() == -signal.SIGKILL:
            found.killed += 1
        else:  # the machine is less busy than it was
            found.ended_before, took = found.ended_before + 1, wait
        _look(found, place, expected, number)
    if start(place, archive).wait() != 0 or contents(data) != expected:
        found.wrong.append("the last run did not make what the first had made")
    if [path.name for path in (place / "out").iterdir()] != ["data"]:
        found.wrong.append("the last run left something beside its result")
    return found


def _look(found: Kills, place: Path, expected: dict[str, str], number: int) -> None:
    there = {path.name for path in (place / "out").iterdir()} if (place / "out").is_dir() else set()
    found.remains_left += bool(there - {"data"})
    if "data" not in there:
        found.nothing_there += 1
    elif contents(place / "out/data") == expected:
        found.whole_there += 1
    else:
        found.wrong.append(f"run {number} left a prepared folder that is not whole")


def main() -> None:
    """Runs the campaign and writes its result."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    forms: dict[str, Any] = {}
    for form in FORMS:
        with tempfile.TemporaryDirectory() as place:
            forms[form] = vars(
                run(Path(place), form, kills=options.kills, count=options.images, seed=options.seed)
            )
    result = {
        "program": "benchmarks/prepare_kills.py",
        "images": options.images,
        "seed": options.seed,
        "archives": forms,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if any(of["wrong"] for of in forms.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
