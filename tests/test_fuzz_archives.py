"""A short campaign of benchmarks/fuzz_archives.py; the long ones are in benchmarks/results."""

import importlib
from pathlib import Path


def test_hostile_archives_are_read_or_refused_with_a_reason(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    fuzz = importlib.import_module("fuzz_archives")
    counts, findings = fuzz.run(seconds=60, count=80, seed=0)
    assert [wrong for wrong, _ in findings] == []
    assert counts.total() == 80
    assert counts["accepted"] > 10
