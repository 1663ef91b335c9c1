"""ImageNet as it is downloaded: every form of its labels gives the same, and nothing is split or left out."""

import csv
import importlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from folders import fill, fill_zip, picture

from sancli.data.imagenet import devkit_wnids, names, synsets
from sancli.data.listing import Listing
from sancli.data.preparation.labels.challenge import read_truth
from sancli.data.preparation.labels.matlab import read_synsets
from sancli.data.preparation.layouts import Hints, LabelFile, Seen, recognise
from sancli.data.prepared import open_prepared
from sancli.errors import DataError
from sancli.model.imagenet import imagenet_classes

# The first ten validation images: the development kit's numbers, and the wnids by which others know them.
KIT = (490, 361, 171, 822, 297, 482, 13, 704, 599, 164)
WNIDS = (
    *("n01751748", "n09193705", "n02105855", "n04263257", "n03125729"),
    *("n01735189", "n02346627", "n02776631", "n03794056", "n02328150"),
)
SORTED = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332)


def name(number):
    return f"ILSVRC2012_val_{number:08}.JPEG"


def lines(values):
    return "".join(f"{value}\n" for value in values)


FORMS = {
    "names.csv": "image,wnid\n" + lines(f"{name(n)},{w}" for n, w in enumerate(WNIDS, 1)),
    "reversed.csv": "name;class\n" + lines(f"{name(n)};{WNIDS[n - 1]}" for n in range(10, 0, -1)),
    "LOC_val_solution.csv": "ImageId,PredictionString\n"
    + lines(f"{name(n)[:-5]},{w} 85 1 499 272 {w} 3 4 5 6 " for n, w in enumerate(WNIDS, 1)),
    "val.txt": lines(f"{name(n)} {index}" for n, index in enumerate((0, *SORTED[1:]), 1)),
    "synset_labels.txt": lines(WNIDS),
    "sorted.txt": lines((0, *SORTED[1:])),
    "ILSVRC2012_validation_ground_truth.txt": lines(KIT),
}
ZERO = ("n01440764", *WNIDS[1:])
"""What sorted.txt says: only an index of 0 shows that they are indices."""


def seen(files=(), *, count=10, images=None, **hints):
    listing = Listing()
    contents = {key: text.encode() if isinstance(text, str) else text for key, text in dict(files).items()}
    for path in [*(images or map(name, range(1, count + 1))), *contents]:
        listing.add_file(path)
    listing.sort()
    if "labels" in hints:
        hints["labels"] = LabelFile("labels.txt", hints["labels"].encode())
    return recognise(
        Seen(listing, "val", Hints(**hints), lambda paths: {path: contents[path] for path in paths})
    )


def refusal(*args, **hints):
    with pytest.raises(DataError) as caught:
        seen(*args, **hints)
    assert len(str(caught.value).splitlines()) <= 6
    return str(caught.value)


def test_the_facts_about_the_classes():
    assert len(synsets()) == len(devkit_wnids()) == len(names()) == len(set(names().values())) == 1000
    assert [*names()] == sorted(names())
    assert tuple(names().values()) == imagenet_classes()
    assert sorted(devkit_wnids()) == [*range(1, 1001)]
    assert tuple(devkit_wnids()[number] for number in KIT) == WNIDS
    assert tuple([*names()].index(wnid) for wnid in WNIDS) == SORTED


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_labels(form):
    found = seen({form: FORMS[form]})
    wanted = ZERO if form in ("val.txt", "sorted.txt") else WNIDS
    assert (found.name, found.whole) == ("imagenet-val", True)
    assert [(image.split, image.label) for image in found.images] == [("val", wnid) for wnid in wanted]
    assert [*found.label_files] == [form]


def test_folders_named_by_wnid_are_labels_too():
    found = seen(images=[f"val/{wnid}/{name(number)}" for number, wnid in enumerate(WNIDS, 1)])
    assert (found.name, found.whole) == ("imagenet-val", True)
    assert [image.label for image in found.images] == sorted(WNIDS)


def test_folders_named_by_class_are_labels_too_however_their_spaces_are_written():
    called = {"n02105855": "Shetland_sheepdog", "n04263257": "soup bowl", "n01751748": "sea snake"}
    found = seen(images=[f"{folder}/{name(number)}" for number, folder in enumerate(called.values(), 1)])
    assert (found.name, found.whole) == ("imagenet-val", True)
    assert sorted(image.label for image in found.images) == sorted(called)


def test_a_folder_of_no_class_among_those_of_imagenet_is_named():
    said = refusal(
        images=[f"val/{WNIDS[0]}/{name(1)}", f"val/unicorn/{name(2)}", f"val/{WNIDS[1]}/{name(3)}"]
    )
    assert "the folder unicorn" in said


