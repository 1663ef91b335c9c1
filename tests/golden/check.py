"""Compares our networks with numbers that the authors' own code made, in float64.

usage: python tests/golden/check.py FILE.npz [CASE...]     a case is arch:attention:HxW:batch:mode

Exits 0, or prints each value that differs (name, got, expected, difference, tolerance) and exits 1. FILE is
of the form that make_golden.py writes; README.md beside it says what is in it and why the tolerances are
what they are.
"""

import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))  # runs from a bare checkout too

from sancli.model import build

VALUES, GRADIENTS = 1e-8, 1e-6  # relative, float64
ZERO = 1e-9  # of the largest gradient norm: where the true gradient is 0, only rounding is left


def fill(name, shape):
    """The value of one state-dict entry: as in make_golden.py, which cannot be imported."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    count = int(np.prod(shape)) if len(shape) else 1
    wave = np.sin(np.arange(count) * 0.7310585 + (zlib.crc32(name.encode()) % 10007) * 0.013)
    if name.endswith("running_var"):
        value = 2.0 + 0.5 * wave
    elif name.endswith("running_mean"):
        value = 0.1 * wave
    elif name.endswith("bias"):
        value = 0.05 * wave
    elif len(shape) == 1:
        value = 1.0 + 0.2 * wave
    else:
        value = wave * (2.0 / np.prod(shape[1:])) ** 0.5
    value = value * (0.02 if ".conv_w.5." in name else 1) * (0.3 if name.endswith(".conv.weight") else 1)
    return torch.from_numpy(value.reshape(shape))


def noise(start, count, factor):
    return (np.arange(start, start + count, dtype=np.uint64) * factor % 2**32) / 2**32 - 0.5


def image(batch, height, width):
    count = batch * 3 * height * width
    wave = np.sin(np.arange(count) * 0.0123) + 2 * noise(0, count, 2654435761)
    return torch.from_numpy(wave.reshape(batch, 3, height, width))


def probe(shape):
    count = int(np.prod(shape))
    return torch.from_numpy((noise(1, count, 2246822519) / count**0.5).reshape(tuple(shape)))


def run(case):
    """What make_golden.py stores for a case, from our network."""
    arch, attention, size, batch, mode = case.split(":")
    net = build(arch, attention=attention, num_classes=1000).double()
    net.load_state_dict({name: fill(name, tuple(x.shape)) for name, x in net.state_dict().items()})
    x = image(int(batch), *map(int, size.split("x")))
    if mode == "eval":
        with torch.no_grad():
            return {"logits": net.eval()(x)}
    logits = net.train()(x.requires_grad_())
    loss = F.cross_entropy(logits, torch.arange(int(batch)) * 37 % 1000)
    loss.backward()
    names, parameters = zip(*net.named_parameters(), strict=True)
    buffers = dict(net.named_buffers())
    return {
        "logits": logits.detach(),
        "loss": loss.detach(),
        "image_grad": x.grad.sum((2, 3)),
        "grad_names": names,
        "grad_norms": torch.stack([p.grad.norm() for p in parameters]),
        "grad_probes": torch.stack([(p.grad * probe(p.shape)).sum() for p in parameters]),
        "running_mean_norms": torch.stack(
            [x.norm() for k, x in buffers.items() if k.endswith("running_mean")]
        ),
        "running_var_norms": torch.stack([x.norm() for k, x in buffers.items() if k.endswith("running_var")]),
    }


def tolerance(name, expected):
    """How far each number of `expected[name]` may be off."""
    value = np.abs(expected[name])
    if name.startswith("grad_"):
        norms = expected["grad_norms"]
        return np.maximum(GRADIENTS * norms, ZERO * norms.max())
    if name == "image_grad":
        return np.full_like(value, GRADIENTS * value.max())
    if name == "logits":
        return np.full_like(value, VALUES * value.max())
    return VALUES * value


def differences(case, expected):
    """A line for each number that is off."""
    got = run(case)
    names = got.pop("grad_names", ())
    lines = [f"{case} {name}: missing in the file" for name in got if name not in expected]
    if "grad_names" in expected and list(names) != expected["grad_names"].tolist():
        return [*lines, f"{case} grad_names: parameters or their order differ"]
    for name in got.keys() & expected.keys():
        value, wanted = got[name].numpy(), expected[name]
        if value.shape != wanted.shape:
            lines.append(f"{case} {name}: shape {value.shape}, expected {wanted.shape}")
            continue
        allowed = tolerance(name, expected)
        for i in np.argwhere(~(np.abs(value - wanted) <= allowed)):  # so that NaN differs too
            at, label = tuple(i), f" ({names[i[0]]})" if name.startswith("grad_") else ""
            lines.append(
                f"{case} {name}{list(map(int, i))}{label}: got {value[at]:.12g}, expected {wanted[at]:.12g},"
                f" off by {abs(value[at] - wanted[at]):.1e}, allowed {allowed[at]:.1e}"
            )
    return lines


def cases(file):
    """What is expected, case by case."""
    found = {}
    for key in file.files:
        case, _, name = key.rpartition("/")
        found.setdefault(case, {})[name] = file[key]
    return found


def main(path, *wanted):
    with np.load(path) as file:
        found = cases(file)
    lines = [line for case in wanted or found for line in differences(case, found[case])]
    print("\n".join(lines) or f"{len(wanted or found)} cases agree")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
