"""What goes wrong while a network learns: it stops in good order, says why, and nothing good is lost."""

import errno
import multiprocessing
import os
import resource
import signal
import time

import pytest
import torch
import training

from sancli import files
from sancli.engine import checkpoint
from sancli.errors import DataError, Interruption, StorageError, TrainingError, UsageError, WeightsError
from sancli.runs import Run
from sancli.tasks import train
from sancli.tasks.training import session as session_module


@pytest.fixture(autouse=True)
def micro(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr("sancli.model.build", training.build)
    monkeypatch.setattr("sancli.tasks.train.evaluate_split", lambda *_, **__: {})  # has its own tests


@pytest.fixture
def data(tmp_path):
    return training.prepare(tmp_path / "data" / "shapes")


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def before(monkeypatch, name, count, action):
    """Does something before the call number `count` of a function of the session."""
    original, calls = getattr(session_module, name), []

    def wrapped(*arguments, **options):
        calls.append(name)
        if len(calls) == count:
            action()
        return original(*arguments, **options)

    monkeypatch.setattr(session_module, name, wrapped)


def test_a_loss_that_is_not_finite_stops_before_the_update(data, runs):
    with pytest.raises(TrainingError) as stopped:
        train.run(training.config(data, runs, lr=1e30, epochs=20))
    error = stopped.value
    assert error.exit_code == 7
    assert "was not taken" in error.what
    assert "learning rate" in error.why
    assert str(runs / "run-001" / "last.ckpt") in error.fix
    state = checkpoint.load(runs / "run-001" / "last.ckpt")
    assert all(torch.isfinite(value).all() for value in state["network"].values())


def test_the_images_of_a_step_without_a_finite_loss_are_named(data, runs, monkeypatch):
    original = session_module.train_step

    def poisoned(learner, images, targets, **options):
        return original(learner, images * (float("nan") if options["number"] == 4 else 1), targets, **options)

    monkeypatch.setattr(session_module, "train_step", poisoned)
    with pytest.raises(TrainingError) as stopped:
        train.run(training.config(data, runs))
    assert stopped.value.what.startswith("step 5 was not taken: the loss is nan")
    assert ".png" in stopped.value.why
    assert checkpoint.load(runs / "run-001" / "last.ckpt")["progress"]["epoch"] == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_deleted_meanwhile_is_named(data, runs, monkeypatch, workers):
    before(monkeypatch, "summary", 1, lambda: (data / "train" / "disc" / "3.png").unlink())
    with pytest.raises(DataError, match=r"disc/3\.png: not found") as stopped:
        train.run(training.config(data, runs, workers=workers, epochs=3))
    assert "san train --resume" in stopped.value.fix
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_said_and_nothing_hangs(data, runs, monkeypatch):
    def kill():
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)  # seconds, of 5
    before(monkeypatch, "train_step", 1, kill)
    with pytest.raises(TrainingError, match="was killed") as stopped:
        train.run(training.config(data, runs, workers=1, epochs=9))
    assert "--workers 0" in stopped.value.fix
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(data, runs, monkeypatch, number):
    before(monkeypatch, "train_step", 2, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interruption) as stopped:
        train.run(training.config(data, runs, workers=1))
    assert stopped.value.exit_code == 128 + number
    assert checkpoint.load(runs / "run-001" / "last.ckpt")["progress"]["step"] == 2
    assert "epoch 1, step 2 of 3" in stopped.value.why
    assert not multiprocessing.active_children()
    assert signal.getsignal(number) is not None


def test_a_signal_during_a_save_waits_for_the_whole_file(data, runs, monkeypatch):
    original = checkpoint.torch.save
    calls = []

    def save(*arguments):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(checkpoint.torch, "save", save)
    with pytest.raises(Interruption):
        train.run(training.config(data, runs))
    assert checkpoint.load(runs / "run-001" / "last.ckpt")["progress"]["epoch"] == 1


def test_the_second_signal_stops_at_once_and_leaves_no_worker(data, runs, monkeypatch):
    read_end, write_end = os.pipe()

    def twice():
        os.write(write_end, str(multiprocessing.active_children()[0].pid).encode())
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    child = os.fork()
    if not child:
        try:
            before(monkeypatch, "train_step", 1, twice)
            train.run(training.config(data, runs, workers=1))
        finally:
            os._exit(0)
    worker = int(os.read(read_end, 20))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    wait_until(lambda: not alive(worker))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition):
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_full_disk_keeps_the_checkpoint_that_is_there(data, runs, monkeypatch):
    """Files may not grow past 20,000 bytes once the first checkpoint is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before(monkeypatch, "summary", 1, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard)))
    try:
        with pytest.raises(StorageError, match="no space") as stopped:
            train.run(training.config(data, runs))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert stopped.value.exit_code == 6
    assert "bytes are free" in stopped.value.why
    assert checkpoint.load(runs / "run-001" / "last.ckpt")["progress"]["epoch"] == 0
    assert not list((runs / "run-001").glob(".*.partial"))


def test_a_run_folder_that_is_deleted_is_said(data, runs, monkeypatch):
    run = Run(runs / "run-001")
    monkeypatch.setattr(session_module, "SAVE_EVERY_S", -1)
    before(monkeypatch, "train_step", 2, lambda: run.folder.rename(runs / "elsewhere"))
    with pytest.raises(StorageError):
        train.run(training.config(data, runs))
    assert not run.folder.exists()


def test_a_run_in_use_names_the_process(data, runs, monkeypatch):
    before(monkeypatch, "train_step", 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interruption):
        train.run(training.config(data, runs))
    run = runs / "run-001"
    with files.locked(run), pytest.raises(UsageError, match="in use") as refused:
        train.run(training.config(None, runs).replace(resume_from=run), given=frozenset({"resume_from"}))
    assert str(os.getpid()) in refused.value.why


def test_a_read_only_place_for_runs_is_said_before_any_work(data, runs, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(runs))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(StorageError, match="cannot be written"):
        train.run(training.config(data, runs))


def test_weights_that_are_asked_for_and_missing_are_one_clear_error(data, runs, monkeypatch):
    monkeypatch.setattr("sancli.weights.is_downloaded", lambda name: False)
    with pytest.raises(WeightsError, match="san10-patchwise"):
        train.run(training.config(data, runs, weights="imagenet"))
    assert not runs.exists()
