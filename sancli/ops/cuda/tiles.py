"""How much work a block and a thread of a tiled kernel take: one table, which a tuning pass overwrites.

kernels/tiles.json holds, for each kernel, tiles under keys from the special to the general: "bfloat16 7 8"
(type, K and G), "bfloat16 7", "bfloat16", "*". Each says where it is from: a measurement, or "untuned".
"""

import functools
import json
from typing import Any

import torch

from sancli.ops.cuda.sources import folder

TABLE = "tiles.json"


def tile(kernel: str, dtype: torch.dtype, kernel_size: int, groups: int) -> tuple[int, ...]:
    """The most special tile that the table has; the kernel's source says what its numbers mean."""
    entries, name = table()[kernel], str(dtype).removeprefix("torch.")
    keys = f"{name} {kernel_size} {groups}", f"{name} {kernel_size}", name, "*"
    return tuple(next(entries[key]["tile"] for key in keys if key in entries))


@functools.cache
def table() -> dict[str, Any]:
    """All of it."""
    read: dict[str, Any] = json.loads((folder() / TABLE).read_text(encoding="utf-8"))
    return read
