"""One ONNX file for programs that know neither torch nor us, held to what torch answers.

The only file with onnxruntime; the extra `onnx` brings it, and what torch.onnx and `translation` need.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sancli import console
from sancli.data.dataset import evaluation_loader
from sancli.data.prepared import Sample, open_prepared
from sancli.data.scenes import CLASSES, scene
from sancli.data.transforms import evaluation_view
from sancli.errors import DataError, WeightsError, check_extra
from sancli.files import replacing
from sancli.model.portable import portable
from sancli.runs import Model
from sancli.tasks.evaluate import own_data
from sancli.tasks.exporting.description import plain, write_beside

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
IMAGE, LOGITS = "image", "logits"
"""Names of the input [N, 3, S, S] and the output [N, classes]; N is any number."""
OPSET = 18
"""The oldest that torch writes by itself: every onnxruntime since 1.14 (2023) reads it."""
TRACED = 2
"""Images in the trace; one would be taken for a number that never changes."""
COMPARED = 12
"""Images that both are asked about."""
TOGETHER = 3
"""Of them in a batch, but for the first, which is alone."""
ALLOWED = 1e-3
"""Largest difference in a logit, as a share of the largest logit of all: other orders of sums give 1e-6 to
1e-5 in fp32, and a layer that is wrong gives 0.1 and more."""


class Difference(NamedTuple):
    """How far the answers of two programs lie apart."""

    largest: float
    """In any logit."""
    reach: float
    """The largest logit."""


def check_packages() -> None:
    """Refuses to begin where packages are missing.

    Raises:
        UsageError: With the command that brings them.
    """
    check_extra("--format onnx", "onnx", PACKAGES)


def write_onnx(model: Model, target: Path) -> dict[str, Any]:
    """Writes the graph with all weights, classes and preprocessing inside, and its description beside it.

    Returns:
        What is to be known of it: the difference to torch, and what it was measured on.

    Raises:
        WeightsError: onnxruntime answers otherwise than torch does; nothing is written.
        StorageError: No space, or a place that cannot be written.
    """
    view = model.info.preprocessing
    images, source = pictures(model)
    with console.busy("Writing the graph, and asking onnxruntime and torch"):
        content = graph(model.network, side=view.image_size, metadata=plain(model.info))
        difference = compared(model.network, content, images)
    with replacing(target) as partial:
        partial.write_bytes(content)
    write_beside(target, model.info)
    console.say(
        f"Largest difference to torch: {difference.largest:.1e} in a logit; they reach {difference.reach:.3g}"
        f" (onnxruntime, {source})"
    )
    shape = f"N, 3, {view.image_size}, {view.image_size}"
    console.say(f"It takes {IMAGE} [{shape}], normalised, and gives {LOGITS} [N, {len(model.info.classes)}]")
    if view.equalize:
        console.warn("equalizing the histograms is not in the graph: it is to be done to pictures before.")
    return {"difference": difference.largest, "largest_logit": difference.reach, "compared_on": source}


def inspection(model: Model, target: Path) -> tuple[object, ...]:
    """The command that shows how onnxruntime wants its pictures."""
    session = f"InferenceSession({json.dumps(str(target))})"
    about = f'{session}.get_modelmeta().custom_metadata_map["preprocessing"]'
    return "python", "-c", f"from onnxruntime import *; print({about})"


def pictures(model: Model) -> tuple[Tensor, str]:
    """Images [N, 3, S, S] as the network sees them, and in words which: the model's own data, else drawn."""
    view = model.info.preprocessing
    with suppress(DataError):
        prepared = open_prepared(own_data(model))
        split = "test" if prepared.total("test") else "val"
        samples = spread(prepared.samples(split))
        for images, *_ in evaluation_loader(samples, view, batch_size=COMPARED, workers=0):
            if len(images):
                return images, f"{console.plural(len(images), 'image')} of {prepared.name}, {split}"
    look = evaluation_view(view)
    drawn = [
        look(scene(kind, seed=f"{number}/{kind}", side=view.image_size))
        for number in range(COMPARED // len(CLASSES))
        for kind in CLASSES
    ]
    return torch.stack(drawn), f"{len(drawn)} drawn scenes"


def spread(samples: list[Sample]) -> list[Sample]:
    """A few of the samples, of as many classes as there are."""
    count = min(COMPARED, len(samples))
    return [samples[number * len(samples) // count] for number in range(count)]


def graph(network: nn.Module, *, side: int, metadata: Mapping[str, Any]) -> bytes:
    """The network as an ONNX file.

    Args:
        network: In eval mode, on the CPU.
        side: Of the images, in pixels.
        metadata: Written into the file, each value as JSON under its name.
    """
    from sancli.tasks.exporting.translation import aggregation

    images = torch.zeros(TRACED, 3, side, side)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's parts to each other
        program = torch.onnx.export(
            portable(network),
            (images,),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[IMAGE],
            output_names=[LOGITS],
            opset_version=OPSET,
            custom_translation_table={torch.ops.san.aggregation.default: aggregation},
            dynamo=True,
            optimize=False,  # which would take minutes; onnxruntime does it when it opens the file
            verbose=False,
        )
    assert program is not None
    written = program.model_proto
    for part in parts(written):  # the exporter notes there which lines of which files of this machine it saw
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for name, value in metadata.items():
        written.metadata_props.add(key=name, value=json.dumps(value))
    content: bytes = written.SerializeToString()
    return content


def parts(written: Any) -> Iterator[Any]:
    """The model and its graph, nodes, values and tensors."""
    inside = written.graph
    yield from (written, inside)
    for each in (inside.node, inside.value_info, inside.input, inside.output, inside.initializer):
        yield from each


def compared(network: nn.Module, content: bytes, images: Tensor) -> Difference:
    """How far apart onnxruntime and torch are on images; those on which torch diverges say nothing.

    Raises:
        WeightsError: Further than rounding explains, or torch diverges on all of them.
    """
    with torch.no_grad():
        wanted = network(images)
    given, sane = answers(content, images), wanted.isfinite().all(1)
    if not sane.any():
        raise WeightsError(
            "the ONNX file cannot be held to torch, and was not written.",
            why=f"the network diverges on each of {console.plural(len(images), 'image')}.",
            fix="export another epoch or run.",
        )
    difference, reach = float((given - wanted)[sane].abs().amax()), float(wanted[sane].abs().amax())
    if not difference <= ALLOWED * reach:  # NaN is none either
        raise WeightsError(
            "the ONNX file does not answer as torch does, and was not written.",
            why=f"a logit differs by {difference:.2g}; they reach {reach:.2g}.",
            fix="use --format safetensors, and report this with what san doctor prints.",
        )
    return Difference(difference, reach)


def answers(content: bytes, images: Tensor) -> Tensor:
    """What onnxruntime makes of images [N, 3, S, S], the first by itself: logits [N, classes]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    batches = [images[:1], *images[1:].split(TOGETHER)]
    given = [session.run([LOGITS], {IMAGE: batch.numpy()})[0] for batch in batches if len(batch)]
    return torch.from_numpy(np.concatenate(given))
