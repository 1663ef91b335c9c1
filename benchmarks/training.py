"""What a training came to: its settings, its epochs, its figures on a split, and under which conditions.

usage: python benchmarks/training.py RUN [--split test] [--note "what else the machine did"]

RUN is a folder made by `san train`; `san eval RUN --split test` has to have been run. Writes the folder
benchmarks/results/training-NAME/: config.toml, metrics.csv, curves.png, the confusion matrix, summary.json.
"""

import argparse
import csv
import json
import shutil
from pathlib import Path

from measure import cores, processor

RESULTS = Path(__file__).parent / "results"
KEPT = ("config.toml", "metrics.csv", "curves.png")
OF_A_SPLIT = ("confusion_matrix.csv", "confusion_matrix.png", "most_confused.csv", "per_class.csv")
"""No photos: they are their owners'."""


def summary(run: Path, evaluation: Path, note: str) -> dict:
    """The run in one object."""
    info = json.loads((run / "model.json").read_text(encoding="utf-8"))
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        epochs = list(csv.DictReader(file))
    return {
        "program": "benchmarks/training.py",
        "command": "san train --config config.toml",
        "arch": info["arch"],
        "attention": info["attention"],
        "data": {key: info["data"][key] for key in ("name", "sha256")},
        "classes": info["classes"],
        "epochs": len(epochs),
        "epoch_of_the_weights": info["epoch"],
        "val": info["metrics"],
        evaluation.name: json.loads((evaluation / "metrics.json").read_text(encoding="utf-8")),
        "versions": info["versions"],
        "processor": processor(),
        "cores": cores(),
        "note": note,
    }


def main() -> None:
    """Gathers and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    evaluation = args.run / f"eval-{args.split}"
    target = RESULTS / f"training-{args.run.name}"
    target.mkdir(parents=True, exist_ok=True)
    for folder, names in ((args.run, KEPT), (evaluation, OF_A_SPLIT)):
        for name in names:
            shutil.copy2(folder / name, target / name)
    text = json.dumps(summary(args.run, evaluation, args.note), indent=2)
    (target / "summary.json").write_text(text + "\n", encoding="utf-8")
    print(f"written to {target}")


if __name__ == "__main__":
    main()
