"""What `san prepare` finds in the Intel scenes: equal files, contradictory labels, and what dropping does.

    python benchmarks/prepare_intel.py intel-scenes.zip --out benchmarks/results/prepare-intel-scenes.json

Prepares the archive twice in a temporary folder, as a user does: with all checks, and with --duplicates off.
Names and labels of files are written down, no image.
"""

import argparse
import csv
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import PIL

import sancli


def prepare(source: Path, out: Path, *options: str) -> dict[str, Any]:
    """What `san prepare --json` says of the archive."""
    command = [
        sys.executable,
        "-m",
        "sancli",
        "prepare",
        str(source),
        str(out),
        "--json",
        "--quiet",
        *options,
    ]
    facts: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return facts


def identical(problems: list[dict[str, str]], files: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    """Sets of identical files: their classes, and what became of each file."""
    actions = {problem["path"]: problem["action"] for problem in problems}
    sets = defaultdict(list)
    for path, row in files.items():
        sets[row["sha256"]].append(path)
    return [
        {
            "classes": sorted({files[path]["class"] for path in paths}),
            "files": {path: actions.get(path, "kept") for path in sorted(paths)},
        }
        for paths in sorted(sets.values())
        if len(paths) > 1
    ]


def alike(problems: list[dict[str, str]], where: str) -> dict[str, str]:
    """Files that look like one in another place, and that one."""
    start = f"near duplicate{where}: looks like "
    chosen = [problem for problem in problems if problem["problem"].startswith(start)]
    return {problem["path"]: problem["problem"].removeprefix(start).split(",")[0] for problem in chosen}


def labelled(out: Path) -> dict[str, dict[str, str]]:
    """Rows of splits.csv by the path in the source."""
    with (out / "splits.csv").open(newline="", encoding="utf-8") as file:
        return {row["source"]: row for row in csv.DictReader(file) if row["class"]}


def measure(source: Path, folder: Path) -> dict[str, Any]:
    """Everything that is found."""
    checked = prepare(source, folder / "checked", "--near-duplicates")
    before = prepare(source, folder / "all", "--duplicates", "off", "--val", "0")
    counts = checked["counts"]
    problems = checked["problems"]
    return {
        "source": json.loads((folder / "all/dataset.json").read_text(encoding="utf-8"))["source"],
        "images": checked["images_found"],
        "unreadable": sum(problem["action"] == "skipped" for problem in problems),
        "unlabelled": checked["unlabelled"],
        "training_images": {
            name: {"before": number, "after": counts["train"][name] + counts["val"][name]}
            for name, number in before["counts"]["train"].items()
        },
        "test_images": counts["test"],
        "identical": identical(problems, labelled(folder / "all")),
        "duplicates": checked["duplicates"],
        "near_duplicates": {
            "sets": checked["near_duplicates"],
            "across_splits": alike(problems, " in another split"),
            "inside_class": alike(problems, ""),
        },
        "report_bytes": (folder / "checked/report.html").stat().st_size,
    }


def main() -> None:
    """Measures, and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    conditions = {
        "sancli": sancli.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d"),
    }
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.source, Path(folder))
    options.out.write_text(json.dumps(conditions | found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
