"""A run that stopped and went on is, bit for bit, one that did not."""

import hashlib
import os
import random
import signal
import time
from contextlib import suppress

import pytest
import torch
import training

from sancli import weights
from sancli.engine import checkpoint
from sancli.errors import Interruption, UsageError, WeightsError
from sancli.runs import Run
from sancli.tasks import train
from sancli.tasks.training import session as session_module

OPTIONS = {"epochs": 3, "mixup": 0.2, "early_stop": 5}  # mixup and dropout: randomness in the main process


@pytest.fixture(autouse=True)
def micro(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr("sancli.model.build", training.build)
    monkeypatch.setattr("sancli.tasks.train.evaluate_split", lambda *_, **__: {})  # has its own tests


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training.prepare(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """What a run leaves that nobody stopped."""
    torch.set_num_threads(1)  # sums of floats depend on it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sancli.model.build", training.build)
        patch.setattr("sancli.tasks.train.evaluate_split", lambda *_, **__: {})
        runs = tmp_path_factory.mktemp("runs")
        train.run(training.config(data, runs, **OPTIONS))
    return Run(runs / "run-001")


def stop_at(monkeypatch, name, count, how=signal.SIGINT):
    """Sends the signal inside the call number `count` of a function of the session."""
    original, calls = getattr(session_module, name), []

    def wrapped(*arguments, **options):
        calls.append(name)
        if len(calls) == count:
            os.kill(os.getpid(), how)
        return original(*arguments, **options)

    monkeypatch.setattr(session_module, name, wrapped)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_equal(run, expected):
    one, other = checkpoint.load(run.checkpoint), checkpoint.load(expected.checkpoint)
    for state in (one, other):
        state["progress"].pop("seconds")
        state.pop("config")  # holds the place of the runs and the number of workers
    assert training.same(one, other)  # weights, optimizer, EMA, figures
    assert sha256(run.metrics) == sha256(expected.metrics)
    assert training.same(*(weights.read(path.weights) for path in (run, expected)))
    assert weights.read_info(run.weights) == weights.read_info(expected.weights)


@pytest.mark.parametrize(
    ("where", "count", "workers"),
    [
        ("train_step", 3, 0),
        ("train_step", 5, 2),
        ("summary", 1, 0),
        ("infer", 2, 0),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("train_step", 3, 2), ("train_step", 5, 0), ("summary", 1, 2), ("infer", 2, 2)]
        ),
    ],
)
def test_a_resumed_run_equals_one_that_did_not_stop(
    data, tmp_path, monkeypatch, uninterrupted, where, count, workers
):
    """Three steps an epoch: stopped at an epoch's end, in the middle, while measuring, before measuring."""
    with monkeypatch.context() as patch, pytest.raises(Interruption) as stopped:
        stop_at(patch, where, count)
        train.run(training.config(data, tmp_path, workers=workers, **OPTIONS))
    assert stopped.value.exit_code == 130
    assert f"san train --resume-from {tmp_path / 'run-001'}" in stopped.value.fix
    train.run(training.config(None, tmp_path).replace(resume=True), given=frozenset({"resume"}))
    assert_equal(Run(tmp_path / "run-001"), uninterrupted)


def test_stopping_after_every_single_step_changes_nothing(data, tmp_path, monkeypatch, uninterrupted):
    with monkeypatch.context() as patch:
        stop_at(patch, "train_step", 1)
        with pytest.raises(Interruption):
            train.run(training.config(data, tmp_path, **OPTIONS))
    run = Run(tmp_path / "run-001")
    while not (run.info.exists() and run.read_info().finished):
        with monkeypatch.context() as patch, suppress(Interruption):
            stop_at(patch, "train_step", 1)
            resume(run)
    assert_equal(Run(tmp_path / "run-001"), uninterrupted)


def test_a_run_from_weights_goes_on_across_the_end_of_the_frozen_epochs(data, tmp_path, monkeypatch):
    first, whole, parts = (tmp_path / name for name in ("first", "whole", "parts"))
    train.run(training.config(data, first, epochs=1, crop_share=0.875))
    options = {**OPTIONS, "epochs": 4, "freeze_epochs": 2, "weights": str(first / "run-001")}
    train.run(training.config(data, whole, **options))
    with monkeypatch.context() as patch:
        stop_at(patch, "train_step", 1)
        with pytest.raises(Interruption):
            train.run(training.config(data, parts, **options))
    run, bodies = Run(parts / "run-001"), []
    while not (run.info.exists() and run.read_info().finished):
        bodies.append(checkpoint.load(run.checkpoint)["network"]["body.0.weight"])
        with monkeypatch.context() as patch, suppress(Interruption):
            stop_at(patch, "train_step", 1)
            resume(run)
    assert_equal(run, Run(whole / "run-001"))
    start = weights.read(first / "run-001" / "model.safetensors")["body.0.weight"]
    assert [torch.equal(body, start) for body in bodies] == [True] * 6 + [False] * (len(bodies) - 6)
    assert len(bodies) == 12


