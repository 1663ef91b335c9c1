"""`san eval`: figures that can be trusted, whole folders, and clear refusals."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from small_run import CLASSES, draw, few_blocks, prepared_folder, trained_run  # noqa: F401 -- a fixture

from sancli.data.prepared import Sample
from sancli.tasks.evaluate import matched

FILES = {
    "metrics.json",
    "per_class.csv",
    "confusion_matrix.csv",
    "confusion_matrix.png",
    "most_confused.csv",
    "predictions.csv",
    "reliability.png",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data and a run that is right about it."""
    root = tmp_path_factory.mktemp("place")
    data = prepared_folder(root / "data" / "colours")
    trained_run(root / "runs" / "colours-001", data)
    return root


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """A copy of it, as the current folder."""
    shutil.copytree(place / "data", tmp_path / "work" / "data")
    shutil.copytree(place / "runs", tmp_path / "work" / "runs", copy_function=os.link)  # 40 MB, never changed
    monkeypatch.chdir(tmp_path / "work")
    run = tmp_path / "work" / "runs" / "colours-001"
    for path in (run / "model.json", run / "model.safetensors"):
        path.touch()
    return tmp_path / "work"


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_without_options_the_newest_run_is_measured_on_its_own_data(san, here):
    outcome = san("eval", "--data", "data/colours")
    assert outcome.code == 0
    first = outcome.stdout.splitlines()[0]
    assert first.startswith(
        "Top-1 100.0 % (95 % CI 75.8-100.0, n=12) \u00b7 balanced 100.0 \u00b7 macro-F1 100.0"
    )
    assert "Top-5" not in outcome.stdout
    assert "Most confused" not in outcome.stdout
    assert outcome.stderr.splitlines()[-1].startswith("Next: san predict")


def test_every_file_is_written_and_no_other(san, here):
    assert san("eval", "--data", "data/colours").code == 0
    out = here / "runs" / "colours-001" / "eval-test"
    assert {path.name for path in out.iterdir()} == FILES  # no worst.jpg, for nothing is wrong
    assert not list(out.parent.glob(".*partial"))


def test_a_second_evaluation_leaves_the_first_as_it_is(san, here):
    run = here / "runs" / "colours-001"
    san("eval", "--data", "data/colours")
    first = (run / "eval-test" / "predictions.csv").read_bytes()
    outcome = san("eval", "--data", "data/colours", "--json")
    assert json.loads(outcome.stdout)["folder"].endswith("eval-test-002")
    assert (run / "eval-test" / "predictions.csv").read_bytes() == first
    assert (run / "eval-test-002" / "predictions.csv").read_bytes() == first


def test_an_exported_folder_stays_as_it_is_and_a_run_takes_its_results_wherever_it_lies(san, here):
    exported, moved = here / "exported", here / "moved"
    export = ("export", "--format", "hub", "-o", exported)
    assert san(*export).code == 0
    before = sorted(path.name for path in exported.iterdir())
    done = san("eval", "--model", exported, "--data", "data/colours", "--json")
    assert json.loads(done.stdout)["folder"] == "runs/colours-001/eval-test"
    assert sorted(path.name for path in exported.iterdir()) == before
    assert san(*export, "--force").code == 0
    (here / "runs" / "colours-001").rename(moved)
    (moved / "config.toml").write_text('arch = "san10"\n')  # as each run has it
    done = san("eval", "--model", moved, "--data", "data/colours", "--json")
    assert json.loads(done.stdout)["folder"] == f"{moved}/eval-test-002"


def test_a_project_that_was_moved_finds_its_data_by_its_content(san, here, monkeypatch):
    trained_run(here / "runs" / "colours-002", here / "data" / "colours")
    moved = here.rename(here.with_name("moved"))
    monkeypatch.chdir(moved)
    (moved / "data" / "colours").rename(moved / "data" / "renamed")
    outcome = san("eval", "--model", "runs/colours-002")
    assert outcome.code == 0, outcome.stderr
    assert "Data: data/renamed" in outcome.stderr
    (moved / "data" / "renamed" / "dataset.json").write_text("{}")
    assert "name a prepared folder with --data" in san("eval", "--model", "runs/colours-002").stderr


