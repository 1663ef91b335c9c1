"""A run and a prepared folder for tests: a SAN10 with random weights whose last layer tells colours apart.

A module that has the fixture `few_blocks` among its names opens and runs it in half the time.
"""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from sancli import model
from sancli.data.dataset import evaluation_loader
from sancli.data.prepared import Sample
from sancli.data.preprocessing import Preprocessing
from sancli.model import san
from sancli.runs import ModelInfo, Run
from sancli.weights import fitting

COLOURS = {"blue": (30, 40, 200), "green": (40, 180, 60), "red": (210, 40, 30)}
CLASSES = tuple(COLOURS)
PREPROCESSING = Preprocessing(image_size=32)
BLOCKS = (1, 0, 0, 0, 0)


@pytest.fixture(scope="module", autouse=True)
def few_blocks():
    """SAN10 with one block of attention, in its first stage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(san.LAYERS, "san10", BLOCKS)
        patch.setitem(fitting.SAN_DEPTHS, BLOCKS, "SAN10")
        yield


def draw(path, colour, *, seed=0, size=(40, 36)):
    """One image of a colour, with noise."""
    noise = np.random.default_rng(seed).integers(-25, 26, (size[1], size[0], 3))
    pixels = (np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def prepared_folder(root, classes=CLASSES, *, split="test", images=4, colours=None):
    """A prepared folder with so many images a class; `colours` says which a class has, if not its name's."""
    for label, name in enumerate(classes):
        for number in range(images):
            colour = (colours or {}).get(name, name)
            draw(root / split / name / f"{number}.png", colour, seed=100 * label + number)
    manifest = {
        "name": root.name,
        "layout": "folders",
        "classes": list(classes),
        "counts": {split: dict.fromkeys(classes, images)},
        "unlabelled": 0,
        "median_short_side_px": 36,
        "source": {},
        "options": {},
        "format": 1,
    }
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


def trained_run(folder, data, *, classes=CLASSES, **info):
    """A run whose network is right about the colours: its last layer is fitted by least squares."""
    torch.manual_seed(0)
    network = model.build("san10", num_classes=len(classes)).eval()
    fit_head(network, data, classes)
    run = Run(folder)
    run.folder.mkdir(parents=True)
    known = {
        "name": folder.name,
        "classes": classes,
        "arch": "san10",
        "attention": "patchwise",
        "relation": None,
        "preprocessing": PREPROCESSING,
        "metrics": {"top1": 1.0},
        "epoch": 3,
        "data": {"name": data.name, "path": str(data), "sha256": sha256(data / "dataset.json")},
    }
    run.save_model(network.state_dict(), ModelInfo(**known | info))
    return run


def fit_head(network, data, classes):
    samples = [Sample(path, classes.index(path.parent.name)) for path in sorted(data.rglob("*.png"))]
    batch = next(iter(evaluation_loader(samples, PREPROCESSING, batch_size=len(samples), workers=0)))
    seen = []
    hook = network.fc.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    with torch.inference_mode():
        network(batch.images)
        hook.remove()
        features = torch.cat([seen[0], torch.ones(len(samples), 1)], 1)  # one more for the bias
        wanted = 4.0 * torch.nn.functional.one_hot(batch.labels, len(classes))
        solution = torch.linalg.lstsq(features.double(), wanted.double(), driver="gelsd").solution.float()
        network.fc.weight.copy_(solution[:-1].T)
        network.fc.bias.copy_(solution[-1])


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
