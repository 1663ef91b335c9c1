"""The drawn scenes: a seed draws one picture, the faults are there, and colours do not tell the classes."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from sancli.data.scenes import CLASSES, scene
from sancli.data.scenes.folder import SMALL_CLASS, draw_folder
from sancli.errors import StorageError


def test_a_seed_draws_one_picture():
    for kind in CLASSES:
        assert scene(kind, seed="a", side=33).tobytes() == scene(kind, seed="a", side=33).tobytes()
        assert scene(kind, seed="a", side=33).tobytes() != scene(kind, seed="b", side=33).tobytes()


@pytest.mark.parametrize("side", [1, 2, 31, 150])
def test_scenes_of_any_size_are_square_and_coloured(side):
    for kind in CLASSES:
        picture = scene(kind, seed="0", side=side)
        assert (picture.size, picture.mode) == ((side, side), "RGB")


def mean_colours(split, count):
    pictures = [
        np.asarray(scene(kind, seed=f"0/{split}/{kind}/{number}", side=32)).mean((0, 1))
        for kind in CLASSES
        for number in range(count)
    ]
    return torch.from_numpy(np.array(pictures)), torch.arange(len(CLASSES)).repeat_interleave(count)


def test_mean_colours_hardly_tell_the_classes():
    (colours, labels), (test_colours, test_labels) = mean_colours("train", 60), mean_colours("test", 30)
    middle, spread = colours.mean(0), colours.std(0)
    classifier = torch.nn.Linear(3, len(CLASSES)).double()
    optimizer = torch.optim.LBFGS(classifier.parameters(), max_iter=200)

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(classifier((colours - middle) / spread), labels)
        value.backward()
        return value

    optimizer.step(loss)
    found = classifier((test_colours - middle) / spread).argmax(1)
    assert (found == test_labels).double().mean() < 0.45  # chance is 0.17, the promise is below 0.60


def test_the_folder_has_the_intel_layout_and_its_counts(tmp_path):
    draw_folder(tmp_path / "scenes", seed=3, train=8, test=2, unlabelled=7, side=16)
    for kind in CLASSES:
        train, test = (
            tmp_path / "scenes" / f"seg_{split}" / f"seg_{split}" / kind for split in ("train", "test")
        )
        assert len(list(train.glob("*.jpg"))) == (2 if kind == SMALL_CLASS else 8)
        assert len(list(test.glob("*.jpg"))) == 2
    assert len(list((tmp_path / "scenes" / "seg_pred" / "seg_pred").glob("*.jpg"))) == 7


def test_the_planted_faults_are_what_they_say(tmp_path):
    root = tmp_path / "scenes"
    cut, turned, twin, ghost, small = draw_folder(root, seed=0, train=8, test=2, unlabelled=0, side=64)
    with pytest.raises(OSError, match="truncated"), Image.open(cut.path) as picture:
        picture.load()
    with Image.open(turned.path) as picture:
        upright = scene("street", seed="0/train/street/1", side=64)
        assert picture.getexif()[0x0112] == 6
        difference = np.asarray(picture.rotate(-90), dtype=float) - np.asarray(upright, dtype=float)
        assert np.abs(difference).mean() < 6  # what JPEG changes
    assert twin.path.read_bytes() == (root / "seg_test/seg_test/sea/0000.jpg").read_bytes()
    assert ghost.path.name == ".ipynb_checkpoints"
    assert len(list(small.path.iterdir())) == 2


def test_an_existing_folder_is_never_drawn_into(tmp_path):
    with pytest.raises(StorageError):
        draw_folder(tmp_path, seed=0, train=4, test=1, unlabelled=0, side=8)
    assert not list(tmp_path.iterdir())
