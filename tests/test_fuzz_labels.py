"""A short campaign of benchmarks/fuzz_labels.py; the long ones are in benchmarks/results."""

from pathlib import Path


def test_mutated_label_files_give_labels_or_an_error_that_says_why(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    from fuzz_labels import run

    counts, findings = run(seconds=5, count=300, seed=0)
    assert findings == []
    assert {"exit 3", "read as csv", "read as imagenet-val"} <= counts.keys()
