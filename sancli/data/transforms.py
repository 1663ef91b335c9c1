"""From a picture to what the network sees: the one evaluation view, and the training views that vary it.

torchvision is brought in by the training views alone: its import takes as long as torch itself (2 s,
nearly all of it torch._dynamo), and whoever only predicts should not wait for that.

Letters: N images, S the side of the square in pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil, floor
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sancli.data.preprocessing import Preprocessing

View = Callable[[Image.Image], Tensor]
Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
GREY = (128, 128, 128)
"""Of the bars of --crop pad: near the mean of any data, so that they weigh little."""


@dataclass(frozen=True)
class Augment:
    """How far a training view may stray from the evaluation view."""

    smallest_crop: float = 1.0
    """Share of the area that is always seen."""
    colour: float = 0.0
    """How much brightness, contrast and saturation may change."""
    flip: bool = True
    rand_augment: bool = False
    erase: float = 0.0
    """Share of the images that lose a rectangle."""


AUGMENTS = {
    "none": Augment(flip=False),
    "light": Augment(smallest_crop=0.8),
    "medium": Augment(smallest_crop=0.5, colour=0.2),
    "heavy": Augment(smallest_crop=0.25, colour=0.2, rand_augment=True, erase=0.25),
}
"""The values of --augment. Random numbers come from torch's global generator, which the data set seeds."""


def evaluation_view(preprocessing: Preprocessing) -> View:
    """The view for evaluation and prediction: a function from an RGB picture to [3, S, S], normalised."""
    return partial(_evaluation_view, preprocessing=preprocessing)  # a partial can be sent to another process


def _evaluation_view(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    if preprocessing.equalize:  # the whole picture, before any crop: a pixel has the same value in every view
        image = ImageOps.equalize(image)
    return _normalised(_square(preprocessing)(image, preprocessing.image_size), preprocessing)


def _square(preprocessing: Preprocessing) -> Callable[..., Image.Image]:
    if preprocessing.crop == "center":
        return partial(_center, share=preprocessing.crop_share)
    return SQUARES[preprocessing.crop]


def training_view(preprocessing: Preprocessing, augment: str) -> View:
    """A random view for training: a function from an RGB picture to [3, S, S], normalised."""
    from torchvision.transforms import InterpolationMode, v2

    how = AUGMENTS[augment]
    steps: list[Callable[..., Any]] = [ImageOps.equalize] if preprocessing.equalize else []
    steps += _random_crop(preprocessing, how.smallest_crop)
    if how.flip:
        steps.append(v2.RandomHorizontalFlip())
    if how.rand_augment:
        steps.append(v2.RandAugment(interpolation=InterpolationMode.BILINEAR, fill=list(GREY)))
    if how.colour:
        steps.append(v2.ColorJitter(how.colour, how.colour, how.colour))
    steps.append(partial(_normalised, preprocessing=preprocessing))
    if how.erase:
        steps.append(v2.RandomErasing(how.erase))
    view: View = v2.Compose(steps)
    return view


def mixing(*, mixup: float, cutmix: float, num_classes: int) -> Mixing | None:
    """What blends a batch and its labels, [N] to [N, classes]; None where nothing is asked."""
    if not (mixup or cutmix):
        return None
    from torchvision.transforms import v2

    ways: list[Mixing] = []
    if mixup:
        ways.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
    if cutmix:
        ways.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    mix: Mixing = v2.RandomChoice(ways)
    return mix


def visible(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalised images [N, 3, S, S] as they look: values from 0 to 1."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return (images * std + mean).clamp(0, 1)


def _center(image: Image.Image, side: int, share: float = 1.0) -> Image.Image:
    # Cropped first: the other order would make of 1 x 2000 pixels a picture S x 2000 S large.
    length = min(image.size)
    left, top = ((size - length) / 2 for size in image.size)  # may end in a half
    around = image.crop((floor(left), floor(top), ceil(left + length), ceil(top + length)))
    rim = (1 - share) / 2 * length  # not cut off: the filter sees beyond the box, as if all were shrunk first
    box = (left % 1 + rim, top % 1 + rim, left % 1 + length - rim, top % 1 + length - rim)
    return around.resize((side, side), Image.Resampling.BILINEAR, box=box)


def _squash(image: Image.Image, side: int) -> Image.Image:
    return _resized(image, (side, side))


def _pad(image: Image.Image, side: int) -> Image.Image:
    width, height = (max(1, round(side * length / max(image.size))) for length in image.size)
    square = Image.new("RGB", (side, side), GREY)
    square.paste(_resized(image, (width, height)), ((side - width) // 2, (side - height) // 2))
    return square


SQUARES = {"center": _center, "squash": _squash, "pad": _pad}
"""The values of --crop: a picture of any shape -> a square."""


def _random_crop(preprocessing: Preprocessing, smallest: float) -> list[Callable[..., Any]]:
    from torchvision.transforms import v2

    side = preprocessing.image_size
    if smallest == 1.0:
        return [partial(_square(preprocessing), side=side)]
    random_crop = v2.RandomResizedCrop(side, scale=(smallest, 1.0), antialias=True)
    if preprocessing.crop == "center":
        return [random_crop]
    large = round(side / smallest**0.5)  # enough for the smallest crop
    return [partial(SQUARES[preprocessing.crop], side=large), random_crop]


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR)  # Pillow's filter widens as it shrinks: antialiased


def _normalised(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()  # [3, S, S], 0 to 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return (pixels.float() / 255 - mean) / std
