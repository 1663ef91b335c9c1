"""The operators in C++: each module here registers its own for torch's CPU key when it is imported."""

from sancli.ops.cpu import aggregation, pairwise, patchwise, stem, trunk  # noqa: F401
