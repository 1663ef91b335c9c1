"""`san prepare --check`: a prepared folder is whole, or every file that is not as it was is named."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from folders import class_tree, contents, fill, fill_zip

from sancli.config import PrepareConfig
from sancli.data.preparation.threads import in_threads
from sancli.tasks import prepare as task


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Prepared once: 16 training and 4 validation images, by copies."""
    root = tmp_path_factory.mktemp("prepared")
    source = fill(root / "pets", class_tree("cat", "dog", count=10))
    task.run(PrepareConfig(source=source, out=root / "data/pets", link="copy"))
    return root


@pytest.fixture
def pets(prepared, tmp_path, monkeypatch):
    """A copy of it, to change."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("data/pets")


def faults(outcome):
    facts = json.loads(outcome.stdout)
    return {kind: facts[kind] for kind in ("missing", "changed", "unreadable", "extra") if facts[kind]}


def test_a_whole_folder_is_called_whole_and_stays_as_it_is(san, pets):
    before = contents(pets)
    outcome = san("prepare", "--check", pets)
    assert outcome.code == 0, outcome.stderr
    assert (
        outcome.stdout == "data/pets is whole: 20 images and what is said of them, as san prepare left it.\n"
    )
    assert outcome.stderr.splitlines()[-1] == "Next: san train data/pets"
    assert contents(pets) == before


@pytest.mark.parametrize("link", ["auto", "hard", "sym", "archive"])
def test_every_way_of_placing_images_can_be_checked(san, tmp_path, monkeypatch, link):
    monkeypatch.chdir(tmp_path)
    tree = class_tree("cat", "dog") | {"cat/\x1b[31m\n.png": 77, "=dog/x.png": 78, "=dog/y.png": 79}
    source = fill_zip("a.zip", tree) if link == "archive" else fill("a", tree)
    assert san("prepare", source, *(() if link == "archive" else ("--link", link))).code == 0
    assert san("prepare", "--check", "data/a").code == 0


def test_what_is_missing_changed_unreadable_or_extra_is_named(san, pets):
    images = sorted(path.relative_to(pets).as_posix() for path in pets.glob("train/cat/*"))
    (pets / images[0]).unlink()
    content = bytearray((pets / images[1]).read_bytes())
    content[len(content) // 2] ^= 1
    (pets / images[1]).write_bytes(content)
    (pets / images[2]).unlink()
    (pets / images[2]).mkdir()
    fill(pets, {"train/cat/new.png": 500, "train/eel/1.png": 501, "notes.txt": b"x", "val/.DS_Store": b"x"})
    outcome = san("prepare", "--check", pets, "--json")
    assert outcome.code == 3
    assert faults(outcome) == {
        "missing": [images[0]],
        "changed": [images[1]],
        "unreadable": [images[2]],
        "extra": ["notes.txt", "train/cat/new.png", "train/eel"],
    }
    screen = san("prepare", "--check", pets)
    assert f"changed    {images[1]}\n" in screen.stdout
    assert "why: 1 missing, 1 changed, 1 unreadable, 3 extra, of 20 images." in screen.stderr
    assert len(screen.stderr.splitlines()) <= 6


def test_a_changed_list_of_hashes_is_no_witness(san, pets):
    table = pets / "splits.csv"
    image = next(pets.glob("val/dog/*"))
    text = table.read_text(encoding="utf-8")
    table.write_text(
        "\n".join(line for line in text.splitlines() if f"dog/{image.name}" not in line) + "\n", "utf-8"
    )
    image.unlink()
    assert faults(san("prepare", "--check", pets, "--json")) == {"changed": ["splits.csv"]}
    (pets / "SHA256SUMS").unlink()  # dataset.json knows the hash of splits.csv too
    found = faults(san("prepare", "--check", pets, "--json"))
    assert found == {"changed": ["splits.csv"], "missing": ["SHA256SUMS"]}


@pytest.mark.parametrize("name", ["dataset.json", "problems.csv", "report.html"])
def test_what_is_said_of_the_images_is_checked_too(san, pets, name):
    text = (pets / name).read_text(encoding="utf-8")
    (pets / name).write_text(text.replace('"cat"', '"cow"', 1) if name == "dataset.json" else text + " ")
    assert faults(san("prepare", "--check", pets, "--json")) == {"changed": [name]}
    if name != "dataset.json":
        (pets / name).unlink()
        assert faults(san("prepare", "--check", pets, "--json")) == {"missing": [name]}


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["counts"]["train"].update(cat=9),
        lambda said: said["counts"].pop("val"),
        lambda said: said["classes"].reverse(),
        lambda said: said.update(unlabelled=1),
    ],
)
def test_a_dataset_json_that_does_not_fit_the_images_is_changed_whatever_the_sums_say(san, pets, change):
    manifest, sums = pets / "dataset.json", pets / "SHA256SUMS"
    before = hashlib.sha256(manifest.read_bytes()).hexdigest()
    said = json.loads(manifest.read_text("utf-8"))
    change(said)
    manifest.write_text(json.dumps(said), "utf-8")
    after = hashlib.sha256(manifest.read_bytes()).hexdigest()
    sums.write_text(sums.read_text("utf-8").replace(before, after), "utf-8")
    assert faults(san("prepare", "--check", pets, "--json")) == {"changed": ["dataset.json"]}


def test_the_sums_are_those_of_sha256sum_and_damage_to_them_is_named(san, pets):
    sums = pets / "SHA256SUMS"
    lines = dict(reversed(line.split("  ")) for line in sums.read_text().splitlines())
    assert lines.keys() == {"dataset.json", "splits.csv", "problems.csv", "report.html"}
    assert lines == {name: hashlib.sha256((pets / name).read_bytes()).hexdigest() for name in lines}
    for damage in ("", "x", sums.read_text()[:100], sums.read_text().replace("report", "deport")):
        sums.write_text(damage)
        assert faults(san("prepare", "--check", pets, "--json")) == {"changed": ["SHA256SUMS"]}
    sums.write_bytes(b"\xff")
    assert faults(san("prepare", "--check", pets, "--json")) == {"changed": ["SHA256SUMS"]}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text.replace("sha256", "md5", 1),
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("val/dog", "../../etc", 1),
        lambda text: text.replace("val/dog", "val/../..", 1),
        lambda text: text.replace("val/dog", "val", 1),
        lambda text: text + "\n",
        lambda text: text + '"open',
        None,
    ],
)
def test_a_damaged_list_of_hashes_is_said(san, pets, damage):
    table = pets / "splits.csv"
    table.unlink() if damage is None else table.write_text(damage(table.read_text("utf-8")), "utf-8")
    outcome = san("prepare", "--check", pets)
    assert outcome.code == 3
    assert "splits.csv" in outcome.stderr + outcome.stdout
    assert "Traceback" not in outcome.stderr


def test_a_link_whose_source_has_gone_is_missing(san, pets):
    assert san("prepare", "pets", "linked", "--link", "sym").code == 0
    Path("pets/cat/0.png").unlink()
    (gone,) = faults(san("prepare", "--check", "linked", "--json"))["missing"]
    assert gone.endswith("cat/0.png")


def test_check_stands_alone_and_wants_a_prepared_folder(san, pets):
    outcome = san("prepare", "--check", pets, "--val", "0.2")
    assert (outcome.code, "--check and --val do not go together" in outcome.stderr) == (2, True)
    assert san("prepare", "--check", pets, "elsewhere").code == 2
    assert san("prepare", "--check", "pets").code == 3
    assert san("prepare", "--check", "nowhere").code == 3


def test_threads_keep_the_order_and_stop_at_an_error():
    assert list(in_threads(lambda number: number**2, range(1000))) == [n**2 for n in range(1000)]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda number: 1 // number, [1, 1, 0, 1]))
    assert list(in_threads(os.fspath, [])) == []
