"""A module of CUDA operators beside its plain twin in float64: what the tests of trunk and of stem share."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import formulas
import pytest
import torch

from sancli.ops.cuda import channels

# Largest difference to float64, as a share of the largest value: sums of rounded products; 16 bits once more
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
slow = pytest.mark.slow


def cases(shapes, every_type):
    """Each shape in float, and one in bfloat16; with -m slow each shape in every type.

    A type decides how long vectors are, a size what lies at the edges.
    """
    quick = [(shape, torch.float32) for shape in shapes] + [(every_type, torch.bfloat16)]
    rest = [(shape, dtype) for shape in shapes for dtype in TOLERANCE if (shape, dtype) not in quick]
    return [*quick, *(pytest.param(*case, marks=slow) for case in rest)]


def norm_of(channels, batch, dtype, seed=0):
    """Of the type that maps of this type are computed in."""
    *tensors, eps = formulas.norm(channels, batch=batch, seed=seed, dtype=torch.float64)
    real = torch.promote_types(dtype, torch.float32)
    return *(None if t is None else t.detach().to(real) for t in tensors), eps


def in_float64(case):
    return torch.utils._pytree.tree_map(lambda t: t.double() if isinstance(t, torch.Tensor) else t, case)


def assert_near(got, wanted, share):
    """Of two rows of names and tensors."""
    for (name, a), (_, b) in zip(got, wanted, strict=True):
        assert a.shape == b.shape, name
        assert (a.double() - b).abs().max() <= share * (1 + b.abs().max()), name


@dataclass(frozen=True)
class Twins:
    """The two, how inputs are made, and all that they give of these, with names."""

    cuda: ModuleType
    plain: ModuleType
    made: Callable
    """made(shape, batch, dtype, seed)."""
    outputs: Callable
    """outputs(module, *made, batch=batch)."""

    def check(self, emulated, shape, batch, dtype, seed=0, slack=1):
        """The kernels run, and give what plain PyTorch gives in float64."""
        case = self.made(shape, batch, dtype, seed)
        got = list(self.outputs(self.cuda, *case, batch=batch))
        assert emulated.launches
        wanted = self.outputs(self.plain, *in_float64(case), batch=batch)
        assert_near(got, wanted, slack * TOLERANCE[dtype])

    def check_many(self, emulated, monkeypatch, count):
        """Shapes, types and statistics by lot, cut into as many parts as there can be."""
        monkeypatch.setattr(channels, "EACH", 1)
        pick = random.Random(0)
        for seed in range(count):
            shape = pick.choice([1, 2, 3]), pick.randint(1, 80), pick.randint(2, 20), pick.randint(2, 20)
            dtype = pick.choice([*TOLERANCE])  # sums of a small map can add up what 16 bits rounded
            self.check(emulated, shape, seed % 2 == 0, dtype, seed, slack=4 if dtype.itemsize == 2 else 1)

    def check_widths(self, emulated, monkeypatch, shape, batch):
        """Vectors of four and of one give the same. Returns the kernels of the narrow ones."""
        case = self.made(shape, batch, torch.float32)
        wide = list(self.outputs(self.cuda, *case, batch=batch))
        monkeypatch.setattr(channels, "vector_of", lambda x, channels: 1)
        narrow = self.outputs(self.cuda, *case, batch=batch)
        assert_near(wide, [(name, x.double()) for name, x in narrow], 2e-6)
        return {kernel for kernel, *_ in emulated.launches if kernel.endswith(", 1>")}

    def check_parts(self, emulated, monkeypatch, shape):
        """Of a pixel a thread: many parts, the last of which is not full. Returns how many, by kernel."""
        monkeypatch.setattr(channels, "EACH", 1)
        self.check(emulated, shape, True, torch.float32)
        return {kernel: grid[0] for kernel, grid, *_ in emulated.launches}

    def rehearse(self, emulated, cases):
        """Compiles what the quick ones of these need, as many kernels at once as there are cores."""
        with emulated.rehearsal():
            for shape, dtype in (case for case in cases if type(case) is tuple):
                list(self.outputs(self.cuda, *self.made(shape, True, dtype), batch=True))
