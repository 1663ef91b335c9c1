"""Batches: the same with and without workers, from any point of an epoch, and honest about broken files."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
import training
from PIL import Image

from sancli.data.dataset import Images, Order, evaluation_loader, readable, training_loader
from sancli.data.images import open_picture
from sancli.data.prepared import Sample
from sancli.data.preprocessing import Preprocessing
from sancli.data.transforms import evaluation_view, training_view, visible
from sancli.engine.interrupts import stop_workers
from sancli.errors import DataError

PREPROCESSING = Preprocessing(image_size=32)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(7):
        training.draw(number % 2, number).save(folder / f"{number}.png")
    return [Sample(folder / f"{number}.png", number % 2) for number in range(7)]


def keys(order):
    return [key for batch in order for key in batch]


def test_an_epoch_shows_each_image_once_and_epochs_differ():
    order = Order(8, batch_size=4, seed=3)
    first = keys(order)
    order.start(1)
    second = keys(order)
    assert sorted(index for _, index in first) == sorted(index for _, index in second) == list(range(8))
    assert [index for _, index in first] != [index for _, index in second]
    assert {epoch for epoch, _ in second} == {1}


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(10, 4, [4, 4]), (9, 4, [4, 4]), (3, 4, [3]), (1, 64, [1]), (2, 1, [1, 1])],
)
def test_an_incomplete_batch_is_left_out_only_where_there_is_another(count, batch_size, sizes):
    order = Order(count, batch_size=batch_size, seed=0)
    assert [len(batch) for batch in order] == sizes
    assert len(order) == len(sizes)


def test_an_order_goes_on_from_the_middle():
    order = Order(20, batch_size=4, seed=5)
    order.start(2)
    whole = list(order)
    order.start(2, 3)
    assert list(order) == whole[3:]


def test_processes_share_each_batch():
    alone = list(Order(12, batch_size=6, seed=1))
    shares = [list(Order(12, batch_size=6, seed=1, rank=rank, world=2)) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == [sorted(batch) for batch in alone]


def test_rare_images_are_drawn_more_often_by_their_weight():
    weights = torch.tensor([1.0] * 9 + [9.0])
    order = Order(10, batch_size=1, seed=0, weights=weights)
    drawn = []
    for epoch in range(100):
        order.start(epoch)
        drawn += [index for _, index in keys(order)]
    assert 0.45 < drawn.count(9) / len(drawn) < 0.55


@pytest.mark.parametrize("augment", ["medium", "heavy"])
def test_workers_change_no_bit(samples, augment):
    seen = []
    for workers in (0, 2):
        images = Images(samples, training_view(PREPROCESSING, augment), enough_px=96, seed=4)
        order = Order(len(samples), batch_size=3, seed=4)
        loader = training_loader(images, order, workers=workers)
        for epoch in (0, 1):
            order.start(epoch)
            seen.append(torch.cat([batch.images for batch in loader]))
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_reading_leaves_the_global_random_numbers_alone(samples):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    images = Images(samples, training_view(PREPROCESSING, "heavy"), enough_px=96, seed=4)
    for _ in training_loader(images, Order(7, batch_size=3, seed=4), workers=0):
        pass
    assert torch.equal(torch.rand(3), expected)


def test_a_file_that_cannot_be_read_is_listed_beside_its_batch(samples, tmp_path):
    (tmp_path / "bad.png").write_text("<html>")
    mixed = [*samples[:2], Sample(tmp_path / "bad.png", 0), Sample(tmp_path / "gone.png", 1)]
    loader = evaluation_loader(mixed, PREPROCESSING, batch_size=3, workers=0)
    first, second = loader
    assert first.indices.tolist() == [0, 1]
    assert first.failures[0][0] == 2
    assert "HTML" in first.failures[0][1]
    assert len(second.images) == 0
    assert second.failures == ((3, "not found"),)
    with pytest.raises(DataError, match=r"bad\.png"):
        list(readable(loader, mixed))


def test_a_signal_to_the_whole_group_leaves_the_workers_to_the_main_process(samples):
    loader = evaluation_loader(samples, PREPROCESSING, batch_size=1, workers=1)
    batches = iter(loader)
    next(batches)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
    assert len(list(batches)) == len(samples) - 1
    stop_workers()


def test_a_large_photo_is_read_alike_in_training_evaluation_and_prediction(tmp_path):
    y, x = np.mgrid[0:900, 0:1201]
    photo = Image.fromarray(np.stack([x // 5, 250 - y // 4, (x + y) // 9], axis=-1).astype(np.uint8))
    photo.save(tmp_path / "photo.jpg", quality=90)
    samples = [Sample(tmp_path / "photo.jpg", 0)]
    (evaluated,) = evaluation_loader(samples, PREPROCESSING, batch_size=1, workers=0)
    view, enough_px = training_view(PREPROCESSING, "none"), PREPROCESSING.enough_px
    trained = Images(samples, view, enough_px=enough_px)[0].image
    assert torch.equal(trained, evaluated.images[0])
    predicted = open_picture(tmp_path / "photo.jpg", enough_px=enough_px)
    assert predicted.size == (151, 113)  # of 1201 x 900
    assert torch.equal(evaluation_view(PREPROCESSING)(predicted), trained)
    whole = evaluation_view(PREPROCESSING)(open_picture(tmp_path / "photo.jpg"))
    off = visible(whole[None], PREPROCESSING) - visible(trained[None], PREPROCESSING)
    assert off.abs().mean() < 1 / 255
