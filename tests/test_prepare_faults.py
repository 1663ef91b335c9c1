"""`san prepare` that is killed, or finds no room: nothing half-made stays, and run again it completes."""

import importlib
import os
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from folders import class_tree, contents, fill, fill_tar, fill_zip

import sancli
from sancli import console
from sancli.data.preparation import room

PETS = class_tree("cat", "dog", count=10)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(archive):
    env = os.environ | {"PYTHONPATH": str(Path(sancli.__file__).parent.parent)}
    command = [sys.executable, "-m", "sancli", "prepare", archive]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_kill_9_at_any_point_and_run_again_gives_the_files_of_one_run(place, monkeypatch):
    """The long campaign is benchmarks/prepare_kills.py, with its results."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    found = importlib.import_module("prepare_kills").run(place, "zip", kills=2, count=40, seed=0)
    assert found.wrong == []
    assert found.killed == 2
    assert found.killed + found.ended_before == found.nothing_there + found.whole_there


def test_sigterm_leaves_nothing(place):
    fill_zip("a.zip", class_tree("cat", "dog", count=200))
    with start("a.zip") as process:
        deadline = time.monotonic() + 20
        while not list(Path().glob("data/.a.*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.terminate()
        process.communicate()
    assert process.returncode == 143
    assert not Path("data").exists()


def test_a_full_disk_is_said_and_leaves_nothing(san, place, monkeypatch):
    fill("pets", PETS)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full)
        outcome = san("prepare", "pets", "--link", "copy")
    assert outcome.code == 6
    assert "no space" in outcome.stderr
    assert not Path("data").exists()
    monkeypatch.setattr(room, "free_bytes", lambda _: 10)
    needed = sum(path.stat().st_size for path in Path("pets").rglob("*.png"))
    for source, options in ((fill_zip("a.zip", PETS), ()), ("pets", ("--link", "copy"))):
        outcome = san("prepare", source, *options)
        assert outcome.code == 6
        assert f"it needs {console.size(needed)}, and 10 B are free at data" in outcome.stderr
        assert not Path("data").exists()
    assert san("prepare", "pets", "--link", "hard").code == 0


@contextmanager
def no_file_over(size):
    """A disk that is full, as the system says it: a write goes so far, and then fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("source", ["pets", "a.zip", "a.tar.gz", "b.zip"])
def test_a_disk_that_is_full_in_the_middle_of_a_file(san, place, source):
    tree = PETS | {"cat/large.png": os.urandom(200_000)}
    fill("pets", tree)
    fill_tar("a.tar.gz", tree, "w:gz")
    inner = fill_zip("a.zip", tree).read_bytes()
    fill_zip("b.zip", {"a.zip": inner})
    before = contents(place)
    with no_file_over(100_000):
        outcome = san("prepare", source, "--link", "copy" if source == "pets" else "auto", "--bad", "skip")
    if source == "pets":  # the large one is no image, and is not copied
        assert outcome.code == 0
        return
    assert outcome.code == 6, outcome.stderr
    assert "no space to write" in outcome.stderr
    assert not Path("data").exists()
    assert contents(place) == before
