"""Figures, contact sheets, tables and cards: they hold what they were given, whatever the names in it."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from sancli.data.preprocessing import Preprocessing
from sancli.report import card, pictures, predictions
from sancli.report.confusion import draw_confusion
from sancli.report.curves import read_columns, write_curves
from sancli.report.pictures import Mistake, write_samples, write_worst
from sancli.report.predictions import Prediction
from sancli.report.reliability import draw_reliability
from sancli.report.sorting import folder_name
from sancli.runs import ModelInfo

HOSTILE = ("$\\alpha$ $", "a_b^c", "\x1b[31mred", "two\nlines", "<b>|`x`", "\u68ee\u6797", "n" * 300)


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image


@pytest.fixture(autouse=True)
def quick_figures():
    """Not here: these are the real ones."""


@pytest.mark.parametrize("count", [2, 6, 30, 101])
def test_a_confusion_matrix_is_drawn_for_any_number_of_classes(tmp_path, count):
    names = [f"class {number}" for number in range(count)]
    draw_confusion(tmp_path / "matrix.png", 1234 * torch.eye(count, dtype=torch.long), names, title="t")
    assert max(opened(tmp_path / "matrix.png").size) < 2000


def test_a_thousand_classes_are_legible_pixels_and_no_huge_file(tmp_path):
    names = [f"n{number:08}" for number in range(1000)]
    draw_confusion(tmp_path / "matrix.png", 50 * torch.eye(1000, dtype=torch.long), names, title="t")
    width, height = opened(tmp_path / "matrix.png").size
    assert 1000 < width < 2000
    assert 1000 < height < 2000
    assert (tmp_path / "matrix.png").stat().st_size < 1e6


def test_a_row_of_the_picture_is_a_true_class(tmp_path):
    matrix = torch.tensor([[0, 9], [0, 9]])  # everything is taken for the second class
    draw_confusion(tmp_path / "matrix.png", matrix, ["a", "b"], title="")
    image = opened(tmp_path / "matrix.png").convert("L")
    dark = [[image.getpixel((x, y)) < 128 for x in (150, 420)] for y in (100, 330)]
    assert dark == [[False, True], [False, True]]


def test_hostile_names_are_drawn_as_text(tmp_path):
    draw_confusion(tmp_path / "matrix.png", torch.eye(7, dtype=torch.long), HOSTILE, title="t")
    write_samples(tmp_path / "samples.jpg", torch.rand(7, 3, 8, 8), HOSTILE)
    assert opened(tmp_path / "matrix.png")
    assert opened(tmp_path / "samples.jpg")


def test_curves_are_drawn_from_what_columns_there_are(tmp_path):
    metrics = tmp_path / "metrics.csv"
    for name, text in (
        ("full", "epoch,train_loss,val_loss,val_top1,lr\n1,2,2.1,0.3,1e-3\n2,1,1.2,0.6,5e-4\n"),
        ("one_epoch", "epoch,train_loss,val_loss,val_top1,lr\n1,2,2.1,0.3,1e-3\n"),
        ("gaps", "epoch,val_loss\n1,nan\n2,\n3,1.5\n"),
        ("header", "epoch,train_loss\n"),
        ("empty", ""),
    ):
        metrics.write_text(text)
        write_curves(tmp_path / f"{name}.png", metrics)
        assert opened(tmp_path / f"{name}.png").size == (1650, 540)


def test_a_cell_that_is_no_number_is_a_gap(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,val_top1\n1,0.5\n2,\n3,what\n")
    columns = read_columns(tmp_path / "metrics.csv")
    assert columns["epoch"] == [1, 2, 3]
    assert columns["val_top1"][0] == 0.5
    assert all(value != value for value in columns["val_top1"][1:])  # NaN


def test_reliability_is_drawn_with_a_single_bin(tmp_path):
    one = {"low": 14 / 15, "high": 1.0, "count": 3, "confidence": 1.0, "accuracy": 1.0}
    draw_reliability(tmp_path / "reliability.png", [one], ece=0.0)
    assert opened(tmp_path / "reliability.png")


def test_samples_show_the_images_in_their_colours(tmp_path):
    images = torch.zeros(2, 3, 50, 50)
    images[0, 0] = images[1, 2] = 1  # red, blue
    write_samples(tmp_path / "samples.jpg", images, ["red", "blue"])
    sheet = opened(tmp_path / "samples.jpg").convert("RGB")
    assert sheet.width > sheet.height
    red, blue = (sheet.getpixel((x, 100)) for x in (100, 300))
    assert red[0] > 240
    assert max(red[1:]) < 20
    assert blue[2] > 240
    assert max(blue[:2]) < 20


@pytest.mark.parametrize(("tiles", "columns"), [(0, 1), (1, 1), (2, 2), (8, 4), (25, 5), (64, 8)])
def test_the_grid_leaves_few_places_empty(tiles, columns):
    assert pictures.columns_for(tiles) == columns


def test_pictures_of_any_shape_fit_their_tiles(tmp_path):
    sizes = [(1, 1), (1, 2000), (3000, 4), (64, 48)]
    mistakes = [
        Mistake(image=Image.new("RGB", size), true="a", predicted="b" * 200, confidence=0.9) for size in sizes
    ]
    write_worst(tmp_path / "worst.jpg", mistakes)
    assert opened(tmp_path / "worst.jpg").size == (2 * 204 + 12, 2 * (192 + 36 + 12) + 12)


ANSWERS = [
    Prediction(Path("a.jpg"), top=(("forest", 0.75), ("sea", 0.25))),
    Prediction(Path("b.jpg"), error="truncated"),
    Prediction(Path("c.jpg"), top=(("sea", 0.5), ("forest", 0.5)), sure=False),
]


def test_predictions_as_csv(tmp_path):
    predictions.as_csv(tmp_path / "p.csv", ANSWERS)
    assert (tmp_path / "p.csv").read_text() == (
        "path,label,confidence,label_2,confidence_2,error\n"
        "a.jpg,forest,0.750000,sea,0.250000,\n"
        "b.jpg,,,,,truncated\n"
        "c.jpg,unsure,0.500000,forest,0.500000,\n"
    )


def test_predictions_as_json_and_as_json_lines_hold_the_same(tmp_path):
    predictions.as_json(tmp_path / "p.json", ANSWERS)
    predictions.as_jsonl(tmp_path / "p.jsonl", ANSWERS)
    objects = json.loads((tmp_path / "p.json").read_text())["predictions"]
    assert objects == [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert objects[0] == {
        "path": "a.jpg",
        "label": "forest",
        "confidence": 0.75,
        "top": [{"label": "forest", "confidence": 0.75}, {"label": "sea", "confidence": 0.25}],
        "error": None,
    }
    assert (objects[1]["label"], objects[1]["error"]) == (None, "truncated")
    assert (objects[2]["label"], objects[2]["top"][0]["label"]) == ("unsure", "sea")


@pytest.mark.parametrize("name", ["=1+1.jpg", "a,b\n.jpg", '"q".jpg', "-rf.jpg", os.fsdecode(b"\xff.jpg")])
def test_hostile_paths_leave_csv_and_json_valid(tmp_path, name):
    predictions.as_csv(tmp_path / "p.csv", [Prediction(Path(name), top=(("a", 1.0),))])
    predictions.as_json(tmp_path / "p.json", [Prediction(Path(name), top=(("a", 1.0),))])
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["label"] == "a"
    assert not row["path"].startswith(("=", "-"))
    (one,) = json.loads((tmp_path / "p.json").read_text())["predictions"]
    assert one["path"] == name


@pytest.mark.parametrize(
    ("label", "folder"),
    [("forest", "forest"), ("a/b", "a_b"), ("..", "_"), ("../../etc", ".._.._etc"), ("", "_"), ("x\n", "x_")],
)
def test_a_label_becomes_one_folder_whatever_it_says(label, folder):
    assert folder_name(label) == folder


def info(**changes):
    known = {
        "name": "intel-san10-001",
        "classes": ("forest", "sea"),
        "arch": "san10",
        "attention": "patchwise",
        "relation": None,
        "preprocessing": Preprocessing(image_size=160),
        "metrics": {"top1": 0.875, "loss": 0.4},
        "epoch": 12,
        "data": {"name": "intel", "path": "data/intel"},
    }
    return ModelInfo(**known | changes).to_dict()


def test_a_card_says_what_the_model_is_how_good_and_how_to_use_it(tmp_path):
    card.write_card(tmp_path / "README.md", info(), conditions={"machine": "2 cores", "time": "53 min"})
    text = (tmp_path / "README.md").read_text()
    for expected in (
        "# intel-san10-001",
        "SAN10, patchwise attention, 2 classes",
        "160 x 160 px",
        "epoch 12",
    ):
        assert expected in text
    for expected in ("| Top-1 | 87.5 % |", "san predict photo.jpg --model .", 'load(".")', "forest, sea"):
        assert expected in text
    assert "| machine | 2 cores |" in text


def test_a_card_takes_its_figures_from_an_evaluation(tmp_path):
    evaluation = {
        "split": "test",
        "images": 1078,
        "top1": 0.861,
        "top1_interval": [0.839, 0.88],
        "most_confused": [{"true": "sea", "predicted": "forest", "images": 41}],
    }
    card.write_card(tmp_path / "README.md", info(), evaluation=evaluation, pictures=["curves.png"])
    text = (tmp_path / "README.md").read_text()
    assert "Figures on test, 1,078 images" in text
    assert "86.1 % (95 % interval 83.9 to 88.0)" in text
    assert "- sea taken for forest: 41" in text
    assert "![curves](curves.png)" in text


def test_a_card_of_a_run_that_goes_on_says_so(tmp_path):
    card.write_card(tmp_path / "README.md", info(finished=False))
    assert "not finished" in (tmp_path / "README.md").read_text()


def test_hostile_class_names_do_not_break_a_card(tmp_path):
    card.write_card(tmp_path / "README.md", info(classes=HOSTILE))
    text = (tmp_path / "README.md").read_text()
    assert "\x1b" not in text
    assert "<b>" not in text.replace("\\<b\\>", "").split("## Classes")[1]
