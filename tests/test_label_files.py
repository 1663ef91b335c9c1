"""Files with labels, as people write them: read in any encoding, refused with the line that is wrong."""

import json
from pathlib import Path

import pytest
from folders import fill

from sancli.data.listing import Listing, parents
from sancli.data.preparation.groups import grouped
from sancli.data.preparation.labels.matching import Images, unsafe
from sancli.data.preparation.labels.table import read_table
from sancli.data.preparation.layouts import Hints, LabelFile, Seen, recognise
from sancli.data.prepared import open_prepared
from sancli.errors import DataError, UsageError

PATHS = ("1.jpg", "2.jpg", "deep/3.jpg", "deep/caf\u00e9.png")


def listing(paths, *tables):
    found = Listing()
    for path in (*paths, *tables):
        found.add_file(path)
    found.folders = [*parents(paths)]
    return found.sort()


def seen(files, paths=PATHS, wanted="auto", **hints):
    """The layout of images with tables beside them; hints["labels"] names the one that the user gave."""
    files = {name: text if isinstance(text, bytes) else text.encode() for name, text in files.items()}
    if "labels" in hints:
        hints["labels"] = LabelFile(hints["labels"], files.pop(hints["labels"]))
    given = Seen(
        listing(paths, *files), "photos", Hints(**hints), lambda names: {name: files[name] for name in names}
    )
    return recognise(given, wanted)


def placed(files, *args, **hints):
    """{path: (split, class)}"""
    return {image.path: (image.split, image.label) for image in seen(files, *args, **hints).images}


def refusal(text, *args, **hints):
    """What the error about labels.csv says, given with --labels."""
    with pytest.raises((DataError, UsageError)) as caught:
        seen({"labels.csv": text}, *args, **({"labels": "labels.csv"} | hints))
    words = str(caught.value)
    assert len(words.splitlines()) <= 6
    return words


GOOD = "image,label\n1.jpg,cat\n2.jpg,dog\ndeep/3.jpg,cat\ndeep/caf\u00e9.png,dog\n"
WANTED = {path: (None, label) for path, label in zip(PATHS, ("cat", "dog", "cat", "dog"), strict=True)}


@pytest.mark.parametrize(
    "content",
    [
        GOOD.encode(),
        GOOD.encode("utf-8-sig"),
        GOOD.encode("utf-16"),
        b"\xfe\xff" + GOOD.encode("utf-16-be"),
        GOOD.encode("latin-1"),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.replace("\n", "\r").encode(),
        GOOD.replace(",", ";").encode(),
        GOOD.replace(",", "\t").encode(),
        GOOD.replace(",", " | ").encode(),
        GOOD.replace("\n", "\n\n").encode(),
        GOOD.replace("\n", ",,\n").encode(),
        GOOD.replace("cat", '"cat"').replace("1.jpg", '"1.jpg"').encode(),
        GOOD.replace("caf\u00e9", "cafe\u0301").encode(),
        GOOD.replace("deep/", "deep\\").encode(),
        GOOD.replace("deep/", "./deep/").encode(),
        GOOD.replace(".jpg", "").replace(".png", "").encode(),
        GOOD.replace("deep/", "").encode(),
        (GOOD + "1.jpg,cat\n").encode(),
        GOOD.rstrip("\n").encode(),
    ],
    ids=[
        *(
            "utf-8",
            "bom",
            "utf-16",
            "utf-16-be",
            "latin-1",
            "crlf",
            "cr",
            "semicolon",
            "tab",
            "bar",
            "empty lines",
        ),
        *("empty columns", "quotes", "accent apart", "backslash", "dot", "no ending", "no folder", "twice"),
        "no last newline",
    ],
)
def test_a_table_is_read_however_it_was_written(content):
    assert placed({"labels.csv": content}) == WANTED


