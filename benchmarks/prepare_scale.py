"""How time and memory of `san prepare` grow with the number of images.

    python benchmarks/prepare_scale.py --sizes 10000 100000 --forms folder tar tars --out FILE.json

Generates JPEGs of --side pixels in 1,000 classes (or fewer, at least ten images each), as a folder of class
folders, a tar of it, or a tar of one tar a wnid, as ImageNet's training images come; then runs `san
prepare` on it in a process of its own, once as a whole and once again, when there is nothing to do. Memory
is that of all its processes together, looked at ten times a second, and less often where a look takes long:
of what they share each counts its part. Every image has other bytes: a thousand pictures are encoded, and a
number is written into a comment of each file. Runs are added to those that FILE.json holds.
"""

import argparse
import datetime
import io
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from measure import add_run
from PIL import Image

from sancli.data.imagenet import names

ROOT = Path(__file__).parents[1]
PICTURES = 1000
CLASSES = 1000
SAMPLE_S = 0.1
LOOKING = 0.02
"""Share of the time that looking at the memory may take: the system counts the pages of a gigabyte for it."""


def pictures(side: int) -> list[bytes]:
    """Encoded pictures with some detail: noise of a few pixels, enlarged."""
    draw = random.Random(0)
    found = []
    for _ in range(PICTURES):
        small = Image.frombytes("RGB", (12, 12), draw.randbytes(3 * 12 * 12))
        file = io.BytesIO()
        small.resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        found.append(file.getvalue())
    return found


def images(count: int, side: int) -> Iterator[tuple[str, str, bytes]]:
    """Class, name and bytes of each image, class by class."""
    made, wnids = pictures(side), list(names())
    classes = min(CLASSES, count // 10)
    for number in range(count):
        wnid = wnids[number * classes // count]
        base = made[number % PICTURES]
        comment = b"\xff\xfe\x00\x0a%08d" % number  # a COM segment: the decoder passes over it
        yield wnid, f"{wnid}_{number}.JPEG", base[:2] + comment + base[2:]


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """One member of a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def generate(form: str, where: Path, count: int, side: int) -> Path:
    """The source for `san prepare`."""
    if form == "folder":
        for wnid, name, data in images(count, side):
            folder = where / "images" / wnid
            if number_of(name) == 0 or not folder.is_dir():
                folder.mkdir(parents=True)
            (folder / name).write_bytes(data)
        return where / "images"
    path = where / "images.tar"
    with tarfile.open(path, "w") as archive:
        if form == "tar":
            for wnid, name, data in images(count, side):
                add(archive, f"{wnid}/{name}", data)
        else:
            _add_tars(archive, images(count, side))
    return path


def number_of(name: str) -> int:
    """The number in a name of `images`."""
    return int(name.rpartition("_")[2].partition(".")[0])


def _add_tars(archive: tarfile.TarFile, made: Iterator[tuple[str, str, bytes]]) -> None:
    inner, file, last = None, io.BytesIO(), ""
    for wnid, name, data in made:
        if wnid != last:
            _close(archive, inner, file, last)
            file, last = io.BytesIO(), wnid
            inner = tarfile.open(fileobj=file, mode="w")  # noqa: SIM115 -- it is closed when its class ends
        add(inner, name, data)
    _close(archive, inner, file, last)


def _close(archive: tarfile.TarFile, inner: tarfile.TarFile | None, file: io.BytesIO, wnid: str) -> None:
    if inner is not None:
        inner.close()
        add(archive, f"{wnid}.tar", file.getvalue())


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def memory_kib(pid: int) -> int:
    """What a process takes of the memory; 0 once it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def prepare(source: Path, out: Path) -> dict[str, Any]:
    """Runs `san prepare`; gives its time and the largest memory of all its processes together."""
    command = [sys.executable, "-m", "sancli", "prepare", str(source), str(out), "--json", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began, peak, look = time.monotonic(), 0, 0.0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile("w+") as stdout:
        with subprocess.Popen(command, env=environment, stdout=stdout) as process:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(SAMPLE_S, look / LOOKING))
                look = time.monotonic()
                peak = max(peak, sum(map(memory_kib, family(process.pid))))
                look = time.monotonic() - look
        took = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)  # those of its workers are among them
        assert process.returncode == 0, process.returncode
        stdout.seek(0)
        facts = json.load(stdout)
    return {
        "seconds": round(took, 1),
        "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_mib": round(peak / 1024),
        "taken": facts["images_taken"],
        "classes": len(facts["classes"]),
    }


def measure(form: str, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one form and size."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=options.place) as place:
        began = time.monotonic()
        source = generate(form, Path(place), count, options.side)
        print(f"{form} {count:,}: generated in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        first = prepare(source, Path(place) / "out")
        print(json.dumps(first), file=sys.stderr, flush=True)  # removing a million files takes minutes
        again = prepare(source, Path(place) / "out")
    return {
        "form": form,
        "images": count,
        "side_px": options.side,
        **first,
        "images_per_s": round(count / first["seconds"]),
        "again_processor_seconds": again["processor_seconds"],
        "again_peak_mib": again["peak_mib"],
        **conditions(load),
    }


def conditions(load: float) -> dict[str, Any]:
    """What the figures depend on besides; `load` is that before the run."""
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names_ = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": names_[0] if names_ else platform.machine(),
        "load_before": round(load, 1),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "commit": commit,
    }


def main() -> None:
    """Measures every form at every size, and adds to the results after each."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000])
    parser.add_argument("--forms", nargs="+", default=["folder", "tar"], choices=["folder", "tar", "tars"])
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--place", type=Path, help="A folder on the disk to use.")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    for count in options.sizes:
        for form in options.forms:
            figures = measure(form, count, options)
            print(json.dumps(figures, indent=2))
            if options.out:
                add_run(options.out, "benchmarks/prepare_scale.py", figures)


if __name__ == "__main__":
    main()
