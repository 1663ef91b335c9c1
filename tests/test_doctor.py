"""san doctor: one line for each thing, exit 0 on a machine that works, and words where one is broken."""

import importlib
import json

import pytest
import torch

from sancli.ops.cpu import library
from sancli.ops.cuda import loader
from sancli.ops.cuda.diagnosis import State
from sancli.tasks import doctor, selfcheck


def test_a_machine_that_works_is_told_so(san, tmp_path, monkeypatch):
    monkeypatch.setenv("SAN_CACHE", str(tmp_path))
    done = san("doctor", "--json")
    found = json.loads(done.stdout)
    assert done.code == 0
    assert found["ok"] is True
    assert [check["name"] for check in found["checks"]] == [
        "python", "torch", "libraries", "gpu", "gpu kernels", "compiler", "kernels", "operators", "disk",
        "weights",
    ]  # fmt: skip
    assert {check["state"] for check in found["checks"]} <= {"ok", "missing"}
    assert "none in " in found["checks"][-1]["text"]
    for check in found["checks"]:
        assert check["text"]
        assert "\n" not in check["text"]


def test_a_library_that_cannot_be_imported_ends_with_words_and_exit_5(san, monkeypatch):
    real = importlib.import_module

    def broken(name):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nand more")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", broken)
    done = san("doctor", "--json")
    assert done.code == 5
    assert "torchvision: RuntimeError: operator torchvision::nms does not exist." in done.stderr
    assert "fix: install into a fresh environment" in done.stderr
    assert json.loads(done.stdout)["ok"] is False


def test_a_wrong_operator_is_noticed(monkeypatch):
    monkeypatch.setattr(selfcheck.PatchwiseAttention, "forward", lambda layer, x: layer.conv3(x))
    monkeypatch.setattr(selfcheck, "BEFORE_NORM", ("conv1", "conv2", "conv_w"))
    with pytest.raises(AssertionError):  # most parameters get no gradient
        selfcheck.largest_difference("cpu")


def test_a_slightly_wrong_operator_is_noticed(monkeypatch):
    right = selfcheck.PatchwiseAttention.attend
    monkeypatch.setattr(selfcheck.PatchwiseAttention, "attend", lambda *args: right(*args) * 1.001)
    assert doctor.operators().state == "broken"


def test_the_check_changes_nothing():
    torch.manual_seed(7)
    wanted = torch.rand(1)
    torch.manual_seed(7)
    assert selfcheck.largest_difference("cpu") < 1e-5
    assert torch.equal(torch.rand(1), wanted)


def test_a_folder_that_cannot_be_written_is_said(monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert doctor.disk().state == "missing"
    assert "cannot be written" in doctor.disk().text


def test_a_missing_compiler_is_no_fault(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert doctor.compiler().state == "missing"


def test_a_compiler_that_does_not_answer_is_no_fault(monkeypatch, tmp_path):
    (tmp_path / "c++").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "c++").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    assert doctor.compiler().state == "missing"
    assert doctor.compiler().text.endswith("c++: the C++ compiler fails: exit code 3")


def test_where_there_are_no_kernels_the_reason_is_said_and_plain_pytorch_is_checked(monkeypatch):
    monkeypatch.setattr(library, "state", lambda _="float": library.State(None, library.PLAIN, "no luck"))
    assert doctor.kernels().state == "missing"
    assert doctor.kernels().text == "no luck; plain PyTorch does the work of a CPU"
    assert doctor.operators().text.startswith("plain PyTorch on ")


STATES = {
    "CUDA kernels (by NVRTC): aggregation": State(True, "CUDA kernels", "by NVRTC"),
    "CuPy is not installed; plain PyTorch does the work of a GPU": State(
        False, "plain PyTorch", "CuPy is not installed"
    ),
}


@pytest.mark.parametrize("text", STATES)
def test_beside_a_gpu_the_operators_with_kernels_are_named_or_why_there_are_none(monkeypatch, text):
    state = STATES[text]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loader, "state", lambda device: state)
    found = doctor.gpu_kernels()
    assert found.state == ("ok" if state.usable else "missing")
    assert found.text.startswith(text)


def test_what_is_checked_is_what_runs(monkeypatch):
    if library.state().kernels is None:
        pytest.skip(str(library.state()))
    ran, call = set(), library.Kernels.call
    monkeypatch.setattr(
        library.Kernels, "call", lambda own, name, *args: (ran.add(name), call(own, name, *args))
    )
    selfcheck.largest_difference("cpu")
    assert {"san_patchwise_attention", "san_patchwise_attention_backward"} <= ran
