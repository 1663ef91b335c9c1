"""What `san download-weights --force` leaves after each of many faults: the right file or the old one.

A server on this machine (tests/filehost.py) plays the file host and the Hub; the command is a process of its
own, as a user starts it. The checkpoint is of the authors' form, with random numbers.

    python benchmarks/download_faults.py --out benchmarks/results/download-faults.json
"""

import argparse
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from filehost import Host, file_host  # noqa: E402
from torch import nn  # noqa: E402

from sancli import model  # noqa: E402

NAME, OLD = "san10-pairwise", b"the old file"
LARGEST = 20_000_000
"""Bytes that a file may have in the case of a full disk: half of the checkpoint."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    what: str
    ends_in: str
    """right: the new file, whole; old: the one before, untouched."""
    faults: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    by: str = "address"
    """How it is asked for: address, hub, nowhere, proxy, full, killed or twice."""


FAULTS = (
    Fault("connection cut at 50 %", "right", ("cut",)),
    Fault("connection cut six times", "right", ("cut",) * 6),
    Fault("connection cut at 50 %, and the server ignores Range", "right", ("cut",), ("no-range",)),
    Fault(
        "connection cut at 50 % each time, and the server ignores Range", "old", ("cut",) * 9, ("no-range",)
    ),
    Fault("HTTP 503 twice, then a redirection", "right", ("503", "503", "redirect")),
    Fault("slow: twenty pieces", "right", ("slow",)),
    Fault("HTTP 404", "old", ("404",)),
    Fault("HTTP 403 with the page of a quota", "old", ("403",)),
    Fault("HTTP 200 with the page of a quota", "old", ("quota",)),
    Fault("HTTP 200 with the login page of a network", "old", ("page",)),
    Fault("an empty file", "old", ("empty",)),
    Fault("wrong bytes of the right size, from an address", "old", ("wrong",)),
    Fault("wrong bytes of the right size once, from the Hub", "right", ("wrong",), (), "hub"),
    Fault("wrong bytes of the right size twice, from the Hub", "old", ("wrong", "wrong"), (), "hub"),
    Fault("a file that was truncated at its source", "old", ("truncated",)),
    Fault("another network under this name", "old", (), (), "swapped"),
    Fault("a host that is not there", "old", (), (), "nowhere"),
    Fault("a proxy that is not there", "old", (), (), "proxy"),
    Fault("a disk that is full at half of the file, then is not", "right", (), (), "full"),
    Fault("kill -9 at half of the file, then again", "right", ("slow",), (), "killed"),
    Fault("two clients at once", "right", ("slow",), (), "twice"),
)


def checkpoint(arch: str) -> bytes:
    """A file of the authors' form."""
    torch.manual_seed(0)
    network = model.build(arch, attention="pairwise", num_classes=1000)
    with tempfile.TemporaryDirectory() as place:
        torch.save({"epoch": 100, "state_dict": nn.DataParallel(network).state_dict()}, Path(place) / "m.pth")
        return (Path(place) / "m.pth").read_bytes()


def start(host: Host, fault: Fault, cache: Path, *, limit: int = 0) -> subprocess.Popen[str]:
    """The command, as a user starts it."""
    address = "http://nowhere.invalid/model_best.pth" if fault.by in ("nowhere", "proxy") else None
    source = ["--from", address or host.url("/model_best.pth")]
    if fault.by == "hub":
        source = ["--repo", "ann/san"]
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    environment |= {"SAN_CACHE": str(cache), "HF_ENDPOINT": host.address, "PYTHONPATH": str(ROOT)}
    if fault.by == "proxy":
        environment["http_proxy"] = "http://127.0.0.1:9"
    script = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); " if limit else ""
    )
    script += "from sancli.cli import main; main()"
    command = [sys.executable, "-c", script, "download-weights", NAME, "--force", *source]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def attempt(host: Host, fault: Fault, cache: Path) -> tuple[int, str]:
    """Runs the command, or the commands, to their end: the last exit code, and what was said."""
    processes = [start(host, fault, cache, limit=LARGEST if fault.by == "full" else 0)]
    if fault.by == "twice":
        processes.append(start(host, fault, cache))
    if fault.by == "killed":
        part = cache / "weights" / f"{NAME}.safetensors.download"
        while not (part.exists() and part.stat().st_size > LARGEST) and processes[0].poll() is None:
            time.sleep(0.01)
        processes[0].send_signal(signal.SIGKILL)
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    if fault.by in ("full", "killed"):
        assert ends[0][1] in (6, -signal.SIGKILL), ends
        again = start(host, Fault(fault.what, fault.ends_in), cache)
        ends.append((again.communicate()[1], again.returncode))
    return ends[-1][1], ends[-1][0]


def judge(host: Host, fault: Fault, right: bytes) -> dict[str, Any]:
    """What a fault ends in, and whether that is what it should."""
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "weights" / f"{NAME}.safetensors"
        target.parent.mkdir()
        target.write_bytes(OLD)
        began = time.monotonic()
        code, said = attempt(host, fault, Path(place))
        content = target.read_bytes()
        ends_in = "right" if content == right else "old" if content == OLD else "WRONG"
        litter = [path.name for path in target.parent.iterdir() if ".download" in path.name]
    fine = ends_in == fault.ends_in and code == (0 if ends_in == "right" else 4) and "Traceback" not in said
    why = next((line.strip() for line in said.splitlines() if line.startswith("  why: ")), "")
    return {
        "fault": fault.what,
        "ends_in": ends_in,
        "exit_code": code,
        "why": why.removeprefix("why: ").replace(str(Path(place)), "CACHE").replace(host.address, "HOST"),
        "kept_to_go_on_with": litter,
        "seconds": round(time.monotonic() - began, 1),
        "as_it_should": fine,
    }


def right_file(host: Host) -> bytes:
    """What the command makes of the checkpoint where nothing goes wrong."""
    with tempfile.TemporaryDirectory() as place:
        process = start(host, Fault("none", "right"), Path(place))
        said = process.communicate()[1]
        assert process.returncode == 0, said
        return (Path(place) / "weights" / f"{NAME}.safetensors").read_bytes()


def run(faults: tuple[Fault, ...], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Every fault, each with a fresh server and a fresh cache."""
    good, other = checkpoint("san10"), checkpoint("san15")
    with file_host() as host:
        host.files["/model_best.pth"] = good
        right = right_file(host)
    cases = []
    for fault in faults:
        with file_host() as host:
            host.files["/model_best.pth"] = other if fault.by == "swapped" else good
            host.files[f"/ann/san/{NAME}.pth"] = good
            host.always |= set(fault.always)
            path = f"/ann/san/{NAME}.pth" if fault.by == "hub" else "/model_best.pth"
            host.faults[path] = list(fault.faults)
            cases.append(judge(host, fault, right))
        say(f"{fault.what}: {cases[-1]['ends_in']}, exit {cases[-1]['exit_code']}; {cases[-1]['why']}")
    return cases


def main() -> None:
    """Runs all faults and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cases = run(FAULTS, say=lambda line: print(line, flush=True))
    fine = sum(case["as_it_should"] for case in cases)
    result = {
        "program": "benchmarks/download_faults.py",
        "result": f"{fine} of {len(cases)} end in the right file or the old one, as they should",
        "checkpoint_sha256": hashlib.sha256(checkpoint("san10")).hexdigest(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cases": cases,
    }
    print(result["result"])
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(fine != len(cases))


if __name__ == "__main__":
    main()
