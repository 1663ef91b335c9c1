"""Tries hostile archives on the reader: it gives the files that are in them, or an error that says why not.

    python benchmarks/fuzz_archives.py --seconds 3600 --seed 0 --out benchmarks/results/fuzz-archives.json

Zips, tars, packed tars and archives in archives are cut, flipped, spliced, unpacked, changed inside and
packed again, and their headers are rewritten with right sums (hostile_archives.py). A finding is any other
exception; an error without a fix; a case over 2 s of processor time; 256 MiB of memory more than before; a
file outside the given folder, or a link in it; more bytes than the limit; and files that are lost or
changed without a word where an archive was only cut, or one bit of a format with checksums was flipped.
Findings are kept beside the results; a file of results that is there is added to.
"""

import platform
import random
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from fuzzing import earlier, leave, read_options
from hostile_archives import Case, case

from sancli import console
from sancli.data.preparation.archives import list_archive, unpack
from sancli.data.preparation.archives.budget import FREE_EXPANSION
from sancli.errors import SanError

SLOW_S = 2.0
MEMORY_KB = 2**18


def judge(tried: Case, place: Path, counts: Counter[str]) -> str | None:
    """What is wrong with how a case ended; None: nothing."""
    root = place / "root"
    shutil.rmtree(root, ignore_errors=True)
    to = root / "deep/to"
    to.mkdir(parents=True)
    archive = root / f"a{tried.suffix}"
    archive.write_bytes(tried.data)
    began, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong = attempt(tried, archive, to, counts)
    outside = [
        path for path in root.rglob("*") if to not in path.parents and path not in (archive, to, to.parent)
    ]
    if outside or any(path.is_symlink() or not path.is_file() for path in to.iterdir()):
        return f"it wrote {outside or 'something that is no file'}"
    if sum(path.stat().st_size for path in to.iterdir()) > FREE_EXPANSION:
        return "it wrote more than the limit"
    if (took := time.process_time() - began) > SLOW_S:
        return f"it took {took:.1f} s"
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory > MEMORY_KB:
        return "it took over 256 MiB"
    return wrong


def attempt(tried: Case, archive: Path, to: Path, counts: Counter[str]) -> str | None:
    """Lists and unpacks the archive."""
    try:
        found = list_archive(archive)
        files = unpack(found, found.listing.images, to)
    except SanError as error:
        counts[f"refused: {reason(error)}"] += 1
        poor = not (error.what and error.why and error.fix) or len(str(error).splitlines()) > 6
        return f"a poor error: {error}" if poor or error.exit_code != 3 else None
    except Exception:  # that is what is looked for
        return traceback.format_exc()
    counts["accepted"] += 1
    got = {name: Path(file).read_bytes() for name, file in zip(found.listing.images, files, strict=True)}
    if tried.files is not None and got != tried.files:
        return f"accepted with other files: {sorted(got)} instead of {sorted(tried.files)}"
    return None


def reason(error: SanError) -> str:
    """The kind of a refusal."""
    kinds = (
        "unsafe member",
        "have one name",
        "expands past",
        "cut off or damaged",
        "neither a zip nor a tar",
    )
    return next((kind for kind in kinds if kind in error.what), error.what)


def run(*, seconds: float, count: int, seed: int) -> tuple[Counter[str], list[tuple[str, Case]]]:
    """Tries cases until the time or the number is used up; gives the outcomes and the findings."""
    console.settings.quiet = True
    draw, counts = random.Random(seed), Counter[str]()
    findings: list[tuple[str, Case]] = []
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as place:
        while count > 0 and time.monotonic() < end:
            tried = case(draw)
            if wrong := judge(tried, Path(place), counts):
                findings.append((wrong, tried))
            count -= 1
    return counts, findings


def main() -> None:
    """Runs a campaign and writes its result, added to what is there."""
    options = read_options(__doc__)
    began = time.monotonic()
    counts, findings = run(seconds=options.seconds, count=options.count, seed=options.seed)
    before = earlier(options.out)
    counts += Counter(before.get("outcomes", {}))
    result = {
        **before,
        "program": "benchmarks/fuzz_archives.py",
        "seeds": [*before.get("seeds", []), options.seed],
        "cases": counts.total(),
        "seconds": before.get("seconds", 0) + round(time.monotonic() - began),
        "outcomes": dict(sorted(counts.items())),
        "findings": [*before.get("findings", []), *(wrong for wrong, _ in findings)],
        "largest_mib": max(
            before.get("largest_mib", 0), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        ),
        "python": platform.python_version(),
    }
    leave(result, options, {f"{number}{of.suffix}": of.data for number, (_, of) in enumerate(findings)})


if __name__ == "__main__":
    main()