def test_the_encoding_is_said_where_it_was_guessed():
    assert "labels.csv was read as Latin-1." in seen({"labels.csv": GOOD.encode("latin-1")}).notes
    assert seen({"labels.csv": GOOD}).notes == []


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("image,label\n1.jpg,cat\n2.jpg\n", 3, "has 1 column, and the header 2"),
        ("image,label\n1.jpg,cat,x\n2.jpg,dog\n", 2, "has 3 columns, and the header 2"),
        (
            'image,label\n1.jpg,cat\n2.jpg,"dog\n3.jpg,cat\n',
            3,
            "a quotation mark that opens there never closes",
        ),
        ('image,label\n1.jpg,"cat"x\n', 2, "cannot be read"),
        ("image,label\n1.jpg,cat\n2.jpg,d\0g\n", 3, "holds a NUL byte"),
        (GOOD.encode("utf-16-le"), 1, "looks like UTF-16 without the mark"),
        (b"\xff\xfe" + GOOD.encode("utf-16-le")[:40] + b"\x00\xd8x\x00", 2, "is no UTF-16"),
        (f"image,label\n1.jpg,cat\n2.jpg,{'x' * 200_000}\n", 3, "a cell has more than 131,072 characters"),
        (f"image,label\n1.jpg,{'x' * 201}\n", 2, "has a label of 201 characters"),
        ("1.jpg,cat\n2.jpg,dog\n", 1, "names an image, where the names of the columns belong"),
        ("image,label\n1.jpg,\n", 2, "has no label"),
        ("image,label\n,cat\n", 2, "names no image"),
        ("image,label\n1.jpg,..\n", 2, "unsafe label '..'"),
        ("image,label\n1.jpg,../../x\n", 2, "unsafe label '../../x'"),
        ("image,label\n1.jpg,/etc\n", 2, "unsafe label '/etc'"),
        ("image,label\n../../etc/passwd,cat\n", 2, "unsafe name '../../etc/passwd'"),
        ("image,label\n/etc/passwd,cat\n", 2, "unsafe name '/etc/passwd'"),
        ("image,label\n..\\x.jpg,cat\n", 2, "unsafe name"),
        ("image,label\nC:\\x.jpg,cat\n", 2, "unsafe name"),
        ("image,label\n\n\n1.jpg,cat\n\n2.jpg,\n", 6, "has no label"),
        ('image,label,note\n1.jpg,cat,"two\nlines"\n2.jpg,,x\n', 4, "has no label"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text, line, words):
    said = refusal(text)
    assert f"labels.csv, line {line}: " in said
    assert words in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "labels.csv is empty"),
        (b"\n\n \n", "holds nothing but empty lines"),
        (b"PK\x03\x04" + b"x" * 99, "looks like zip"),
        (b"%PDF-1.4", "looks like PDF"),
        (b"\x1f\x8b\x08", "unpack it, and name the file with the labels"),
        (b"<!DOCTYPE html><html>", "looks like HTML"),
        (b"name,value\nx,1\n", "no columns known for image and label"),
        (b"image,label,label\n1.jpg,a,b\n", "two columns called label"),
    ],
)
def test_what_is_no_table_is_said_to_be_what_it_is(content, words):
    assert words in refusal(content)


def test_columns_are_found_by_name_or_said():
    text = "Id;Breed;Image Path;Data Set\n7;cat;1.jpg;train\n8;dog;2.jpg;valid\n"
    found = seen({"pets.csv": text})
    assert {image.path: (image.split, image.label) for image in found.images if image.label} == {
        "1.jpg": ("train", "cat"),
        "2.jpg": ("val", "dog"),
    }
    assert "columns Image Path and Breed, split in Data Set" in found.why
    text = "photo no,what,where\n1.jpg,cat,training\n2.jpg,dog,TEST\n"
    hints = {"image_col": "photo no", "label_col": "what", "split_col": "where"}
    assert placed({"x.csv": text}, **hints)["2.jpg"] == ("test", "dog")
    assert "x.csv has no such column" in str(refusal_of({"x.csv": text}, **hints | {"label_col": "whit"}))
    assert "did you mean what?" in str(refusal_of({"x.csv": text}, **hints | {"label_col": "whit"}))


def refusal_of(files, *args, **hints):
    with pytest.raises((DataError, UsageError)) as caught:
        seen(files, *args, **hints)
    return caught.value


def test_a_split_column_that_was_named_holds_nothing_else():
    text = "image,label,part\n1.jpg,cat,train\n2.jpg,dog,7\n"
    assert "labels.csv, line 3: 7 is no split" in refusal(text, split_col="part")
    text = text.replace("part", "dataset")  # HAM10000 has such a column, about the clinics
    assert placed({"labels.csv": text})["1.jpg"] == (None, "cat")


def test_images_that_are_not_there_are_listed_and_can_be_passed_over():
    text = GOOD + "".join(f"gone{number}.jpg,cat\n" for number in range(12)) + "2.JPG,dog\n"
    words = refusal(text)
    assert "13 images of labels.csv are not in the source" in words
    assert "gone0.jpg (line 6)" in words
    assert "gone9.jpg (line 15), ..." in words
    assert "--skip-missing" in words
    found = seen({"labels.csv": text}, skip_missing=True)
    assert len([image for image in found.images if image.label]) == 4
    assert found.left_out[0].path == "gone0.jpg"
    assert found.left_out[0].problem == "labelled but not there: labels.csv, line 6"
    assert "There is 2.jpg" in refusal("image,label\n1.jpg,cat\n2.JPG,dog\n")
    assert "not one of them was found" in refusal("image,label\nx.jpg,cat\n", skip_missing=True)


