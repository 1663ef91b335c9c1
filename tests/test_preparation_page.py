"""report.html of `san prepare`: one file with everything inside, true, safe and the same each time."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from folders import class_tree, fill, fill_zip, picture
from PIL import Image

from sancli.data.preparation.remains import remains
from sancli.data.preprocessing import Preprocessing
from sancli.data.transforms import evaluation_view
from sancli.report.pages.preparation import MOST_ROWS, SHEET_PIXELS, sheet_of, shown_classes
from sancli.report.pages.thumbnails import contrast, equalized, sheet

HOSTILE = '<script>alert("x")<'
VOID = {"meta", "img", "polyline", "br"}


class Page(HTMLParser):
    """What a browser sees: tags, pictures, text."""

    def __init__(self, path):
        super().__init__()
        self.source = Path(path).read_text(encoding="utf-8")
        self.tags, self.open, self.text, self.titles, self.uris, self.policy = [], [], [], [], [], ""
        self.feed(self.source)
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        assert not {name for name in found if name.startswith("on")} | found.keys() & {"href", "srcset"}
        self.titles += [found["title"]] if "title" in found else []
        self.uris += [found["src"]] if "src" in found else []
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    def images(self):
        prefix = "data:image/jpeg;base64,"
        assert all(uri.startswith(prefix) for uri in self.uris)
        return [Image.open(io.BytesIO(base64.b64decode(uri[len(prefix) :]))) for uri in self.uris]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photo(seed, size=(64, 48)):
    """A JPEG with some contrast."""
    rand = torch.Generator().manual_seed(seed)
    pixels = (torch.rand(6, 8, 3, generator=rand) * 255).byte().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(file, "JPEG", quality=95)
    return file.getvalue()


def faulty():
    tree = {
        f"train/{name}/{i}.jpg": photo(10 * n + i) for n, name in enumerate(("cat", "dog")) for i in range(8)
    }
    tree |= {
        f"test/{name}/{i}.jpg": photo(100 + 10 * n + i)
        for n, name in enumerate(("cat", "dog"))
        for i in range(3)
    }
    return tree | {
        "train/cat/cut.jpg": photo(300, (200, 200))[:-900],
        "train/cat/empty.jpg": b"",
        "train/cat/again.jpg": photo(1),
        "train/dog/lie.jpg": photo(2),
        "train/dog/leak.jpg": photo(110),
        "train/eel/only.jpg": photo(400),
        f"train/dog/{HOSTILE}.jpg": b"x",
        "train/cat/a\nb\x1b[31m\u202egpj.jpg": photo(1),
        "train/dog/notes.txt": b"x",
    }


def test_the_page_is_one_file_that_runs_and_fetches_nothing(san, place):
    fill("pets", faulty())
    assert san("prepare", "pets").code == 0
    page = Page("data/pets/report.html")
    assert page.policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert "url(" not in page.source
    assert len(page.images()) > 10
    for image in page.images():
        image.load()


def test_hostile_names_are_shown_and_do_nothing(san, place):
    fill("<i>pets", faulty() | class_tree('"><b onclick=x>', count=3, start=700, prefix="train/"))
    assert san("prepare", "<i>pets", "out").code == 0
    page = Page("out/report.html")
    assert f"train/dog/{HOSTILE}.jpg" in page.words
    assert "train/cat/a\\nb\\x1b[31m\\u202egpj.jpg" in page.words
    assert '"><b onclick=x>' in page.words
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", page.source)
    assert "b" not in {tag for tag in page.tags if "onclick" in tag}


def test_the_page_says_what_was_found_and_done(san, place):
    fill("pets", faulty())
    san("prepare", "pets", "--val", "0.25")
    words = Page("data/pets/report.html").words
    for sentence in (
        "3 files could not be used: 2 not an image, 1 truncated.",
        "1 set of identical files in more than one class (contradictory labels); 2 images dropped",
        "2 files byte-identical in train and test (a leak).",
        "1 set of identical files inside a class; 2 images dropped from train.",
        "Too few usable training images, left out: eel (1).",
        "val: 25% of each class, chosen by seed 0 and content; the source brings none.",
        "Files with other endings, ignored: .txt 1.",
        "class train val test all cat 5 2 3 10 dog 6 2 3 11 all 11 4 6 21",
        "Contradictory labels: 1 set",
        "Leaks between splits: 1 set",
        "Copies inside a class: 1 set",
        "truncated: 1 file",
        "formats JPEG 27",
        "san prepare pets --val 0.25",
        "--seed 0",
    ):
        assert sentence in words
    assert "Nothing about these images" not in words


def test_clean_images_need_no_look(san, place):
    fill("pets", class_tree("cat", "dog", count=30))
    san("prepare", "pets", "--val", "0")
    assert "Nothing about these images needs a look." in Page("data/pets/report.html").words


def test_equal_input_gives_equal_bytes_by_every_way(san, place):
    fill("pets", faulty())
    fill_zip("pets.zip", faulty())
    for source, out, *options in (
        ("pets", "a"),
        ("pets", "b", "--force"),
        ("pets", "c", "--link", "copy"),
        ("pets.zip", "d"),
    ):
        assert san("prepare", source, out, *options).code == 0
    assert Path("a/report.html").read_bytes() == Path("b/report.html").read_bytes()
    assert Page("a/report.html").uris == Page("c/report.html").uris == Page("d/report.html").uris


@pytest.mark.parametrize("options", [(), ("--resize", "2"), ("--near-duplicates",)])
def test_pictures_of_any_shape_have_their_place(san, place, options):
    if "--near-duplicates" in options:
        pytest.importorskip("imagehash")
    shapes = [(1, 1), (2, 1), (1, 2000), (3000, 3), (7, 5), (301, 299)]
    fill(
        "odd",
        {f"{name}/{w}x{h}.png": picture(w + ord(name), size=(w, h)) for name in "ab" for w, h in shapes},
    )
    outcome = san("prepare", "odd", "out", "--val", "0", *options)
    assert outcome.code == 0, outcome.stderr
    assert len(Page("out/report.html").titles) == 12
    assert san("prepare", "--check", "out").code == 0


def test_a_dry_run_writes_no_page(san, place):
    fill("pets", class_tree("cat", "dog"))
    assert san("prepare", "pets", "out", "--dry-run").code == 0
    assert not Path("out").exists()


def test_every_class_has_its_sheet_and_files_without_one_too(san, place):
    tree = class_tree("forest", "sea", count=20, prefix="seg_train/")
    fill("scenes", tree | {f"seg_pred/{i}.png": 9000 + i for i in range(3)})
    san("prepare", "scenes")
    page = Page("data/scenes/report.html")
    assert len(page.titles) == 12 + 12 + 3
    assert all((Path("scenes") / title).is_file() for title in page.titles)
    assert "without a class 3" in page.words
    assert [image.size for image in page.images()[:3]] == [(6 * 128, 2 * 128)] * 2 + [(3 * 128, 128)]


def test_classes_of_imagenet_are_named_for_people(san, place):
    tree = {f"val/ILSVRC2012_val_{i:08}.JPEG": photo(i) for i in range(1, 5)}
    rows = "".join(
        f"ILSVRC2012_val_{i:08},n0144{[0, 3][i % 2]}{[764, 537][i % 2]} 1 2 3 4\n" for i in range(1, 5)
    )
    fill("set", tree | {"val/LOC_val_solution.csv": f"ImageId,PredictionString\n{rows}".encode()})
    outcome = san("prepare", "set", "out")
    assert outcome.code == 0, outcome.stderr
    words = Page("out/report.html").words
    assert "class val n01440764 tench 2 n01443537 goldfish 2 all 4" in words
    assert san("prepare", "--check", "out").stderr.splitlines()[-1:] != ["Next: san train out"]


def test_the_page_stays_small_however_many_classes():
    counts = {"train": {f"c{i:05}": i for i in range(5000)}}
    assert shown_classes(counts) == [f"c{i:05}" for i in range(MOST_ROWS)]
    for classes in (2, 10, 30, 100, 300, 1000, 20_000):
        count, side = sheet_of(classes)
        assert min(classes, MOST_ROWS) * count * side**2 <= SHEET_PIXELS
    assert sheet_of(6) == (12, 128)
    assert sheet_of(1000) == (2, 44)


def test_many_duplicates_and_faults_are_counted_and_some_shown(san, place):
    tree = class_tree("cat", count=22) | class_tree("dog", count=2, start=500)
    tree |= {f"cat/copy-{i}.png": i for i in range(22)} | {f"cat/more-{i}.png": 0 for i in range(3)}
    fill("pets", tree | {f"cat/bad-{i}.jpg": b"x" for i in range(9)})
    san("prepare", "pets")
    page = Page("data/pets/report.html")
    assert (
        "Copies inside a class: 22 sets The same file more than once: it would count double. The first 19;"
        in page.words
    )
    assert "not an image: 9 files" in page.words
    assert "The first 7; problems.csv has all." in page.words
    assert "and 1 more" in page.words
    assert page.source.count('<figure class="shot">') == 40 + 7


def test_before_and_after_are_what_training_does():
    image = Image.open(io.BytesIO(photo(5, (60, 60)))).point(lambda value: 90 + value // 5)
    pair = equalized(image, 60)
    plain = evaluation_view(Preprocessing(image_size=60))
    assert torch.equal(plain(pair.after), evaluation_view(Preprocessing(image_size=60, equalize=True))(image))
    assert torch.equal(plain(pair.before), plain(image))
    assert contrast(pair.after) > 2 * contrast(pair.before)
    assert [len(line.split()) for line in pair.before_lines + pair.after_lines] == [32] * 6
    flat = equalized(Image.new("RGB", (300, 10), "red"), 60)
    assert flat.after.size == (60, 2)


def test_contrast_is_the_standard_deviation_of_the_brightness():
    assert contrast(Image.new("L", (4, 4), 77)) == 0
    half = Image.new("L", (4, 4), 255)
    half.paste(0, (0, 0, 4, 2))
    assert contrast(half) == 127.5


def test_a_sheet_leaves_the_place_of_a_lost_picture_empty():
    drawn = sheet(
        [Image.new("RGB", (9, 4), "white"), None, Image.new("RGB", (2, 8), "black")], side=8, columns=2
    )
    assert drawn.size == (16, 16)
    assert [drawn.getpixel(at) for at in ((4, 4), (12, 4), (4, 12))] == [(255,) * 3, (128,) * 3, (0,) * 3]


def test_a_truncated_jpeg_shows_what_is_left(tmp_path):
    files = {
        "cut.jpg": photo(1, (200, 200))[:-1500],
        "cut.png": picture(1, size=(90, 90))[:-50],
        "x.jpg": b"\xff\xd8\xff",
    }
    fill(tmp_path, files)
    left = remains(tmp_path / "cut.jpg", max_pixels=10**6).image
    assert left.size == (200, 200)
    assert contrast(left.crop((0, 0, 200, 30))) > 5
    assert set(left.crop((0, 190, 200, 200)).get_flattened_data()) == {(128, 128, 128)}
    for name in ("cut.png", "x.jpg", "none.jpg"):
        assert remains(tmp_path / name, max_pixels=10**6) is None
    assert remains(tmp_path / "cut.jpg", max_pixels=100) is None
