"""A short campaign of benchmarks/fuzz_checkpoints.py; the long ones are in benchmarks/results."""

from pathlib import Path


def test_hostile_checkpoints_give_their_tensors_or_an_error_that_says_why(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    from fuzz_checkpoints import run

    counts, findings = run(seconds=8, count=300, seed=0)
    assert findings == []
    assert {
        "accepted",
        "refused: contains code",
        "refused: checksum",
        "refused: safetensors file",
    } <= counts.keys()