def test_classes_are_matched_by_name_and_never_by_order(san, here):
    data = prepared_folder(here / "data" / "other", ("red", "green", "blue"))
    outcome = san("eval", "--data", data, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.stdout)["top1"] == 1.0
    out = here / "runs" / "colours-001" / "eval-other-test"  # not its own data: the name says whose
    assert (out / "confusion_matrix.csv").read_text() == (
        "true \\ predicted,blue,green,red\nblue,4,0,0\ngreen,0,4,0\nred,0,0,4\n"
    )


def test_folders_named_by_wnid_meet_the_names_that_imagenet_networks_know(capsys):
    samples = [Sample(Path("1"), 0), Sample(Path("2"), 1)]
    found = matched(samples, ("n01443537", "n02119789"), ("tench", "kit fox", "goldfish", "other"))
    assert [sample.label for sample in found] == [2, 1]
    assert "no images of tench, other" in capsys.readouterr().err
    own = matched(samples[:1], ("n01440764",), ("tench", "n01440764"))
    assert own[0].label == 1  # its own name counts more


def test_classes_without_images_are_named_and_left_out_of_the_mean(san, here):
    data = prepared_folder(here / "data" / "few", ("red", "green"), colours={"green": "blue"})
    outcome = san("eval", "--data", data, "--json")
    assert "no images of blue" in outcome.stderr
    figures = json.loads(outcome.stdout)
    assert figures["top1"] == figures["balanced"] == 0.5
    assert figures["macro_f1"] == pytest.approx(1 / 3)  # red 1, green 0, and blue, which was predicted, 0
    assert figures["most_confused"] == [{"true": "green", "predicted": "blue", "images": 4}]


def test_an_unknown_class_ends_it_with_its_name(san, here):
    data = prepared_folder(here / "data" / "more", ("blue", "purple"), colours={"purple": "red"})
    outcome = san("eval", "--data", data)
    assert outcome.code == 3
    assert "purple" in outcome.stderr
    assert not list((here / "runs" / "colours-001").glob("eval-*"))


def test_classes_called_by_numbers_keep_their_names(san, here):
    names = tuple(str(number) for number in range(12))
    colours = {name: CLASSES[label % 3] for label, name in enumerate(names)}
    data = prepared_folder(here / "data" / "numbers", names, images=1, colours=colours)
    trained_run(here / "runs" / "numbers-001", data, classes=names)
    outcome = san("eval", "--model", "runs/numbers-001", "--data", data)
    assert outcome.code == 0
    table = rows(here / "runs" / "numbers-001" / "eval-test" / "predictions.csv")
    assert [row["true"] for row in table] == list(names)
    assert all(int(row["label"]) % 3 == int(row["true"]) % 3 for row in table)


def test_mistakes_are_shown_with_both_labels_the_surest_first(san, here):
    data = prepared_folder(here / "data" / "wrong", colours={"blue": "red", "red": "blue"})
    outcome = san("eval", "--data", data, "--worst", 6)
    assert "Most confused: blue -> red 4, red -> blue 4" in outcome.stdout
    out = here / "runs" / "colours-001" / "eval-wrong-test"
    assert (out / "most_confused.csv").read_text() == "true,predicted,images\nblue,red,4\nred,blue,4\n"
    with Image.open(out / "worst.jpg") as sheet:
        assert sheet.size == (3 * 204 + 12, 2 * 240 + 12)


def test_no_picture_of_mistakes_with_worst_zero(san, here):
    data = prepared_folder(here / "data" / "wrong", colours={"blue": "red"})
    assert san("eval", "--data", data, "--worst", 0).code == 0
    out = here / "runs" / "colours-001" / "eval-wrong-test"
    assert (out / "metrics.json").is_file()
    assert not (out / "worst.jpg").exists()


