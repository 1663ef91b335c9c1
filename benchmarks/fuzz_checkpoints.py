"""Tries hostile checkpoints on the reader: it gives their tensors, or an error that says why not.

    python benchmarks/fuzz_checkpoints.py --seconds 3600 --out benchmarks/results/fuzz-checkpoints.json

Torch files of both forms and safetensors are cut, flipped, spliced, and changed inside with right sums;
headers and tensors lie; pickles hold code, spelled in every way, or calls whose results would grow without
end (hostile_checkpoints.py). A finding is code
that ran; any exception but our error, or an error of ours without a fix; a warning; a network that was
changed by a file it refused, or is not finite after one it took; a case over 2 s of processor time, or of
16 MiB of memory more than before, of a file of at most 1 MiB; tensors that changed without a word where a
file with checksums was cut, or one bit of it flipped; and a process that died. Findings are kept beside the
results; a file of results that is there is added to.
"""

import multiprocessing
import platform
import random
import resource
import tempfile
import time
import traceback
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from fuzzing import earlier, leave, read_options
from hostile_checkpoints import Case, case, good, good_state, network
from torch import nn

from sancli import console, weights
from sancli.errors import WeightsError

SLOW_S = 2.0
MEMORY_KB = 2**14
CHUNK = 2000
"""Cases of one process: what a crash can lose."""
Finding = tuple[str, str, bytes]
"""What is wrong, the ending of the file, its bytes."""


def judge(tried: Case, place: Path, marker: Path, net: nn.Module, counts: Counter[str]) -> str | None:
    """What is wrong with how a case ended; None: nothing."""
    path = write(place / f"a{tried.suffix}", tried.data)
    began, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        wrong = attempt(tried, path, net, counts)
    path.unlink()
    if marker.exists():
        marker.unlink()
        return "code ran"
    if warned:
        return f"a warning: {warned[0].message}"
    if (took := time.process_time() - began) > SLOW_S:
        return f"it took {took:.1f} s"
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory > MEMORY_KB:
        return "it took over 16 MiB"
    return wrong


def write(path: Path, data: bytes) -> Path:
    """The path, at which the data stand now."""
    path.write_bytes(data)
    return path


def attempt(tried: Case, path: Path, net: nn.Module, counts: Counter[str]) -> str | None:
    """Reads the file, its description too, and loads what it holds into a network."""
    step = "read"
    net.load_state_dict(good_state())
    try:
        weights.read_info(path)
        state = weights.read(path)
        if tried.state is not None and not same(state, tried.state):
            return "accepted with other tensors"
        step = "fit"
        weights.load_into(net, state, source=path)
    except WeightsError as error:
        counts[f"refused: {reason(error)}"] += 1
        if not same(dict(net.state_dict()), good_state()):
            return "refused, and yet the network has changed"
        poor = not (error.what and error.why and error.fix) or len(str(error).splitlines()) > 6
        return f"a poor error: {error}" if poor or "weights_only" in str(error) else None
    except Exception:  # that is what is looked for
        return f"{step}: {traceback.format_exc()}"
    counts["accepted"] += 1
    finite = all(value.isfinite().all() for value in net.state_dict().values())
    return None if finite else "accepted with values that are not finite"


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether two states hold the same numbers."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def reason(error: WeightsError) -> str:
    """The kind of a refusal."""
    text = f"{error.what} {error.why}"
    kinds = (
        "contains code",
        "checksum",
        "safetensors file",
        "no checkpoint of torch's",
        "truncated or damaged",
        "neither safetensors nor",
        "no state dict",
        "not a plain tensor",
        "claim",
        "not finite",
        "negative variances",
        "missing keys",
        "keys too many",
        "differing shapes",
        "instead of",
    )
    return next((kind for kind in kinds if kind in text), "another kind of file")


def run(*, seconds: float, count: int, seed: int) -> tuple[Counter[str], list[Finding]]:
    """Tries cases until the time or the number is used up; gives the outcomes and the findings."""
    console.settings.quiet = True
    draw, counts, findings = random.Random(seed), Counter[str](), list[Finding]()
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        place, marker, net = Path(name), Path(name) / "it ran", network()
        warm_up(place, net)
        while count > 0 and time.monotonic() < end:
            tried = case(draw, marker)
            if wrong := judge(tried, place, marker, net, counts):
                findings.append((wrong, tried.suffix, tried.data))
            count -= 1
    return counts, findings


def warm_up(place: Path, net: nn.Module) -> None:
    """Reads good files, so that what torch loads for that is not counted to a hostile one."""
    for data in good().values():
        attempt(Case(".pth", data), write(place / "good.pth", data), net, Counter())


def chunk(answer: Connection, seconds: float, count: int, seed: int) -> None:
    """A part of a campaign, in a process of its own."""
    torch.set_num_threads(1)
    run(seconds=1e9, count=1, seed=seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts, findings = run(seconds=seconds, count=count, seed=seed)
    answer.send((counts, findings, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def campaign(*, seconds: float, count: int, seed: int) -> tuple[Counter[str], list[Finding], int]:
    """Part after part; gives the outcomes, the findings and the most KiB by which a part has grown."""
    counts, findings, largest = Counter[str](), list[Finding](), 0
    end, number = time.monotonic() + seconds, 0
    while counts.total() < count and (left := end - time.monotonic()) > 0:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        part_seed, wanted = 1_000_000 * seed + number, min(CHUNK, count - counts.total())
        process = multiprocessing.get_context("spawn").Process(
            target=chunk, args=(theirs, left, wanted, part_seed)
        )
        process.start()
        theirs.close()
        try:
            part, found, memory = ours.recv()
            counts, findings, largest = counts + part, findings + found, max(largest, memory)
        except EOFError:
            findings.append((f"the process of seed {part_seed} died", ".none", b""))
        process.join()
        number += 1
    return counts, findings, largest


def main() -> None:
    """Runs a campaign and writes its result, added to what is there."""
    options = read_options(__doc__)
    began = time.monotonic()
    counts, findings, largest = campaign(seconds=options.seconds, count=options.count, seed=options.seed)
    before = earlier(options.out)
    counts += Counter(before.get("outcomes", {}))
    result = {
        "program": "benchmarks/fuzz_checkpoints.py",
        "seeds": [*before.get("seeds", []), options.seed],
        "cases": counts.total(),
        "seconds": before.get("seconds", 0) + round(time.monotonic() - began),
        "outcomes": dict(sorted(counts.items())),
        "findings": [*before.get("findings", []), *(wrong for wrong, _, _ in findings)],
        "largest_growth_mib": max(before.get("largest_growth_mib", 0), largest // 1024),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    leave(result, options, {f"{number}{suffix}": data for number, (_, suffix, data) in enumerate(findings)})


if __name__ == "__main__":
    main()
