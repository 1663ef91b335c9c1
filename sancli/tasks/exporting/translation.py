"""`san::aggregation` in ONNX's own operators.

Offset by offset, as the plain implementation has it: in onnxruntime a footprint that is written out takes
three to four times as long, and as many times the memory as it has pixels. Torch would trace these hundreds
of operators for minutes; they are put into the graph as they stand.
"""

import functools
from typing import Any

from onnxscript import opset18

from sancli.ops import reflected

op: Any = opset18  # its annotations know tensors alone, not the values of a graph


def aggregation(value: Any, weight: Any, kernel_size: int) -> Any:
    """The sum over each footprint of value [N, M, H, W], weighted by [N, K * K, G, H, W]: [N, M, H, W]."""
    channels, height, width = value.shape[1:]
    groups, reach = weight.shape[2], kernel_size // 2
    constant = functools.cache(lambda *values: op.Constant(value_ints=list(values)))  # each once a graph

    def slices(x: Any, axis: int, length: int, count: int) -> list[Any]:
        """`count` pieces of x, of so many lines each, that begin one line after another."""
        return [
            op.Slice(x, constant(start), constant(start + length), constant(axis)) for start in range(count)
        ]

    rows, columns = ([reflected(i, size) for i in range(-reach, size + reach)] for size in (height, width))
    padded = op.Gather(op.Gather(value, constant(*rows), axis=2), constant(*columns), axis=3)
    grouped = op.Reshape(padded, constant(-1, channels // groups, groups, len(rows), len(columns)))
    windows = [
        window
        for line in slices(grouped, 3, height, kernel_size)
        for window in slices(line, 4, width, kernel_size)
    ]
    shares = slices(weight, 1, 1, kernel_size**2)  # [N, 1, G, H, W]
    weighed = [op.Mul(window, share) for window, share in zip(windows, shares, strict=True)]
    return op.Reshape(functools.reduce(op.Add, weighed), constant(-1, channels, height, width))
