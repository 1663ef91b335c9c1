"""The programs in benchmarks/ that only a GPU gives a meaning: they run through, and what is quoted is so."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import limited  # noqa: E402
import quoting  # noqa: E402


def half_done(settings, until):
    yield {"rows": [1]}
    yield {"rows": [2], "of": settings}
    raise ValueError("out of luck")


def endless(settings, until):
    yield {"rows": [1]}
    time.sleep(3600)


def deadly(settings, until):
    yield {"rows": [1]}
    os._exit(3)


def fine(settings, until):
    yield {"process": os.getpid(), "in_time": time.time() < until}


STAGES = {"half_done": half_done, "endless": endless, "deadly": deadly, "fine": fine}


def test_a_stage_that_fails_hangs_or_dies_leaves_its_figures_and_the_next_one_runs(monkeypatch):
    monkeypatch.setattr(limited, "GRACE", 0.5)
    worker, processes = limited.Worker(STAGES), []
    for name, seconds, status, figures in (
        ("half_done", 60, "failed: ValueError: out of luck", {"rows": [1, 2], "of": "small"}),
        ("deadly", 60, "failed: its process ended with 3", {"rows": [1]}),
        ("endless", 3, "stopped: out of time", {"rows": [1]}),
    ):
        found, how = worker.run(name, "small", seconds)
        assert (how["status"], found) == (status, figures)
        found, how = worker.run("fine", None, 60)
        assert how["status"] == "ok"
        assert found["in_time"]
        processes.append(found["process"])
    again, _ = worker.run("fine", None, 60)
    worker.stop()
    assert len(set(processes)) == 3
    assert again["process"] == processes[-1]  # what went well keeps its process


def test_figures_join_part_by_part():
    joined = limited.merged({"a": [1], "b": {"c": 1}, "d": 1}, {"a": [2], "b": {"e": 2}, "d": 3})
    assert joined == {"a": [1, 2], "b": {"c": 1, "e": 2}, "d": 3}


@pytest.fixture
def run_gpu(monkeypatch, capsys):
    """Runs benchmarks/gpu.py --cpu, and gives what it prints with --json."""
    import gpu

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--cpu", "--json", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            gpu.main()
        assert not ended.value.code
        return json.loads(capsys.readouterr().out)

    return run


def test_the_program_for_gpus_starts_without_one(run_gpu, tmp_path):
    out = tmp_path / "result.json"
    out.write_text('{"stages": {"profile": {"status": "ok"}}, "profile": 1}', encoding="utf-8")
    printed, written = run_gpu("--stages", "best", "--out", out), json.loads(out.read_text(encoding="utf-8"))
    assert printed["stages"].keys() == {"environment", "best"}
    assert written["best"]["copy_gb_s"] == printed["best"]["copy_gb_s"] > 0
    assert written["stages"].keys() == {"environment", "best", "profile"}  # of an earlier run: kept
    assert written["profile"] == 1


@pytest.mark.slow
def test_every_stage_of_the_program_for_gpus_runs_through_on_a_cpu(run_gpu):
    result = run_gpu()
    assert {name: of["status"] for name, of in result["stages"].items()} == dict.fromkeys(
        result["stages"], "ok"
    )
    assert not result["correctness"]["operators"][0]["wrong"]
    assert all(same is True for same in (*result["streams"].values(), *result["graphs"].values()))
    assert all(same is True for same in result["large"].values())


@pytest.mark.slow
def test_tiles_are_tried_without_a_gpu_too(run_gpu):
    before = (ROOT / "kernels/tiles.json").read_bytes()
    tried = run_gpu("--tune")["tuning"]["tiles"]
    assert tried.keys() == json.loads(before).keys()
    assert (ROOT / "kernels/tiles.json").read_bytes() == before


def test_the_readme_quotes_the_newest_results_of_a_gpu():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    path = quoting.newest()
    if path is None:
        assert quoting.HEADING not in readme
        return
    missing = [line for line in quoting.lines(path) if line not in readme]
    assert not missing, "python benchmarks/quoting.py"


def test_what_is_quoted_is_what_was_measured(tmp_path):
    timed = {"san10-patchwise-bf16": {"ms": 0.1, "ratio": 1.234}, "resnet50-bf16": {"ms": 0.1234, "ratio": 1}}
    result = {
        "environment": {"gpu": "NVIDIA T4", "torch": "2.14"},
        "networks": {"train_batch64": timed, "infer_batch64": timed},
        "memory": {"san10-patchwise-bf16": {"saved_mib": 22.46, "largest_batch": 512}},
    }
    path = tmp_path / "2026-11-25-nvidia-t4-abc.json"
    path.write_text(json.dumps(result), encoding="utf-8")
    _, conditions, *table = quoting.lines(path)
    assert "NVIDIA T4" in conditions
    assert table[2:] == [
        "| SAN10 patchwise | 1.23 | 1.23 | 22.5 | 512 |",
        "| SAN15 patchwise | - | - | - | - |",
        "| SAN15 pairwise | - | - | - | - |",
        "| ResNet-50 | 1 (0.123 ms an image) | 1 (0.123 ms an image) | - | - |",
    ]


def test_the_table_of_tiles_says_where_each_is_from():
    table = json.loads((ROOT / "kernels/tiles.json").read_text(encoding="utf-8"))
    for kernel, entries in table.items():
        assert "*" in entries, kernel
        for entry in entries.values():
            assert entry["from"] == "untuned" or entry["ms"] > 0, kernel
