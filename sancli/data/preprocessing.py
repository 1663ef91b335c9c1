"""What is done to a picture before a network sees it: fixed in training, stored with the model."""

from dataclasses import asdict, dataclass
from typing import Any, Self

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The evaluation view of an image: training, evaluation and prediction read it from the model."""

    image_size: int
    """Side in pixels of the square that the network sees."""
    crop: str = "center"
    """center: the middle square; squash: the whole, stretched; pad: the whole, with grey bars."""
    equalize: bool = False
    """Histogram equalization of each RGB channel."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `to_dict` gave, after JSON made its tuples lists."""
        return cls(**values | {"mean": tuple(values["mean"]), "std": tuple(values["std"])})
