"""Compact self-attention image networks on your own images.

from sancli import load
model = load("runs/intel-scenes-san15-001")
model.predict("photo.jpg")  # [("forest", 0.97), ("mountain", 0.02), ...]
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sancli.tasks.inference.predictor import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """Brings torch in only when `load` is asked for, so that `import sancli` is instant."""
    if name == "load":
        from sancli.tasks.inference.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
