"""The operators in CUDA: each module here registers its own for torch's CUDA key when it is imported."""

from sancli.ops.cuda import (  # noqa: F401
    aggregation,
    pairwise,
    patchwise,
    stem,
    trunk,
)
