"""From a picture to what the network sees: the one evaluation view, and the training views that vary it.

Letters: N images, S the side of the square in pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

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
    side = preprocessing.image_size
    steps = [*_equalize(preprocessing), _square(preprocessing.crop, side), *_tensor(preprocessing)]
    view: View = v2.Compose(steps)
    return view


def training_view(preprocessing: Preprocessing, augment: str) -> View:
    """A random view for training: a function from an RGB picture to [3, S, S], normalised."""
    how, side = AUGMENTS[augment], preprocessing.image_size
    steps = [*_equalize(preprocessing), *_random_crop(preprocessing.crop, side, how.smallest_crop)]
    if how.flip:
        steps.append(v2.RandomHorizontalFlip())
    if how.rand_augment:
        steps.append(v2.RandAugment(interpolation=InterpolationMode.BILINEAR, fill=list(GREY)))
    if how.colour:
        steps.append(v2.ColorJitter(how.colour, how.colour, how.colour))
    steps += _tensor(preprocessing)
    if how.erase:
        steps.append(v2.RandomErasing(how.erase))
    view: View = v2.Compose(steps)
    return view


def mixing(*, mixup: float, cutmix: float, num_classes: int) -> Mixing | None:
    """What blends a batch and its labels, [N] to [N, classes]; None where nothing is asked."""
    ways: list[Mixing] = []
    if mixup:
        ways.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
    if cutmix:
        ways.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    if not ways:
        return None
    mix: Mixing = v2.RandomChoice(ways)
    return mix


def visible(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalised images [N, 3, S, S] as they look: values from 0 to 1."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return (images * std + mean).clamp(0, 1)


def _equalize(preprocessing: Preprocessing) -> list[View]:
    # The whole picture, before any crop: a pixel then has the same value in every view of it.
    return [v2.RandomEqualize(p=1.0)] if preprocessing.equalize else []


def _square(crop: str, side: int) -> Callable[[Image.Image], Image.Image]:
    def center(image: Image.Image) -> Image.Image:
        # Cropped first: the other order would make of 1 x 2000 pixels a picture S x 2000 S large.
        return _resized(F.center_crop(image, [min(image.size)]), (side, side))

    def squash(image: Image.Image) -> Image.Image:
        return _resized(image, (side, side))

    def pad(image: Image.Image) -> Image.Image:
        width, height = (max(1, round(side * length / max(image.size))) for length in image.size)
        square = Image.new("RGB", (side, side), GREY)
        square.paste(_resized(image, (width, height)), ((side - width) // 2, (side - height) // 2))
        return square

    return {"center": center, "squash": squash, "pad": pad}[crop]


def _random_crop(crop: str, side: int, smallest: float) -> list[Callable[[Image.Image], Image.Image]]:
    if smallest == 1.0:
        return [_square(crop, side)]
    random_crop = v2.RandomResizedCrop(side, scale=(smallest, 1.0), antialias=True)
    if crop == "center":
        return [random_crop]
    return [_square(crop, round(side / smallest**0.5)), random_crop]  # large enough for the smallest crop


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR)  # Pillow's filter widens as it shrinks: antialiased


def _tensor(preprocessing: Preprocessing) -> list[View]:
    return [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.ToPureTensor(),
        v2.Normalize(preprocessing.mean, preprocessing.std),
    ]
