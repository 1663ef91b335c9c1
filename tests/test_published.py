"""A published network on a validation set: figures that are known beforehand, beside the published ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import few_blocks  # noqa: F401 -- a fixture

from sancli import model, weights
from sancli.data.imagenet import names
from sancli.data.prepared import Sample
from sancli.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from sancli.engine.metrics import wilson
from sancli.model.imagenet import imagenet_classes
from sancli.runs import ModelInfo
from sancli.tasks.evaluate import matched
from sancli.tasks.inference.published import beside_published, published_for, show_published

SIZES = ((64, 64), (80, 80), (160, 128), (96, 192))
RANKS = (0, 0, 3, 7, 0, 2, 5, 0)
"""Of its true class among the network's answers, image by image: four are right, six among the first five."""
WNIDS = tuple(names())


def info(**changes):
    known = {
        "name": "san10-patchwise",
        "classes": imagenet_classes(),
        "arch": "san10",
        "attention": "patchwise",
        "relation": None,
        "preprocessing": Preprocessing(image_size=56, crop_share=0.875),
    }
    return ModelInfo(**known | changes)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Eight drawn validation images, the cache with a network, and the wnids that make RANKS true."""
    from torchvision import transforms

    root = tmp_path_factory.mktemp("imagenet")
    (root / "images").mkdir()
    torch.manual_seed(0)
    network = model.build("san10", num_classes=1000).eval()
    by_torchvision = transforms.Compose(
        [
            transforms.Resize(64),
            transforms.CenterCrop(56),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    truth = []
    for number, rank in enumerate(RANKS, 1):
        width, height = SIZES[number % len(SIZES)]
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        path = root / "images" / f"ILSVRC2012_val_{number:08}.JPEG"
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path, "JPEG")
        with Image.open(path) as image, torch.inference_mode():
            logits = network(by_torchvision(image)[None])[0]
        truth.append(WNIDS[int(logits.argsort(descending=True)[rank])])
    target = root / "cache" / "weights" / "san10-patchwise.safetensors"
    weights.save(target, network.state_dict(), info=json.dumps(info().to_dict()))
    return root, truth


@pytest.fixture
def place(imagenet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAN_CACHE", str(imagenet[0] / "cache"))
    return tmp_path


def lines(values):
    return "".join(f"{value}\n" for value in values)


def test_flat_images_and_labels_give_the_figures_that_were_counted_by_hand(san, imagenet, place):
    root, truth = imagenet
    Path("truth.txt").write_text(lines(truth))
    prepared = san("prepare", root / "images", "data/val", "--labels", "truth.txt")
    assert prepared.code == 0, prepared.stderr
    proposed = prepared.stderr.splitlines()[-1].removeprefix("Next: san ").split()
    assert proposed == ["eval", "--weights", "san10-patchwise", "--data", "data/val", "--split", "val"]
    outcome = san(*proposed)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.startswith("Top-1 50.0 % (95 % CI 21.5-78.5, n=8)")
    assert "top-5 75.0" in outcome.stdout
    assert "Published for san10-patchwise: top-1 77.1 %, top-5 93.5, on all 50,000 val" in outcome.stdout
    assert "The difference of -27.1 points is within chance for 8 images" in outcome.stdout
    present = len(set(truth))
    assert f"{present} of 1,000 classes have images here; answers are still among all 1,000" in outcome.stderr
    figures = json.loads(next(Path("runs").rglob("metrics.json")).read_text())
    assert figures["classes_with_images"] == present
    assert figures["published"]["within_chance"] is True
    assert figures["published"]["difference"] == pytest.approx(0.5 - 0.771)


@pytest.mark.parametrize(
    "folder_of", [str, names().get, lambda wnid: names()[wnid].replace(" ", "_")], ids=["wnid", "name", "_"]
)
@pytest.mark.parametrize("known", [imagenet_classes(), WNIDS], ids=["names", "wnids"])
def test_all_folders_are_matched_by_wnid_or_name_wherever_they_stand_in_the_alphabet(folder_of, known):
    folders = sorted(map(folder_of, WNIDS))
    found = matched([Sample(Path(name), label) for label, name in enumerate(folders)], folders, known)
    assert [folder_of(WNIDS[sample.label]) for sample in found] == folders


def test_without_published_weights_the_next_command_is_how_to_get_them(san, imagenet, place, monkeypatch):
    monkeypatch.setenv("SAN_CACHE", str(place / "nothing"))
    Path("truth.txt").write_text(lines(imagenet[1]))
    outcome = san("prepare", imagenet[0] / "images", "data/val", "--labels", "truth.txt")
    assert outcome.stderr.splitlines()[-1] == "Next: san download-weights san15-patchwise"
    assert "san eval --weights san15-patchwise --data data/val --split val" in outcome.stderr


def shown(right, images, capsys, *, present=1000, **changes):
    figures = {"top1": right / images, "images": images, "top1_interval": list(wilson(right, images))}
    show_published(figures | beside_published(info(**changes), figures, set(range(present))))
    return "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("right", "verdict"),
    [
        (38_550, "The difference of +0.0 points is within chance for 50,000 images"),
        (38_420, "The difference of -0.3 points is within chance for 50,000 images"),
        (38_300, "The difference of -0.5 points is more than chance for 50,000 images"),
        (39_000, "The difference of +0.9 points is more than chance for 50,000 images"),
    ],
)
def test_the_interval_of_so_many_images_says_what_chance_explains(right, verdict, capsys):
    said = shown(right, 50_000, capsys)
    assert verdict in said
    assert "classes have images" not in said
    assert "numbered differently" not in said


def test_under_one_percent_the_labels_are_suspected_unless_there_are_hardly_any_images(capsys):
    assert "the labels are probably numbered differently" in shown(4, 1000, capsys)
    assert "numbered differently" not in shown(0, 1, capsys, present=1)


def test_only_networks_for_imagenet_have_published_figures(capsys):
    assert published_for(info(arch="resnet50"))[1].top1 == 76.9
    assert published_for(info(attention="pairwise"))[0] == "san10-pairwise"
    assert published_for(info(classes=WNIDS))[0] == "san10-patchwise"
    assert published_for(info(attention="pairwise", relation="hadamard")) is None
    assert published_for(info(classes=("a", "b"))) is None
    assert shown(1, 2, capsys, classes=("a", "b")) == ""
