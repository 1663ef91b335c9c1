"""san demo: what it echoes is what it runs, it writes only into a new folder, and its pieces fit together."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from small_run import few_blocks  # noqa: F401 -- a fixture

from sancli import cli, console
from sancli.config import DemoConfig, TrainConfig
from sancli.data.prepared import open_prepared
from sancli.tasks import demo, evaluate, predict, prepare, train

COMMANDS = {
    "prepare": (demo.PREPARE, prepare),
    "train": (demo.TRAIN, train),
    "eval": (demo.EVALUATE, evaluate),
    "predict": (demo.PREDICT, predict),
}


@pytest.fixture(autouse=True)
def quick_figures():
    """Not here: one whole run draws its real ones."""


@pytest.fixture
def seen(monkeypatch):
    """Replaces the four tasks by one that writes down what it was given."""
    seen = []
    for _, task in COMMANDS.values():
        monkeypatch.setattr(task, "run", lambda config, **_: seen.append(config))
    return seen


@pytest.mark.parametrize("name", COMMANDS)
def test_the_echoed_command_gives_the_settings_that_run(name, seen, monkeypatch):
    config, _ = COMMANDS[name]
    words = shlex.split(demo.command_line(name, config))
    assert words[:2] == ["san", name]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        cli.main()
        sys.exit(0)
    assert seen == [config]


def test_values_with_blanks_are_quoted():
    config = TrainConfig(name="my run", data=Path("my data"))
    assert demo.command_line("train", config) == "san train 'my data' --name 'my run'"


def test_the_demo_draws_echoes_and_runs_in_a_new_folder(seen, san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "DRAWN", {"train": 4, "test": 1, "unlabelled": 2, "side": 16})
    done = san("demo", "my demo")
    assert done.code == 0, done.stderr
    assert Path.cwd() == tmp_path, "the demo leaves the folder that it worked in"
    assert seen == [config for config, _ in COMMANDS.values()]
    for line in ("$ cd 'my demo'", "$ san prepare scenes", "$ san eval", "cut off in the middle"):
        assert line in done.stderr
    assert done.stderr.rstrip().endswith("Now your own images: san prepare PATH")

    (tmp_path / "my demo" / "scenes" / "mine.txt").write_text("keep")
    again = san("demo", "my demo")
    assert "my demo-002" in again.stderr
    assert (tmp_path / "my demo" / "scenes" / "mine.txt").read_text() == "keep"
    assert (tmp_path / "my demo-002" / "scenes" / "seg_train").is_dir()


def test_json_stays_one_object(san, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "DRAWN", {"train": 4, "test": 1, "unlabelled": 2, "side": 16})
    for name, (_, task) in COMMANDS.items():
        monkeypatch.setattr(task, "run", lambda config, name=name: console.emit({"command": name}))
    done = san("demo", tmp_path / "d", "--json")
    found = json.loads(done.stdout)
    assert found["command"] == "demo"
    assert [found[name]["command"] for name in COMMANDS] == list(COMMANDS)


def test_prepare_finds_every_planted_fault(san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for task in (train, evaluate, predict):
        monkeypatch.setattr(task, "run", lambda config: None)
    monkeypatch.setattr(demo, "DRAWN", {"train": 24, "test": 3, "unlabelled": 2, "side": 24})
    done = san("demo")
    assert done.code == 0, done.stderr
    data = open_prepared(Path("san-demo/data/scenes"))
    assert data.classes == ("buildings", "forest", "glacier", "mountain", "sea", "street")
    assert data.total("test") == 18
    assert data.manifest.unlabelled == 2
    assert data.manifest.counts["train"]["glacier"] == 5
    problems = (data.root / "problems.csv").read_text()
    for fault in ("forest/0000.jpg,truncated", "sea/0002.jpg", ",dropped"):
        assert fault.split(",")[0] in problems
    assert "turned upright" in done.stderr
    assert "glacier" in done.stderr


def test_the_demo_trains_evaluates_and_predicts(san, tmp_path, monkeypatch):
    """The whole of it, on a few tiny images: that it learns is measured by hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "DRAWN", {"train": 8, "test": 1, "unlabelled": 2, "side": 32})
    monkeypatch.setattr(demo, "TRAIN", demo.TRAIN.replace(epochs=1, image_size=32, lr=1e-4, workers=0))
    done = san("demo", "--json")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"prepare", "train", "eval", "predict"} <= found.keys()
    assert 0 <= found["eval"]["top1"] <= 1
    assert DemoConfig().folder == Path("san-demo")
    assert len(list(Path("san-demo/runs").glob("*/model.safetensors"))) == 1
