"""The lines of the README that quote what benchmarks/gpu.py measured; tests hold the one to the other.

usage: python benchmarks/quoting.py     prints them, of the newest results
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
HEADING = "### On a GPU"
NAMES = {
    "san10-patchwise-bf16": "SAN10 patchwise",
    "san15-patchwise-bf16": "SAN15 patchwise",
    "san15-pairwise-bf16": "SAN15 pairwise",
    "resnet50-bf16": "ResNet-50",
}
COLUMNS = "training step", "inference", "kept for the backward, MiB an image", "largest batch"


def newest() -> Path | None:
    """The newest results of a GPU, by their date; None where there are none yet."""
    dated = sorted(RESULTS.glob("20[0-9][0-9]-[0-9][0-9]-[0-9][0-9]-*.json"))
    return dated[-1] if dated else None


def lines(path: Path) -> Iterator[str]:
    """Heading, conditions and table."""
    result: Figures = json.loads(path.read_text(encoding="utf-8"))
    about = result["environment"]
    yield HEADING
    card, torch = about["gpu"], about["torch"]
    yield f"Measured on one {card} with torch {torch} (`{path.name}`): bf16, 224 px, batch 64."
    yield f"| | {' | '.join(COLUMNS)} |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for name, shown in NAMES.items():
        yield f"| {shown} | {' | '.join(cells(name, result))} |"


def cells(name: str, result: Figures) -> Iterator[str]:
    """Of a row; ResNet-50 is the measure, so that its own times stand there."""
    for task in ("train_batch64", "infer_batch64"):
        timed = result["networks"][task].get(name)
        if timed is None:
            yield "-"
        elif name.startswith("resnet50"):
            yield f"1 ({timed['ms']:.3f} ms an image)"
        else:
            yield f"{timed['ratio']:.2f}"
    held = result["memory"].get(name, {})
    yield f"{held['saved_mib']:.1f}" if "saved_mib" in held else "-"
    yield str(held.get("largest_batch", "-"))


def main() -> None:
    """Prints."""
    path = newest()
    print("no results of a GPU yet" if path is None else "\n".join(lines(path)))


if __name__ == "__main__":
    main()