def test_a_part_of_the_images_takes_its_labels_by_number_from_the_whole_list():
    values = [KIT[number % 10] for number in range(49_998)] + [1000, KIT[9]]
    found = seen(images=[name(4), name(50_000)], labels=lines(values) + "\n", skip_missing=False)
    assert [image.label for image in found.images] == [WNIDS[3], WNIDS[9]]
    assert (
        "2 of the 50,000 validation images; the first that lacks: ILSVRC2012_val_00000001.JPEG."
        in found.notes
    )


KIT_NAME = "x_validation_ground_truth.txt"


@pytest.mark.parametrize(
    ("text", "count", "words"),
    [
        (lines(KIT[:6]), 4, "val_00000005.JPEG, labelled in"),
        (lines(KIT[:6]), 4, "4 images and 6 labels; 2 labels have no image"),
        (lines(KIT[:4]), 6, "has no label for ILSVRC2012_val_00000005.JPEG"),
        (lines(KIT[:4]), 6, "6 images and 4 labels; 2 images have none"),
        (lines(["490", "", "171"]), 3, "line 2: is empty"),
        (lines([490, 361, 0]), 3, "line 3: '0' is no class"),
        (lines([490, 1001, 361]), 3, "line 2: '1001' is no class"),
        (lines(["abc", 361, 490]), 3, "line 1: 'abc' is no class"),
        (lines([490, "abc", 361]), 3, "line 2: 'abc' is no class"),
        (lines([490, "9" * 5000, 361]), 3, "line 2: '999999"),
        (lines([490, "361 7", 361]), 3, "line 2: reads '361 7'"),
        (lines([*WNIDS[:2], "n12345678"]), 3, "line 3: n12345678 is no class of the challenge"),
        (f"{name(1)},{WNIDS[0]}\n{name(1)},{WNIDS[1]}\n", 1, "line 2: gives image 1 two labels"),
        (f"{name(1)},{WNIDS[0]}\nx.jpg,{WNIDS[1]}\n{name(2)},{WNIDS[1]}\n", 2, "line 2: reads 'x.jpg"),
    ],
)
def test_labels_that_do_not_fit_are_refused(text, count, words):
    assert words in refusal({KIT_NAME: text}, count=count)


def test_fewer_images_than_labels_are_taken_on_demand():
    found = seen({KIT_NAME: lines(KIT[:6])}, count=4, skip_missing=True)
    assert [image.label for image in found.images] == [*WNIDS[:4]]


def test_numbers_that_can_mean_two_things_are_not_guessed():
    assert "can mean two things" in refusal({"labels.txt": lines(KIT)})
    assert "line 2: is 0, and line 3 is 1000" in refusal({"labels.txt": lines([5, 0, 1000])}, count=3)
    assert seen({"labels.txt": lines([5, 1, 1000])}, count=3).images[2].label == devkit_wnids()[1000]


def test_labels_are_looked_for_and_contradictions_are_seen():
    assert "looked for LOC_val_solution.csv" in refusal()
    assert "no labels for the validation images of ImageNet in labels.txt" in refusal(labels="a\nb\n")
    files = {"readme.txt": "Hello,\n\nworld\n", "synset_words.txt": lines(f"{w} x, y" for w in WNIDS)}
    files |= {
        "synsets.txt": lines(names()),
        "LOC_sample_submission.csv": FORMS["sorted.txt"],
        "x.txt": b"%PDF-",
    }
    assert [*seen(files | {"names.csv": FORMS["names.csv"]}).label_files] == ["names.csv"]
    words = refusal({"a.csv": FORMS["names.csv"], "b.txt": FORMS["sorted.txt"]})
    assert "a.csv and b.txt contradict each other" in words
    assert "image 1 is n01751748 in line 2 of a.csv, and n01440764 in line 1 of b.txt" in words


def test_the_same_image_twice_and_images_of_other_names():
    assert "validation image 3 is there twice" in refusal(images=[name(3), f"b/{name(3)}", name(4)])
    found = seen({"names.csv": FORMS["names.csv"]}, images=[*map(name, range(1, 11)), "logo.png"])
    assert [problem.path for problem in found.left_out] == ["logo.png"]