def test_rows_that_contradict_each_other_are_listed():
    words = refusal("image,label\n1.jpg,cat\n2.jpg,cat\n1.jpg,dog\n")
    assert "1 row contradict others" in words
    assert "1.jpg is cat in labels.csv, line 2, dog in labels.csv, line 4" in words
    text = "image,label,split\n1.jpg,cat,train\n2.jpg,dog,train\n1.jpg,cat,test\n"
    assert "1.jpg is train in labels.csv, line 2, test in labels.csv, line 4" in refusal(text)


def test_an_error_stays_short_and_on_its_lines_whatever_the_cells_hold():
    words = refusal('image,label\n1.jpg,cat\n1.jpg,"d\n\n\n\nog"\n')
    assert "dog" not in words
    assert "d\\n\\n\\n\\nog in labels.csv, line 3" in words
    assert len(refusal(f'image,label\n1.jpg,cat\n"{"x" * 5000}",dog\n')) < 500
    assert "\x1b" not in seen({"a.csv": 'image,"label"\n1.jpg,c\x1b[31m\n2.jpg,d\n'}).why


def test_a_name_that_can_stand_for_two_images_is_refused():
    words = refusal("image,label\n1.jpg,cat\n", ("a/1.jpg", "b/1.jpg"))
    assert "line 2: 1.jpg can stand for 2 images" in words
    near = placed({"a/labels.csv": "image,label\n1.jpg,cat\n2.jpg,dog\n"}, ("a/1.jpg", "a/2.jpg", "b/1.jpg"))
    assert near["a/1.jpg"] == (None, "cat")
    assert near["b/1.jpg"] == ("unlabelled", None)


def test_the_original_intel_release_is_found_by_itself():
    paths = [f"train-scene classification/train/{number}.jpg" for number in range(9)]
    train = "image_name,label\n" + "".join(f"{number}.jpg,{number % 3}\n" for number in range(6))
    test = "image_name\n6.jpg\n7.jpg\n8.jpg\n"
    submission = "image_name,label\n6.jpg,0\n7.jpg,0\n8.jpg,0\n"
    found = seen(
        {
            "train-scene classification/train.csv": train,
            "test_WyRytb0.csv": test,
            "sample_submission_I2hkZCz.csv": submission,
        },
        paths,
    )
    assert (found.name, found.notes) == ("csv", ["3 images without a row: unlabelled."])
    assert [image.label for image in found.images] == ["0", "1", "2", "0", "1", "2", None, None, None]
    assert [*found.label_files] == ["train-scene classification/train.csv"]


def test_a_table_named_for_a_split_means_the_images_in_its_folder():
    paths = ("train/1.jpg", "train/2.jpg", "test/1.jpg", "test/2.jpg")
    found = placed({"train.csv": "id,label\n1,cat\n2,dog\n"}, paths)
    assert found["train/1.jpg"] == (None, "cat")
    assert found["test/1.jpg"] == ("unlabelled", None)


def test_a_column_tells_the_groups():
    text = "image_id,lesion,dx\n1,A,nv\n2,A,mel\n3,,nv\n"
    found = seen({"meta.csv": text}, group_by="lesion")
    assert [image.group for image in found.images] == ["A", "A", None, None]
    assert grouped(found.images, "lesion") == found.images


def test_a_column_for_each_class_is_read_too():
    text = "image,MEL,NV,BCC\n1,0.0,1.0,0.0\n2,1.0,0.0,0.0\n3,0,1,0\n"
    assert placed({"ISIC_GroundTruth.csv": text})["2.jpg"] == (None, "MEL")
    assert placed({"x.csv": text.replace("image", "scan")}, image_col="scan")["1.jpg"] == (None, "NV")
    for other in ("0.3", "1.0", "2"):  # probabilities, two classes, numbers
        words = str(refusal_of({"x.csv": text.replace("0.0,1.0", f"{other},1.0")}))
        assert ("x.csv, line 2: marks MEL, NV" if other == "1.0" else "looked for") in words
    words = str(refusal_of({"x.csv": text.replace("2,1.0", "2,0")}, labels="x.csv"))
    assert "x.csv, line 3: marks no class." in words


