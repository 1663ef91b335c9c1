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


def smallest(launches: list[Any]) -> list[Any]:
    """Of each kernel the instantiation of the smallest sizes, which compiles fastest."""
    found: dict[str, tuple[list[int], Any]] = {}
    for one in launches:
        name, _, sizes = one.kernel.partition("<")
        size = [int(number) for number in re.findall(r"\b\d+\b", sizes)]
        if name not in found or size < found[name][0]:
            found[name] = size, one
    return [one for _, one in found.values()]


def kernels(
    archs: tuple[str, ...], types: tuple[str, ...], only: str = "", *, quick: bool = False
) -> list[Figures]:
    """The figures of all kernels, with `type` and `threads`; `shared` is the fixed and the dynamic part.

    `quick`: of each kernel at its smallest sizes, without the shares of instructions.
    """
    from sancli.ops.cuda import loader

    jobs = [(arch, dtype) for arch in archs for dtype in types]
    programs, about = [], []
    for (arch, dtype), launches in zip(jobs, nvrtc.in_processes(launched, jobs), strict=True):
        chosen = smallest(launches) if quick else launches
        wanted = {one.kernel: one for one in chosen if re.search(only, one.kernel)}
        for source in sorted({one.source for one in wanted.values()}):
            names = tuple(name for name, one in wanted.items() if one.source == source)
            whole = nvrtc.Program(source, loader.text(source), names, arch, options(), mix=not quick)
            programs += nvrtc.programs(whole)
            about += [(dtype, wanted[name]) for name in sorted(names)]
    return [
        row | {"type": dtype, "threads": launch.threads, "shared": row.get("shared", 0) + launch.shared}
        for row, (dtype, launch) in zip(nvrtc.compile_all(programs), about, strict=True)
    ]


Budget = dict[str, dict[str, dict[str, Figures]]]
"""By architecture, type and kernel."""


def budget(rows: list[Figures]) -> Budget:
    """What is held to."""
    held: Budget = {}
    for row in rows:
        mix = {name: round(row.get("instructions", {}).get(name, 0), 3) for name in ARITHMETIC}
        figures = {key: row[key] for key in ("registers", "stack", "shared")}
        figures |= {name: share for name, share in mix.items() if share}
        held.setdefault(row["arch"], {}).setdefault(row["type"], {})[row["kernel"]] = figures
    return held


def write_budget(rows: list[Figures]) -> None:
    """Replaces the figures of the architectures and types that there are rows of; all of another compiler."""
    before = json.loads(BUDGET.read_text(encoding="utf-8")) if BUDGET.is_file() else {}
    kept: Budget = before["kernels"] if before.get("nvrtc") == nvrtc.version() else {}
    whole = kept | {arch: kept.get(arch, {}) | of for arch, of in budget(rows).items()}
    BUDGET.write_text(budget_text(whole), encoding="utf-8")


def budget_text(whole: Budget) -> str:
    """As JSON with a line a kernel: a change of one is a change of a line."""
    archs = []
    for arch in sorted(whole, key=ARCHS.index):
        types = []
        for dtype in sorted(whole[arch], key=TYPES.index):
            of = whole[arch][dtype]
            lines = ",\n".join(f"   {json.dumps(name)}: {json.dumps(of[name])}" for name in sorted(of))
            types.append(f"  {json.dumps(dtype)}: {{\n{lines}\n  }}")
        archs.append(f" {json.dumps(arch)}: {{\n" + ",\n".join(types) + "\n }")
    joined = ",\n".join(archs)
    return f'{{"nvrtc": {json.dumps(nvrtc.version())}, "kernels": {{\n{joined}\n}}}}\n'


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
        if wanted.only or any("error" in row for row in rows):
            sys.exit("Error: a budget is of all kernels of an architecture and type, and all of them compile")
        write_budget(rows)
    print(json.dumps(rows) if wanted.json else "\n".join(table(rows)))
    sys.exit(any("error" in row for row in rows))


if __name__ == "__main__":
    main()
