"""The device and the precision: what is asked for is there, or it is an error."""

import pytest
import torch

from sancli.engine.device import choose
from sancli.errors import DeviceError, UsageError


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "mps"):
        with pytest.raises(DeviceError, match=f"--device {name} is not there"):
            choose(name, "auto")


def test_without_a_gpu_the_cpu_is_chosen_and_says_why(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    device = choose("auto", "auto")
    assert (device.torch_device.type, device.precision) == ("cpu", "fp32")
    assert "no GPU here" in device.describe()


def test_half_precision_needs_a_gpu():
    with pytest.raises(UsageError, match="fp16 does not work on a CPU"):
        choose("cpu", "fp16")


def test_bf16_multiplies_in_bf16_and_fp32_does_not():
    x = torch.randn(2, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with choose("cpu", precision).autocast():
            assert (x @ x).dtype == dtype


def test_batches_and_networks_have_their_channels_innermost():
    device = choose("cpu", "fp32")
    assert device.send(torch.zeros(2, 3, 4, 5)).is_contiguous(memory_format=torch.channels_last)
    conv = device.place(torch.nn.Conv2d(2, 3, 3))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_free_memory_is_known_on_linux():
    free = choose("cpu", "fp32").free_bytes()
    assert free is None or free > 2**20
