"""The Python interface: a model that is loaded once and asked about pictures."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

import torch
from torch import Tensor, nn

from sancli.data.images import BadImage, Picture, open_picture
from sancli.data.transforms import evaluation_view
from sancli.engine.device import Device, choose
from sancli.engine.loop import infer
from sancli.errors import DataError
from sancli.model.bounded import Bounded
from sancli.model.captured import captured
from sancli.model.prepared import prepared
from sancli.runs import Model, open_model
from sancli.tasks.inference.asking import best

Answer = list[tuple[str, float]]
"""Labels with their probabilities, the highest first."""
BATCH_SIZE = 64
P = TypeVar("P", bound=Picture)


class Views(NamedTuple):
    """A batch for the network."""

    images: Tensor
    """[N, 3, S, S]"""


class Predictor:
    """A model to be asked from Python; `load` makes it."""

    def __init__(self, model: Model, device: Device) -> None:
        self.model, self.device = model, device
        device.place(model.network)
        self.view = evaluation_view(model.info.preprocessing)

    def __repr__(self) -> str:
        info = self.model.info
        network = f"{info.arch} {info.attention}, {len(info.classes)} classes"
        return f"<{info.name}: {network}, on {self.device.describe()}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that it knows."""
        return self.model.info.classes

    @overload
    def predict(self, images: Picture, *, topk: int = 5) -> Answer: ...
    @overload
    def predict(self, images: list[P], *, topk: int = 5) -> list[Answer]: ...
    def predict(self, images: Picture | list[P], *, topk: int = 5) -> Answer | list[Answer]:
        """The likeliest labels with their probabilities, the highest first: [("forest", 0.97), ...].

        Args:
            images: A path or a Pillow image; or a list of them, which gives a list of answers.
            topk: How many labels. An image on which the network diverges gets none.

        Raises:
            DataError: An image cannot be read.
        """
        if not isinstance(images, list):
            return self._answers([images], topk)[0]
        starts = range(0, len(images), BATCH_SIZE)
        return [answer for i in starts for answer in self._answers(images[i : i + BATCH_SIZE], topk)]

    def _answers(self, pictures: Sequence[Picture], topk: int) -> list[Answer]:
        batch = Views(torch.stack([self._view(picture) for picture in pictures]))
        network = self._network_for_one if len(pictures) == 1 else self._network
        ((_, logits),) = infer(network, [batch], device=self.device)
        return [list(top) for top in best(logits, self.classes, count=topk)]

    @cached_property
    def _network(self) -> nn.Module:
        return Bounded(self.model.network, captured(self.model.network, self.device.torch_device))

    @cached_property  # made when it is first needed: that takes as long as an answer
    def _network_for_one(self) -> nn.Module:
        side = self.model.info.preprocessing.image_size
        on_cpu = self.device.torch_device.type == "cpu" and self.device.precision == "fp32"
        network = self.model.network
        return Bounded(network, prepared(network, side=side)) if on_cpu else self._network

    def _view(self, picture: Picture) -> Tensor:
        try:
            return self.view(open_picture(picture, enough_px=self.model.info.preprocessing.enough_px))
        except BadImage as bad:
            raise DataError(
                f"{picture} was not read.", why=f"{bad.reason}.", fix="check the file, or leave it out."
            ) from None


def load(
    spec: str | Path, *, device: str = "auto", precision: str = "auto", download: bool = False
) -> Predictor:
    """A model that is ready to predict.

    Args:
        spec: A run's folder, a .safetensors file of one, a published network ("san15-patchwise"), or a
            repository of the Hugging Face Hub ("OWNER/NAME"); the last two as they were downloaded.
        device: auto, cuda, mps or cpu.
        precision: auto, fp32, bf16 or fp16.
        download: Fetch what is not here; without it the network is not touched.

    Raises:
        WeightsError: It is not there, or damaged, or cannot be had.
        DeviceError: The device is not there.
    """
    if download and not Path(spec).exists():
        from sancli.tasks.download_weights import obtain_for

        obtain_for(str(spec))
    return Predictor(open_model(str(spec)), choose(device, precision))
