"""The three lines of Python: load, predict, and clear errors."""

import pytest
from PIL import Image
from small_run import CLASSES, draw, few_blocks, prepared_folder, trained_run  # noqa: F401 -- a fixture

from sancli import load
from sancli.errors import DataError, WeightsError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("place")
    return trained_run(root / "runs" / "colours-001", prepared_folder(root / "data" / "colours"))


def test_a_photo_gives_labels_with_probabilities_the_highest_first(run, tmp_path):
    model = load(run.folder)
    answer = model.predict(draw(tmp_path / "photo.png", "green"))
    assert answer[0][0] == "green"
    assert {label for label, _ in answer} == set(CLASSES) == set(model.classes)
    assert sum(probability for _, probability in answer) == pytest.approx(1)
    assert answer == sorted(answer, key=lambda pair: -pair[1])


def test_a_run_by_text_and_its_file_are_the_same_model(run, tmp_path):
    photo = draw(tmp_path / "photo.png", "blue")
    assert load(str(run.folder)).predict(str(photo)) == load(run.weights).predict(photo)


def test_a_list_gives_a_list_and_topk_shortens_the_answers(run, tmp_path):
    photos = [draw(tmp_path / f"{colour}.png", colour) for colour in CLASSES]
    answers = load(run.folder).predict(photos, topk=1)
    assert [answer[0][0] for answer in answers] == list(CLASSES)
    assert all(len(answer) == 1 for answer in answers)
    assert load(run.folder).predict([]) == []


def test_one_photo_and_a_list_of_it_have_the_same_answer(run, tmp_path):
    """Though one photo is asked of a copy that is prepared for single images."""
    photo, model = draw(tmp_path / "photo.png", "green"), load(run.folder)
    ((label, probability), *_), ((other, likewise), *_) = model.predict(photo), model.predict([photo] * 2)[0]
    assert (label, probability) == (other, pytest.approx(likewise, abs=1e-5))


def test_a_pillow_image_is_the_file_that_it_came_from_rotation_included(run, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(tmp_path / "photo.png", "red", size=(60, 30))
    with Image.open(tmp_path / "photo.png") as image:
        image.save(tmp_path / "turned.jpg", exif=exif)
    model = load(run.folder)
    with Image.open(tmp_path / "turned.jpg") as image:
        assert model.predict(image) == model.predict(tmp_path / "turned.jpg")
    assert model.predict(Image.new("L", (5, 5)))  # any mode


def test_what_is_no_image_raises_with_its_reason(run, tmp_path):
    (tmp_path / "photo.jpg").write_text("<html>")
    with pytest.raises(DataError, match="looks like HTML"):
        load(run.folder).predict(tmp_path / "photo.jpg")
    with pytest.raises(DataError, match="not found"):
        load(run.folder).predict("missing.jpg")


def test_a_model_that_is_not_there_raises(tmp_path):
    with pytest.raises(WeightsError, match="there is no model"):
        load(tmp_path / "nothing")