def test_tables_named_for_splits_are_taken_together_and_others_are_not_mixed():
    train, test = "file,class\n1.jpg,cat\n2.jpg,dog\n", "file,class\ndeep/3.jpg,cat\n"
    assert placed({"train.csv": train, "test_labels.csv": test})["deep/3.jpg"] == ("test", "cat")
    words = str(refusal_of({"a.csv": train, "b.csv": train}))
    assert "2 tables say what the images show: a.csv, b.csv" in words
    assert "--labels a.csv" in words
    words = str(refusal_of({"train.csv": train, "test.csv": train}))
    assert "1.jpg is test in test.csv, line 2, train in train.csv, line 2" in words


def test_folders_named_for_splits_count_where_no_column_does():
    paths = ("train/1.jpg", "train/2.jpg", "test/3.jpg")
    found = placed({"labels.csv": "image,label\n1.jpg,cat\n2.jpg,dog\n3.jpg,dog\n"}, paths)
    assert found == {
        "train/1.jpg": ("train", "cat"),
        "train/2.jpg": ("train", "dog"),
        "test/3.jpg": ("test", "dog"),
    }


def test_folders_win_where_the_table_says_the_same_and_lose_where_they_are_mere_parts():
    paths = ("cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
    text = "image,class id\ncat/1.jpg,0\ncat/2.jpg,0\ndog/3.jpg,1\n"
    assert seen({"list.csv": text}, paths).name == "folders"
    paths = ("part_1/1.jpg", "part_1/2.jpg", "part_2/3.jpg")
    assert seen({"meta.csv": "image_id,dx\n1,nv\n2,mel\n3,nv\n"}, paths).name == "csv"


def test_a_broken_table_stops_nothing_that_folders_say_and_is_named():
    paths = ("cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
    assert seen({"list.csv": "cat/1.jpg,0\n"}, paths).name == "folders"
    words = str(refusal_of({"train.csv": "1.jpg,0\n2.jpg,1\n"}, ("train/1.jpg", "train/2.jpg")))
    assert "train.csv, line 1: names an image" in words
    words = str(refusal_of({"train.csv": "image,label\n1.jpg,0\n2.jpg\n"}, ("train/1.jpg", "train/2.jpg")))
    assert "train.csv, line 3: has 1 column" in words


def test_images_are_found_by_whole_names_alone():
    images = Images(["a/b/1.jpg", "c/1.jpg", "c/x.tar.png"])
    assert images.find("b/1.jpg") == ["a/b/1.jpg"]
    assert images.find("1") == ["a/b/1.jpg", "c/1.jpg"]
    assert images.find("1", beside="c") == ["c/1.jpg"]
    assert images.find("x.tar") == ["c/x.tar.png"]
    assert images.find(".jpg") == images.find("jpg") == images.find("") == images.find("z/1.jpg") == []
    assert unsafe("a..b/c.jpg") is None


def test_rows_before_a_mistake_are_kept_with_it():
    table = read_table(b"a,b\n1,2\n3,4\n5\n", "x.csv")
    assert [row.cells for row in table.rows] == [["1", "2"], ["3", "4"]]
    assert "x.csv, line 4: has 1 column, and the header 2." in str(table.error)


def test_from_the_command_line_to_a_folder_and_again(san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill("shop", {f"images/{number}.png": number for number in range(12)})
    table = Path("shop/items.csv")
    table.write_text("file;class\n" + "".join(f"{number}.png;{'ab'[number % 2]}\n" for number in range(10)))
    outcome = san("prepare", "shop", "--json")
    assert outcome.code == 0, outcome.stderr
    facts = json.loads(outcome.stdout)
    assert (facts["layout"], facts["label_files"], facts["unlabelled"]) == ("csv", ["items.csv"], 2)
    assert facts["counts"] == {"train": {"a": 4, "b": 4}, "val": {"a": 1, "b": 1}}
    assert "nothing to do" in san("prepare", "shop").stderr
    table.write_text(table.read_text().replace("3.png;b", "3.png;a"))
    outcome = san("prepare", "shop")
    assert (outcome.code, "the source has changed since" in outcome.stderr) == (6, True)
    table.write_text("file;class\n../../x;a\n")
    assert san("prepare", "shop", "--force", "--labels", "shop/items.csv").code == 3
    assert san("prepare", "shop", "--labels", "item.csv").stderr.count("did you mean items.csv?") == 1
    assert open_prepared(Path("data/shop")).is_whole()
