"""`san predict`: every way to name images and to get the answers; nothing lost, nothing changed."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from small_run import BLOCKS, CLASSES, draw, few_blocks, prepared_folder, trained_run  # noqa: F401 -- a fixture

from sancli.tasks.inference import asking

HEAVY = {"torchvision", "torchmetrics", "scipy", "sympy", "torch._dynamo", "jinja2", "matplotlib"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data and a run that is right about it."""
    root = tmp_path_factory.mktemp("place")
    data = prepared_folder(root / "data" / "colours")
    trained_run(root / "runs" / "colours-001", data)
    return root


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """An empty current folder with that run and some photos."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(place / "runs")
    (tmp_path / "data").symlink_to(place / "data")
    for number, colour in enumerate(("red", "green", "blue")):
        draw(tmp_path / "photos" / f"{number}.png", colour, seed=number + 50, size=(70, 50))
    return tmp_path


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def named_on_stdin(monkeypatch, names):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names)))


def test_one_photo_gives_bars_and_no_file(san, here):
    before = sorted(here.rglob("*"))
    outcome = san("predict", "photos/0.png")
    assert outcome.code == 0
    assert outcome.stdout.splitlines()[2].startswith("red")
    assert "\u2588" * 25 in outcome.stdout
    assert sorted(here.rglob("*")) == before
    assert outcome.stderr.splitlines()[-1] == "Next: san eval"


def test_the_network_that_is_asked_replays_what_its_device_can(san, here, monkeypatch):
    devices = []
    monkeypatch.setattr(asking, "captured", lambda network, device: devices.append(device.type) or network)
    assert san("predict", "photos").code == san("eval").code == 0
    assert devices == ["cpu", "cpu"]


def test_a_folder_gives_a_table_and_a_csv(san, here):
    outcome = san("predict", "photos")
    assert outcome.code == 0
    assert [row["label"] for row in rows(here / "predictions.csv")] == ["red", "green", "blue"]
    header = (here / "predictions.csv").read_text().splitlines()[0]
    assert header == "path,label,confidence,label_2,confidence_2,label_3,confidence_3,error"
    assert "photos/1.png" in outcome.stdout


def test_an_earlier_csv_is_never_overwritten(san, here):
    san("predict", "photos")
    first = (here / "predictions.csv").read_bytes()
    san("predict", "photos", "--topk", 1)
    assert (here / "predictions.csv").read_bytes() == first
    assert (here / "predictions-002.csv").read_text().startswith("path,label,confidence,error\n")


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_the_ending_of_the_output_decides_its_form(san, here, suffix):
    assert san("predict", "photos/0.png", "-o", f"out/p{suffix}").code == 0
    text = (here / "out" / f"p{suffix}").read_text()
    if suffix == ".csv":
        assert text.splitlines()[1].startswith("photos/0.png,red,0.9")
    else:
        answer = json.loads(text)["predictions"][0] if suffix == ".json" else json.loads(text)
        assert (answer["path"], answer["label"]) == ("photos/0.png", "red")


def test_an_output_that_exists_is_refused_before_any_work(san, here):
    (here / "p.csv").write_text("mine")
    outcome = san("predict", "photos", "-o", "p.csv")
    assert outcome.code == 6
    assert (here / "p.csv").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_said_before_any_work(san, here):
    (here / "file").write_text("")
    outcome = san("predict", "photos", "-o", "file/p.csv")
    assert outcome.code == 6
    assert "Using" not in outcome.stderr  # no model was opened
    assert san("predict", "photos", "--sort-into", "file").code == 6


@pytest.mark.parametrize(
    "option", [("--topk", 0), ("--min-confidence", 2), ("-o", "p.txt"), ("--workers", -1), ("--tta", "flop")]
)
def test_a_value_that_no_prediction_could_use_is_refused(san, here, option):
    outcome = san("predict", "photos", *option)
    assert outcome.code == 2
    assert "fix:" in outcome.stderr


def test_json_is_one_object_on_stdout(san, here):
    outcome = san("predict", "photos", "--json", "--topk", 2)
    answer = json.loads(outcome.stdout)
    assert (answer["images"], answer["unread"], answer["output"]) == (3, 0, "predictions.csv")
    assert answer["classes"] == list(CLASSES)
    assert [one["label"] for one in answer["predictions"]] == ["red", "green", "blue"]
    assert all(len(one["top"]) == 2 for one in answer["predictions"])


def test_a_broken_image_is_a_row_with_its_error_and_the_others_are_predicted(san, here):
    good = (here / "photos" / "0.png").read_bytes()
    (here / "photos" / "1.png").write_bytes(good[: len(good) // 2])
    outcome = san("predict", "photos", "--batch-size", 1)
    assert outcome.code == 3
    assert "1 of 3 not read" in outcome.stderr
    table = rows(here / "predictions.csv")
    assert [row["label"] for row in table] == ["red", "", "blue"]
    assert "truncated" in table[1]["error"]


def test_a_batch_without_a_single_readable_image_is_no_fault(san, here):
    (here / "photos" / "0.png").write_text("<html>")
    outcome = san("predict", "photos", "--batch-size", 1, "--json")
    assert outcome.code == 3
    assert [one["label"] for one in json.loads(outcome.stdout)["predictions"]] == [None, "green", "blue"]


def test_a_photo_that_is_not_there_is_said(san, here):
    outcome = san("predict", "missing.jpg")
    assert outcome.code == 3
    assert "1 of 1 not read" in outcome.stderr
    assert "missing.jpg: not found" in outcome.stderr
    assert "every other image" not in outcome.stderr
    assert "every other image has its answer" in san("predict", "missing.jpg", "photos/0.png").stderr


def test_what_is_no_image_is_said_in_words(san, here):
    contents = {"empty": b"", "html": b"<html></html>", "pdf": b"%PDF-1.4", "byte": b"x"}
    (here / "wrong").mkdir()
    for name, content in contents.items():
        (here / "wrong" / f"{name}.jpg").write_bytes(content)
    outcome = san("predict", "wrong", "nowhere/x.png", "n" * 300)
    assert outcome.code == 3
    assert "6 of 6 not read" in outcome.stderr
    errors = {row["path"]: row["error"] for row in rows(here / "predictions.csv")}
    assert all(errors[f"wrong/{name}.jpg"].startswith("not an image") for name in contents)
    assert errors["nowhere/x.png"] == "not found"
    assert errors["n" * 300]


def test_an_image_with_a_wrong_ending_is_read(san, here):
    (here / "photos" / "0.png").rename(here / "photos" / "0.jpg")
    (here / "photos" / "1.png").rename(here / "a photo without ending")
    assert san("predict", "photos", "a photo without ending").code == 0
    assert [row["label"] for row in rows(here / "predictions.csv")] == ["red", "blue", "green"]


def test_a_huge_image_is_refused_by_its_pixels_and_the_limit_can_be_raised(san, here):
    outcome = san("predict", "photos/0.png", "--max-pixels", 3000)
    assert outcome.code == 3
    assert "--max-pixels" in outcome.stderr
    assert san("predict", "photos/0.png", "--max-pixels", 3500).code == 0


def test_all_rotations_of_a_photo_get_one_answer(san, here):
    upright = Image.open(draw(here / "p.png", "red", size=(60, 40)))
    turns = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    (here / "turned").mkdir()
    for orientation, turn in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = upright if turn is None else upright.transpose(turn)
        stored.save(here / "turned" / f"{orientation}.png", exif=exif)
    san("predict", "turned")
    table = rows(here / "predictions.csv")
    assert len(table) == 8
    assert len({(row["label"], row["confidence"]) for row in table}) == 1


def test_pictures_of_extreme_shapes_get_an_answer(san, here):
    (here / "odd").mkdir()
    for number, size in enumerate([(1, 1), (2, 2), (1, 2000), (4000, 3), (2000, 4)]):
        Image.new("RGB", size, (210, 40, 30)).save(here / "odd" / f"{number}.png")
    assert san("predict", "odd").code == 0
    assert [row["label"] for row in rows(here / "predictions.csv")] == ["red"] * 5


def test_ghosts_are_ignored_and_other_endings_are_counted(san, here):
    for ghost in (".DS_Store", "Thumbs.db", "._0.png", ".git/x.png", "__MACOSX/y.png"):
        (here / "photos" / ghost).parent.mkdir(exist_ok=True)
        (here / "photos" / ghost).write_text("ghost")
    for other in ("a.txt", "b.txt", "c.xcf"):
        (here / "photos" / other).write_text("other")
    outcome = san("predict", "photos")
    assert outcome.code == 0
    assert len(rows(here / "predictions.csv")) == 3
    assert "3 files with other extensions ignored (.txt 2, .xcf 1)" in outcome.stderr


def test_a_folder_without_images_says_what_was_looked_for(san, here):
    (here / "empty").mkdir()
    outcome = san("predict", "empty")
    assert outcome.code == 3
    assert "no images in empty" in outcome.stderr
    assert not (here / "predictions.csv").exists()


def test_a_glob_in_quotes_is_expanded(san, here):
    assert san("predict", "photos/[01].*").code == 0
    assert [row["path"] for row in rows(here / "predictions.csv")] == ["photos/0.png", "photos/1.png"]


def test_a_glob_that_matches_nothing_is_a_row_as_a_missing_file_is(san, here):
    outcome = san("predict", "photos/0.png", "nothing*.png")
    assert outcome.code == 3
    table = rows(here / "predictions.csv")
    assert [(row["path"], row["label"], row["error"]) for row in table] == [
        ("photos/0.png", "red", ""),
        ("nothing*.png", "", "matches nothing"),
    ]


@pytest.mark.parametrize("pattern", ["photos/*", "photos/**", "pho*/*/*", "photos"])
def test_links_to_folders_that_a_glob_matches_are_not_followed(san, here, pattern):
    (here / "away").mkdir()
    (here / "away" / "secret.conf").write_text("x")
    for number in range(7):
        (here / "photos" / f"link{number}").symlink_to(here / "away")
    outcome = san("predict", "photos/0.png", "photos/1.png", pattern)
    assert outcome.code == (3 if pattern == "pho*/*/*" else 0)  # only what lies behind the links
    assert "secret.conf" not in outcome.stderr + (here / "predictions.csv").read_text()
    assert "photos/link0: link to a folder, not followed, skipped." in outcome.stderr
    assert outcome.stderr.count("not followed") == 5
    assert "and 2 more like these." in outcome.stderr


def test_a_link_to_a_folder_that_is_named_is_followed(san, here):
    (here / "link").symlink_to(here / "photos")
    assert san("predict", "link/*.png", "-o", "a.csv").code == 0
    assert san("predict", "link", "-o", "b.csv").code == 0
    assert len(rows(here / "a.csv")) == len(rows(here / "b.csv")) == 3


def test_a_named_folder_without_images_is_exit_3_once_the_others_have_their_answers(san, here):
    (here / "empty").mkdir()
    outcome = san("predict", "empty", "photos", "--sort-into", "sorted")
    assert outcome.code == 3
    assert "Warning: empty: no images in it." in outcome.stderr
    assert "1 input gave no image." in outcome.stderr
    assert len(rows(here / "predictions.csv")) == 3
    assert (here / "sorted" / "red" / "0.png").exists()


def test_no_names_on_stdin_is_said(san, here, monkeypatch):
    named_on_stdin(monkeypatch, b"\n")
    outcome = san("predict", "-")
    assert outcome.code == 3
    assert "no names came on stdin" in outcome.stderr
    named_on_stdin(monkeypatch, b"")
    outcome = san("predict", "-", "photos/0.png")
    assert outcome.code == 3
    assert "Warning: -: no names came on stdin." in outcome.stderr
    assert outcome.stdout.splitlines()[2].startswith("red")


def test_one_file_with_another_ending_is_counted_in_the_singular(san, here):
    (here / "photos" / "a.txt").write_text("other")
    assert "1 file with other extensions ignored (.txt 1)" in san("predict", "photos").stderr


def test_an_image_named_twice_is_predicted_once(san, here):
    san("predict", "photos/1.png", "photos", here / "photos" / "1.png")
    assert [row["path"] for row in rows(here / "predictions.csv")] == [f"photos/{n}.png" for n in (1, 0, 2)]


def test_names_are_read_from_stdin(san, here, monkeypatch):
    named_on_stdin(monkeypatch, b"photos/0.png\r\n\nphotos/2.png\nmissing.png")
    outcome = san("predict", "-", "--json")
    assert outcome.code == 3
    answers = json.loads(outcome.stdout)["predictions"]
    assert [one["label"] for one in answers] == ["red", "blue", None]


def test_hostile_names_are_escaped_on_the_screen_safe_in_csv_and_whole_in_json(san, here):
    names = [
        "[red]x.png",
        "=1+1.png",
        "-rf.png",
        "a\nb.png",
        "\x1b[31m.png",
        "\u00e9.png",
        os.fsdecode(b"\xff.png"),
    ]
    folder = here / "hostile"
    for name in names:
        draw(folder / name, "red")
    (folder / ("n" * 251 + ".png")).write_bytes((folder / "[red]x.png").read_bytes())
    outcome = san("predict", "hostile", "--json")
    assert outcome.code == 0
    answers = json.loads(outcome.stdout)["predictions"]
    assert {Path(one["path"]).name for one in answers} == {*names, "n" * 251 + ".png"}
    assert "\x1b" not in outcome.stderr
    assert "[red]x.png" in outcome.stderr
    assert len(rows(here / "predictions.csv")) == 8


def test_below_the_confidence_asked_for_the_label_is_unsure(san, here):
    outcome = san("predict", "photos", "--min-confidence", 1)
    assert {row["label"] for row in rows(here / "predictions.csv")} == {"unsure"}
    assert "unsure" in san("predict", "photos/0.png", "--min-confidence", 1).stdout
    assert outcome.code == 0


def test_sorting_copies_into_a_folder_a_label_and_leaves_the_inputs(san, here):
    (here / "photos" / "broken.png").write_bytes(b"x")
    draw(here / "more" / "0.png", "red", seed=7)  # another picture of the same name
    before = {path: path.read_bytes() for path in sorted(here.glob("[mp]*/*.png"))}
    outcome = san("predict", "photos", "more", "--sort-into", "sorted")
    assert outcome.code == 3
    found = {str(path.relative_to(here / "sorted")) for path in (here / "sorted").rglob("*.png")}
    assert found == {"red/0.png", "red/0-2.png", "green/1.png", "blue/2.png"}
    assert {path: path.read_bytes() for path in before} == before
    assert (here / "sorted/red/0.png").stat().st_nlink == 1  # editing it leaves the original alone


def test_sorting_again_adds_nothing(san, here):
    first = san("predict", "photos", "--sort-into", "sorted", "--min-confidence", 1)
    assert "Sorted into sorted: 3 copies\n" in first.stderr
    draw(here / "photos" / "3.png", "red", seed=9)
    again = san("predict", "photos", "--sort-into", "sorted", "--min-confidence", 1)
    assert "Sorted into sorted: 1 copy, 3 there already\n" in again.stderr
    found = sorted((here / "sorted").rglob("*"))
    assert san("predict", "photos", "--sort-into", "sorted", "--min-confidence", 1).code == 0
    assert sorted((here / "sorted").rglob("*")) == found
    assert {path.name for path in (here / "sorted").iterdir()} == {"unsure"}


def test_sorting_into_the_folder_that_is_read_is_refused(san, here):
    outcome = san("predict", "photos", "--sort-into", "photos/sorted")
    assert outcome.code == 2
    assert not (here / "photos" / "sorted").exists()
    assert not (here / "predictions.csv").exists()


def test_predict_and_eval_give_the_same_probabilities(san, here):
    san("eval", "--data", "data/colours", "--out", "evaluated", "--batch-size", 5)
    san("predict", "data/colours/test", "--batch-size", 5)
    answers = [
        {key: value for key, value in row.items() if key != "true"}
        for row in rows(here / "evaluated/predictions.csv")
    ]
    assert rows(here / "predictions.csv") == answers


def test_the_size_of_the_batch_changes_no_probability_beyond_rounding(san, here):
    answers = []
    for size in (1, 5, 64):
        outcome = san("predict", "data/colours/test", "--batch-size", size, "--json")
        answers.append([one["confidence"] for one in json.loads(outcome.stdout)["predictions"]])
    # the order of the sums in a convolution depends on the shape of the batch
    assert answers[0] == pytest.approx(answers[1], abs=1e-5)
    assert answers[0] == pytest.approx(answers[2], abs=1e-5)


def test_moving_and_renaming_the_folders_changes_no_prediction(san, here, place, tmp_path):
    first = json.loads(san("predict", "photos", "--model", "runs/colours-001", "--json").stdout)
    lone = tmp_path / "elsewhere" / "net.safetensors"  # no data, no model.json, another name
    lone.parent.mkdir()
    lone.write_bytes((place / "runs" / "colours-001" / "model.safetensors").read_bytes())
    (here / "photos").rename(here / "renamed")
    second = json.loads(san("predict", "renamed", "--model", lone, "--json").stdout)
    answers = [[one["top"] for one in outcome["predictions"]] for outcome in (first, second)]
    assert answers[0] == answers[1]


def test_flipping_gives_a_mirrored_photo_the_same_answer(san, here):
    with Image.open(here / "photos" / "0.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(here / "mirrored.png")
    answers = [
        json.loads(san("predict", name, "--tta", "flip", "--json").stdout)["predictions"][0]["confidence"]
        for name in ("photos/0.png", "mirrored.png")
    ]
    assert answers[0] == pytest.approx(answers[1], abs=1e-5)


def test_without_a_run_it_says_where_it_looked(san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photo.png", "red")
    outcome = san("predict", "photo.png")
    assert outcome.code == 4
    assert "runs/*/model.json" in outcome.stderr


@pytest.fixture(scope="module")
def new_process(place, tmp_path_factory):
    """What `san predict` and then `san eval` say in a process of their own, in a terminal without Unicode."""
    here = tmp_path_factory.mktemp("new_process")
    (here / "runs").symlink_to(place / "runs")
    draw(here / "\u00e9.png", "red", seed=50, size=(70, 50))
    program = (
        "import sys\n"
        "from sancli.cli import main\n"
        "from sancli.model import san\n"
        f"san.LAYERS['san10'] = {BLOCKS}\n"
        f"heavy = {HEAVY}\n"
        "for arguments in (['predict', sys.argv[1]], ['eval', '--out', 'evaluated']):\n"
        "    sys.argv = ['san', *arguments]\n"
        "    try: main()\n"
        "    except SystemExit as ended: assert not ended.code\n"
        "    print('imported:', *sorted(heavy & set(sys.modules)))\n"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", program, "\u00e9.png"]
    return subprocess.run(command, capture_output=True, env=environment, cwd=here)


def test_a_terminal_that_knows_no_unicode_gets_plain_bars(new_process):
    assert new_process.returncode == 0, new_process.stderr
    assert b"#" * 25 in new_process.stdout
    assert new_process.stdout.isascii()


def test_asking_a_network_imports_neither_torchvision_nor_what_only_reports_need(new_process):
    """Each of them takes longer than all that a prediction does beyond `import torch`."""
    imported = [line for line in new_process.stdout.splitlines() if line.startswith(b"imported:")]
    assert imported == [b"imported:", b"imported: matplotlib"], new_process.stderr