def killed_after(seconds, function):
    """Runs the function in a child process, and kills it; whether it was still running."""
    child = os.fork()
    if not child:
        os.setsid()
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        try:
            function()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random_points_a_run_always_goes_on_to_the_same_end(data, tmp_path, uninterrupted, kills):
    """Each round resumes the last one's run; a round that has ended starts another."""
    rand, number = random.Random(0), 1
    for _ in range(kills):
        run = Run(tmp_path / f"run-{number:03}")
        if checkpoint.exists(run.checkpoint):
            go = training.config(None, tmp_path).replace(resume_from=run.folder)
            work = lambda go=go: train.run(go, given=frozenset({"resume_from"}))  # noqa: E731
        else:
            number = len(list(tmp_path.glob("run-*"))) + 1
            run = Run(tmp_path / f"run-{number:03}")
            work = lambda: train.run(training.config(data, tmp_path, **OPTIONS))  # noqa: E731
        if not killed_after(rand.uniform(0.02, 0.3), work):
            assert_metrics_and_state(run, uninterrupted)
            number += 1
    if checkpoint.exists(run.checkpoint) and checkpoint.load(run.checkpoint)["progress"]["epoch"] < 3:
        train.run(training.config(None, tmp_path).replace(resume_from=run.folder), given=frozenset())
        assert_metrics_and_state(run, uninterrupted)


def assert_metrics_and_state(run, expected):
    assert sha256(run.metrics) == sha256(expected.metrics)
    states = [checkpoint.load(path.checkpoint) for path in (run, expected)]
    assert all(training.same(states[0][key], states[1][key]) for key in ("network", "average", "optimizer"))


def stopped_run(data, tmp_path, monkeypatch, **changes):
    with monkeypatch.context() as patch, pytest.raises(Interruption):
        stop_at(patch, "train_step", 2)
        train.run(training.config(data, tmp_path, **changes))
    return Run(tmp_path / "run-001")


def resume(run, given=(), **changes):
    settings = training.config(None, run.folder.parent).replace(resume_from=run.folder, **changes)
    train.run(settings, given=frozenset({"resume_from", *given}))


@pytest.mark.parametrize("damage", ["truncate", "zero", "flip", "empty"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    data, tmp_path, monkeypatch, capsys, damage
):
    run = stopped_run(data, tmp_path, monkeypatch)
    content = bytearray(run.checkpoint.read_bytes())
    middle = len(content) // 2
    if damage == "flip":
        content[middle] ^= 0x10
    elif damage == "zero":
        content[middle : middle + 4096] = bytes(4096)
    else:
        content = content[: middle if damage == "truncate" else 0]
    run.checkpoint.write_bytes(content)
    resume(run)
    said = " ".join(capsys.readouterr().err.split())
    assert "Warning" in said
    assert "previous.ckpt, the one before" in said
    assert run.read_info().finished


def test_both_checkpoints_damaged_is_one_clear_error(data, tmp_path, monkeypatch):
    run = stopped_run(data, tmp_path, monkeypatch)
    run.checkpoint.write_bytes(b"")
    checkpoint.previous(run.checkpoint).write_bytes(b"half")
    with pytest.raises(WeightsError, match="no checkpoint that can be read"):
        resume(run)


def test_options_that_a_resumed_run_would_ignore_are_named(data, tmp_path, monkeypatch):
    run = stopped_run(data, tmp_path, monkeypatch)
    with pytest.raises(UsageError) as refused:
        resume(run, given=("lr", "arch"), lr=0.5, arch="san15")
    assert "--arch san15 (the run has san10)" in refused.value.what
    assert "--lr 0.5 (the run has 0.00025)" in refused.value.what


def test_an_option_that_says_what_the_run_has_is_no_error(data, tmp_path, monkeypatch):
    run = stopped_run(data, tmp_path, monkeypatch)
    resume(run, given=("arch",), arch="san10")
    assert run.read_info().finished


def test_more_epochs_at_resume_are_a_new_plan_that_is_said(data, tmp_path, monkeypatch, capsys):
    run = stopped_run(data, tmp_path, monkeypatch)
    resume(run, given=("epochs",), epochs=4)
    assert "New plan: 4 epochs instead of 2" in capsys.readouterr().err
    assert len(run.metrics.read_text().splitlines()) == 5


def test_the_plan_of_a_resumed_run_tells_the_time_that_is_left(data, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(Interruption):
        stop_at(patch, "train_step", 4)  # of nine
        train.run(training.config(data, tmp_path, **OPTIONS))
    assert " epochs that are left" not in capsys.readouterr().err
    resume(Run(tmp_path / "run-001"))
    shown = capsys.readouterr().err
    assert " for the 1.67 epochs that are left: " in shown
    assert "(as before)" in shown  # its device was not asked for again


def test_a_complete_run_says_how_to_give_it_more(data, tmp_path):
    train.run(training.config(data, tmp_path, epochs=1))
    with pytest.raises(UsageError, match="complete"):
        resume(Run(tmp_path / "run-001"))
    with pytest.raises(WeightsError, match="no unfinished run"):
        train.run(training.config(None, tmp_path).replace(resume=True), given=frozenset({"resume"}))


def test_other_classes_at_resume_are_named(data, tmp_path, monkeypatch):
    run = stopped_run(data, tmp_path, monkeypatch)
    other = training.prepare(tmp_path / "other", classes=("disc", "ring"))
    with pytest.raises(UsageError) as refused:
        resume(run, given=("data",), data=other)
    assert "gone: square; new: ring" in refused.value.what


def test_other_images_at_resume_are_refused(data, tmp_path, monkeypatch):
    run = stopped_run(data, tmp_path, monkeypatch)
    other = training.prepare(tmp_path / "other", {"train": 4, "val": 2})
    with pytest.raises(UsageError, match="other images"):
        resume(run, given=("data",), data=other)