@pytest.fixture
def matlab(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("mat_file").matlab


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_kits_own_table_is_read(matlab, order, packed):
    content = matlab([(1, "n02119789"), (2, "n02100735"), (1001, "n00001740")], order=order, packed=packed)
    assert read_synsets(content, "meta.mat") == {1: "n02119789", 2: "n02100735"}


def test_the_kits_own_table_counts_more_than_ours(matlab):
    table = matlab([(number, wnid) for number, wnid in zip(KIT, reversed(WNIDS), strict=True)])
    found = seen({KIT_NAME: lines(KIT), "data/meta.mat": table})
    assert [image.label for image in found.images] == [*reversed(WNIDS)]
    assert sorted(found.label_files) == ["data/meta.mat", KIT_NAME]
    assert "by data/meta.mat" in found.why


@pytest.mark.parametrize("cut", [0, 50, 127, 130, 200, 300, -1])
def test_a_damaged_table_of_the_kit_is_refused(matlab, cut):
    content = matlab([(number, wnid) for number, wnid in zip(KIT, WNIDS, strict=True)])[:cut]
    with pytest.raises(DataError, match=r"meta.mat is not the meta.mat of ImageNet's development kit"):
        read_synsets(content, "meta.mat")


def test_a_table_of_other_classes_is_refused(matlab):
    with pytest.raises(DataError, match="it calls class 5 'n00000001'"):
        read_synsets(matlab([(5, "n00000001")]), "meta.mat")


def test_lists_of_other_things_are_no_labels():
    for text in ("", "\n", "a b c\n", "1 2\n3 4\n", "image,label\n1.jpg,cat\n"):
        content = text.encode() or b" "
        assert read_truth(content, "x.txt", devkit_wnids(), devkit_from=None) is None


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAN_CACHE", str(tmp_path / "cache"))
    return tmp_path


def fill_tar(path, tree):
    with tarfile.open(path, "w") as archive:
        for key, content in tree.items():
            member = tarfile.TarInfo(key)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return Path(path)


TREE = {name(number): picture(number if number != 7 else 6) for number in range(1, 11)}
"""Images 6 and 7 have the same bytes."""


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_from_any_source_everything_goes_to_val(san, place, kind):
    files = TREE | {
        "ILSVRC2012_validation_ground_truth.txt": FORMS["ILSVRC2012_validation_ground_truth.txt"].encode()
    }
    source = {"folder": "imagenet", "zip": "imagenet.zip", "tar": "imagenet.tar"}[kind]
    {"folder": fill, "zip": fill_zip, "tar": fill_tar}[kind](source, files)
    outcome = san("prepare", source, "--json")
    assert outcome.code == 0, outcome.stderr
    facts = json.loads(outcome.stdout)
    assert facts["counts"] == {"val": dict.fromkeys(sorted(WNIDS), 1)}
    assert facts["duplicates"] == {
        "policy": "report",
        "sets": {"inside_class": 0, "across_classes": 1, "across_splits": 0},
        "dropped": {"inside_class": 0, "across_classes": 0, "across_splits": 0},
        "shared": {},
    }
    assert facts["ignored"] == {}
    with Path("data/imagenet/splits.csv").open(encoding="utf-8") as file:
        assert {row["source"]: row["class"] for row in csv.DictReader(file)} == dict(
            zip(map(name, range(1, 11)), WNIDS, strict=True)
        )
    assert open_prepared(Path("data/imagenet")).is_whole()
    assert outcome.stderr.splitlines()[-1] == "Next: san download-weights san15-patchwise"
    assert "nothing to do" in san("prepare", source).stderr


def test_changed_labels_are_seen_and_options_that_would_change_the_set_are_refused(san, place):
    fill("val", TREE)
    Path("truth.txt").write_text(lines(WNIDS))
    assert san("prepare", "val", "--labels", "truth.txt").code == 0
    Path("moved.txt").write_text(lines(WNIDS))
    assert "nothing to do" in san("prepare", "val", "--labels", "moved.txt").stderr
    Path("truth.txt").write_text(lines(reversed(WNIDS)))
    outcome = san("prepare", "val", "--labels", "truth.txt")
    assert (outcome.code, "exists already" in outcome.stderr) == (6, True)
    outcome = san("prepare", "val", "out", "--labels", "truth.txt", "--val", "0.3")
    assert outcome.code == 2
    assert "--val 0.3 cannot be obeyed" in outcome.stderr


def test_the_training_tar_of_tars_goes_to_train_whole(san, place):
    tars = {}
    for index, wnid in enumerate(("n01440764", "n01443537", "n01484850")):
        images = {f"{wnid}_{number}.JPEG": picture(100 * index + number) for number in range(index + 1)}
        tars[f"{wnid}.tar"] = fill_tar("one.tar", images).read_bytes()
    fill_tar("ILSVRC2012_img_train.tar", tars)
    outcome = san("prepare", "ILSVRC2012_img_train.tar")
    assert outcome.code == 0, outcome.stderr
    assert "Layout: imagenet-train, because it holds a tar for each of 3 wnids" in outcome.stderr
    manifest = open_prepared(Path("data/ILSVRC2012_img_train")).manifest
    assert manifest.counts == {"train": {"n01440764": 1, "n01443537": 2, "n01484850": 3}}
    assert san("prepare", "ILSVRC2012_img_train.tar", "split", "--val", "0.3").code == 0
    counts = open_prepared(Path("split")).manifest.counts
    assert counts["val"] == {"n01440764": 0, "n01443537": 1, "n01484850": 1}
