"""What benchmarks/gpu.py measures, part by part: each stage is a function in a file of this folder.

A stage is told the settings, and when to be done, on the clock of time.time(); it gives figures as they come.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from cases import AWKWARD, STAGES, Size

Figures = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How large everything is."""

    device: str = "cuda"
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    """Those that operators are checked in; the first two are those that they are timed in."""
    awkward: tuple[Size, ...] = AWKWARD
    layers: tuple[Size, ...] = STAGES
    many: int = 2**31
    """Elements of a tensor that takes more than 32 bits to count."""
    copied: int = 2**30
    """Bytes that are copied to measure the bandwidth."""
    size: int = 224
    batches: tuple[int, ...] = (64, 256)
    rounds: int = 5
    calls: int = 5
    """Steps in a row in each round."""
    patience: float = 1.0
    """Times the limits of time of the stages."""


SMALL = Settings(
    device="cpu",
    dtypes=(torch.float32,),
    awkward=AWKWARD[:1],
    layers=(Size(1, 9, 9, 7, 16, 8),),
    many=2**12,
    copied=2**20,
    size=32,
    batches=(2,),
    rounds=1,
    calls=1,
    patience=10.0,
)
"""To try the program on a CPU: its figures mean nothing."""


def in_time(items: Iterable[T], until: float) -> Iterator[T]:
    """The items, as long as there is time: what comes last is what can be missed."""
    for item in items:
        if time.time() >= until:
            return
        yield item


def name_of(dtype: torch.dtype) -> str:
    """Without torch in front."""
    return str(dtype).removeprefix("torch.")