def test_the_metrics_hold_their_conditions(san, here):
    outcome = san("eval", "--data", "data/colours", "--json", "--tta", "flip", "--batch-size", 5)
    figures = json.loads(outcome.stdout)
    assert (figures["images"], figures["split"], figures["data"]) == (12, "test", "colours")
    assert figures["conditions"]["tta"] == "flip"
    assert {"torch", "sancli", "device"} <= figures["conditions"].keys()
    written = json.loads((here / "runs" / "colours-001" / "eval-test" / "metrics.json").read_text())
    assert written == {key: value for key, value in figures.items() if key != "folder"}


def test_predictions_name_each_image_with_its_true_label(san, here):
    san("eval", "--data", "data/colours")
    table = rows(here / "runs" / "colours-001" / "eval-test" / "predictions.csv")
    assert [row["path"] for row in table] == [
        f"data/colours/test/{c}/{n}.png" for c in CLASSES for n in range(4)
    ]
    assert all(row["true"] == row["label"] for row in table)


def test_an_image_deleted_since_is_named_and_no_figure_is_given(san, here):
    image = here / "data" / "colours" / "test" / "red" / "1.png"
    image.write_bytes(b"")
    outcome = san("eval", "--data", "data/colours")
    assert outcome.code == 3
    assert "red/1.png: not an image (the file is empty)" in outcome.stderr
    assert not list((here / "runs" / "colours-001").glob("*eval*"))


def test_the_data_that_the_run_names_is_taken(san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = prepared_folder(tmp_path / "data" / "colours", images=1)
    trained_run(tmp_path / "runs" / "colours-001", data)
    outcome = san("eval")
    assert outcome.code == 0
    assert outcome.stderr.splitlines()[-1] == "Next: san predict data/colours/test"
    draw(data / "test" / "red" / "9.png", "red")
    manifest = json.loads((data / "dataset.json").read_text())
    manifest["counts"]["test"]["red"] = 2
    (data / "dataset.json").write_text(json.dumps(manifest))
    assert "prepared anew" in san("eval").stderr
    shutil.rmtree(data)
    outcome = san("eval")
    assert outcome.code == 3
    assert "--data" in outcome.stderr


def test_val_is_taken_where_there_is_no_test_and_it_is_said(san, here):
    data = prepared_folder(here / "data" / "val", split="val", images=1)
    outcome = san("eval", "--data", data)
    assert outcome.code == 0
    assert "On val, as there is no test split.\n" in outcome.stderr, "val of other data chose no epoch"
    assert (here / "runs" / "colours-001" / "eval-val-val").is_dir()  # the data is called val too


def test_val_of_its_own_data_is_said_to_flatter(san, here):
    data = prepared_folder(here / "data" / "again" / "colours", split="val", images=1)
    assert "val chose the best epoch" in san("eval", "--data", data).stderr


def test_a_split_that_is_not_there_is_refused_with_those_that_are(san, here):
    outcome = san("eval", "--data", "data/colours", "--split", "train")
    assert outcome.code == 3
    assert "test (12 images)" in outcome.stderr


def test_a_place_that_exists_is_never_written_over(san, here):
    (here / "out").mkdir()
    outcome = san("eval", "--data", "data/colours", "--out", "out")
    assert outcome.code == 6
    assert not list((here / "out").iterdir())


@pytest.mark.parametrize(
    "option", [("--split", "tset"), ("--worst", 401), ("--workers", -1), ("--tta", "flop")]
)
def test_a_value_that_no_evaluation_could_use_is_refused(san, here, option):
    outcome = san("eval", *option)
    assert outcome.code == 2
    assert "fix:" in outcome.stderr


def test_out_names_the_folder(san, here):
    assert san("eval", "--data", "data/colours", "--out", "a/b").code == 0
    assert {path.name for path in (here / "a" / "b").iterdir()} == FILES
