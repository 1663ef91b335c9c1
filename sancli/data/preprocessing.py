"""What is done to a picture before a network sees it: fixed in training, stored with the model."""

from dataclasses import asdict, dataclass
from typing import Any, Self

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST = 4096
"""Side of an image, of which a model that was not trained here may ask."""
SPARE = 3
"""Pixels of a picture that are enough, along a side, for one that the network sees. A crop of a quarter of
the area, 0.43 of a side at the narrowest, is still shrunk, never enlarged.

Source: measured on photos of 12 megapixels with much detail, decoded at a quarter of their sides: evaluation
views of 224 px are off by 0.3 to 0.6 of 255 on average; from file to view, one of 3 MB takes 34 ms instead of
133, one of 6 MB, mostly noise, 60 instead of 155."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The evaluation view of an image: training, evaluation and prediction read it from the model."""

    image_size: int
    """Side in pixels of the square that the network sees."""
    crop: str = "center"
    """center: the middle square; squash: the whole, stretched; pad: the whole, with grey bars."""
    crop_share: float = 1.0
    """Side of the middle square over the short side of the image; timm's crop_pct. 0.875 is 224 of 256, as
    most networks for ImageNet were measured. The other crops show the whole."""
    equalize: bool = False
    """Histogram equalization of each RGB channel."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def enough_px(self) -> int:
        """Short side of a picture that has enough detail for every view, those of training too."""
        return SPARE * self.image_size

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `to_dict` gave, after JSON made its tuples lists.

        Raises:
            KeyError, TypeError, ValueError: It was not made by `to_dict`.
        """
        if not 1 <= values["image_size"] <= LARGEST:
            raise ValueError(f"its image_size {values['image_size']} is none")
        return cls(**values | {"mean": tuple(values["mean"]), "std": tuple(values["std"])})
