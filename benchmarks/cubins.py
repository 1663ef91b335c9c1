"""What the CUDA kernels take of a card, by the compiler's word: no GPU and no driver are needed.

usage: python benchmarks/cubins.py [--json] [--arch sm_75 sm_80 sm_90 sm_120] [--only REGEX]
       python benchmarks/cubins.py --write-budget

Every kernel that the networks launch, and those for sizes that suit no fast one, in every type, compiled by
NVRTC as CuPy does it: registers of a thread, bytes of its stack (spilled registers: there should be none),
bytes of a block's shared memory, and the share that each instruction has of all that the kernel consists of.
--write-budget writes tests/cubins_budget.json, which tests/test_cubins.py holds the kernels to.
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # runs from a bare checkout too

import nvrtc  # noqa: E402

BUDGET = ROOT / "tests/cubins_budget.json"
ARCHS = ("sm_75", "sm_80", "sm_90", "sm_120")
TYPES = ("float32", "float16", "bfloat16", "float64")
ARITHMETIC = ("FFMA", "DFMA", "HMMA")
"""Instructions that do the kernels' work; the others only bring the numbers to them."""
WORTH_NOTING = 0.02
Figures = dict[str, Any]


def launched(job: tuple[str, str]) -> list[Any]:
    """The launches of an architecture and a type."""
    import torch  # not earlier: the processes that compile need none of it
    from launches import CARDS, launches

    torch.set_num_threads(1)  # there is a process for each core
    arch, dtype = job
    return launches(CARDS[arch], getattr(torch, dtype))


def options() -> tuple[str, ...]:
    """The compiler's, as CuPy hands them to it."""
    from sancli.ops.cuda import compiling

    return *compiling.OPTIONS, *nvrtc.ADDED


def kernels(archs: tuple[str, ...], types: tuple[str, ...], only: str = "") -> list[Figures]:
    """The figures of all kernels, with `threads`; `shared` is the fixed and the dynamic part together."""
    from sancli.ops.cuda import loader

    jobs = [(arch, dtype) for arch in archs for dtype in types]
    found: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for (arch, _), launches in zip(jobs, nvrtc.in_processes(launched, jobs), strict=True):
        for launch in launches:
            if re.search(only, launch.kernel):
                found[arch, launch.source][launch.kernel] = launch
    programs = [
        program
        for (arch, source), of in found.items()
        for program in nvrtc.programs(source, loader.text(source), of, arch, options())
    ]
    return [with_launch(row, found) for row in nvrtc.compile_all(programs)]


def with_launch(row: Figures, found: dict[tuple[str, str], dict[str, Any]]) -> Figures:
    """A kernel's figures and how it is launched."""
    launch = found[row["arch"], row["source"]][row["kernel"]]
    return row | {"threads": launch.threads, "shared": row.get("shared", 0) + launch.shared}


def budget(rows: list[Figures]) -> dict[str, dict[str, Figures]]:
    """What is held to: by architecture and kernel."""
    held: dict[str, dict[str, Figures]] = {arch: {} for arch in ARCHS}
    for row in rows:
        mix = {name: round(row["instructions"].get(name, 0), 2) for name in ARITHMETIC}
        held[row["arch"]][row["kernel"]] = {key: row[key] for key in ("registers", "stack", "shared")} | {
            name: share for name, share in mix.items() if share >= WORTH_NOTING
        }
    return held


def budget_text(rows: list[Figures]) -> str:
    """As JSON with a line a kernel: a change of one is a change of a line."""
    parts = []
    for arch, of in budget(rows).items():
        lines = (f"  {json.dumps(kernel)}: {json.dumps(figures)}" for kernel, figures in sorted(of.items()))
        parts.append(f" {json.dumps(arch)}: {{\n" + ",\n".join(lines) + "\n }")
    return f'{{\n "nvrtc": {json.dumps(nvrtc.version())},\n' + ",\n".join(parts) + "\n}\n"


def table(rows: list[Figures]) -> Iterator[str]:
    """A line a kernel."""
    yield f"{'arch':7}{'registers':>10}{'stack':>6}{'shared':>8}{'threads':>8}{'instructions':>13}  kernel"
    for row in sorted(rows, key=lambda row: (row["source"], row["kernel"], row["arch"])):
        if "error" in row:
            yield f"{row['arch']:7}{'DOES NOT COMPILE':>45}  {row['kernel']}: {first_error(row)}"
            continue
        mix = " ".join(f"{name} {share:.0%}" for name, share in list(row["instructions"].items())[:5])
        taken = f"{row['registers']:10}{row['stack']:6}{row['shared']:8}"
        yield f"{row['arch']:7}{taken}{row['threads']:8}{row['length']:13}  {row['kernel']}  {mix}"


def first_error(row: Figures) -> str:
    """The line of the compiler's log that says most."""
    lines = row["error"].splitlines()
    return next((line for line in lines if "error" in line), lines[0])


def arguments() -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout instead of a table")
    parser.add_argument("--arch", nargs="+", choices=ARCHS, default=ARCHS)
    parser.add_argument("--types", nargs="+", choices=TYPES, default=TYPES)
    parser.add_argument("--only", default="", help="kernels whose name has this regular expression in it")
    parser.add_argument("--write-budget", action="store_true", help=f"writes {BUDGET.relative_to(ROOT)}")
    return parser.parse_args()


def main() -> None:
    """Compiles, prints and writes."""
    wanted = arguments()
    try:
        rows = kernels(tuple(wanted.arch), tuple(wanted.types), wanted.only)
    except nvrtc.UnavailableError as error:
        sys.exit(f"Error: {error}")
    if wanted.write_budget:
        part = wanted.arch != ARCHS or wanted.types != TYPES or wanted.only
        if part or any("error" in row for row in rows):
            sys.exit("Error: a budget is of all kernels, and all of them compile")
        BUDGET.write_text(budget_text(rows), encoding="utf-8")
    print(json.dumps(rows) if wanted.json else "\n".join(table(rows)))
    sys.exit(any("error" in row for row in rows))


if __name__ == "__main__":
    main()
