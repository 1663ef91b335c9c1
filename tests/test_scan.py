"""Every image is read once, in processes or here, with one result; and no file can stop it."""

import functools
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import faulty
from folders import class_tree, fill, picture
from PIL import Image

import sancli
from sancli import console
from sancli.data.preparation import scan
from sancli.data.preparation.bounds import Bounds
from sancli.data.preparation.inspection import scan_file
from sancli.data.preparation.scan import hash_file, hash_source, scan_files
from sancli.data.preparation.workers import Crew

MAX_PIXELS = 10**6


def many(root, count=100):
    """Good and bad files in turn."""
    tree = {f"{i:03}.png": picture(i) if i % 7 else picture(i)[:40] for i in range(count)}
    fill(root, tree)
    return [root / name for name in tree]


def test_a_scan_tells_content_size_and_rotation(tmp_path):
    path, exif = tmp_path / "x.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (9, 4)).save(path, exif=exif)
    found = scan_file(path, MAX_PIXELS)
    assert (found.width, found.height, found.mode, found.format, found.turned) == (4, 9, "L", "JPEG", True)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == hash_file(path)
    assert found.reason is None


def test_processes_and_this_one_find_the_same_in_the_same_order(tmp_path):
    paths = many(tmp_path)
    in_processes = scan_files(paths, max_pixels=MAX_PIXELS, workers=2)
    assert in_processes == [scan_file(path, MAX_PIXELS) for path in paths]
    assert sum(found.reason is not None for found in in_processes) == 15
    assert [found.sha256 for found in in_processes] == scan.hash_files(paths)


def crew(paths, size=2, **limits):
    """{name: reason} of the files, by workers with these bounds."""
    work = functools.partial(faulty, max_pixels=MAX_PIXELS)
    found = dict(Crew(work, paths, Bounds(**limits), size).results())
    return {path.stem: found[index].reason for index, path in enumerate(paths)}


def test_faults_of_decoders_cost_the_files_that_show_them(tmp_path):
    faults = {
        "crash": "the decoder crashed on it",
        "hang": "takes too long to decode (over 1 s)",
        "memory": "not enough memory to decode it",
        "once": None,  # it was well at the second time
    }
    paths = many(tmp_path, 60)
    for number, name in enumerate(faults):
        paths.insert(10 * number, fill(tmp_path, {f"{name}.png": 900 + number}) / f"{name}.png")
    reasons = crew(paths, memory_bytes=2**28, seconds=1, seconds_per_mb=0)  # 256 MiB can take 0.3 s to fill
    assert {name: reasons.pop(name) for name in faults} == faults
    assert reasons == {path.stem: scan_file(path, MAX_PIXELS).reason for path in many(tmp_path, 60)}


def test_a_file_that_sleeps_is_bound_by_the_clock(tmp_path):
    began = time.monotonic()
    path = fill(tmp_path, {"sleep.png": 1}) / "sleep.png"
    reasons = crew([path], memory_bytes=2**30, seconds=0.05, seconds_per_mb=0)
    assert reasons == {"sleep": "takes too long to decode (over 0 s)"}
    assert time.monotonic() - began < 20


def test_a_bug_in_a_worker_is_told(tmp_path):
    with pytest.raises(KeyError, match="a bug"):
        crew([tmp_path / "bug.png"], memory_bytes=2**30)


def test_a_picture_that_needs_too_much_memory_is_named(tmp_path):
    Image.new("L", (3000, 3000)).save(tmp_path / "x.png")
    work = functools.partial(scan_file, max_pixels=10**9)
    found = dict(Crew(work, [tmp_path / "x.png"], Bounds(memory_bytes=2**24), 1).results())
    assert found[0].reason == "not enough memory to decode it"


def test_where_no_worker_starts_images_are_scanned_without(tmp_path, monkeypatch):
    paths = many(tmp_path)
    monkeypatch.setattr("sancli.data.preparation.workers.serve", os._exit)
    found = scan_files(paths, max_pixels=MAX_PIXELS, workers=2)
    assert found == [scan_file(path, MAX_PIXELS) for path in paths]


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "parent_that_dies.py"
    script.write_text(
        "import os\n"
        "from pathlib import Path\n"
        "from sancli.data.preparation.bounds import Bounds\n"
        "from sancli.data.preparation.workers import Crew\n"
        "def pid(path): return os.getpid()\n"
        "if __name__ == '__main__':\n"
        "    crew = Crew(pid, [Path()] * 64, Bounds(2**30), 2)\n"
        "    print(*{worker for _, (_, worker) in zip(range(60), crew.results())}, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(sancli.__file__).parent.parent)}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, check=False)
    workers = [*map(int, done.stdout.split())]
    assert workers
    deadline = time.monotonic() + 10
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().split(")")[-1].split()[0] != "Z"


def test_the_hash_of_a_source_follows_names_and_contents_and_no_order():
    files = [("a/1.png", "aa"), ("b/1.png", "bb")]
    assert hash_source(files) == hash_source(files[::-1])
    others = [
        [("a/1.png", "bb"), ("b/1.png", "aa")],
        [("a/1.png", "aa")],
        [("a/2.png", "aa"), ("b/1.png", "bb")],
    ]
    assert len({hash_source(files), *map(hash_source, others)}) == 4
    assert hash_source([("\udcff.png", "-")])


@pytest.mark.slow
def test_ten_thousand_images_and_one_bad_file_are_scanned(tmp_path):
    noise = Image.effect_noise((160, 160), 60).convert("RGB")
    for i in range(10_000):
        noise.putpixel((i % 160, i // 160), (i % 256, 0, 0))
        noise.save(tmp_path / f"{i}.jpg")
    bad = tmp_path / "777.jpg"
    bad.write_bytes(bad.read_bytes()[:3000])
    paths = sorted(tmp_path.iterdir())
    began = time.monotonic()
    found = scan_files(paths, max_pixels=MAX_PIXELS)
    console.people.print(f"10,000 images in {time.monotonic() - began:.1f} s")
    assert [path for path, one in zip(paths, found, strict=True) if one.reason] == [bad]


def test_progress_is_said_in_a_log(tmp_path, san, monkeypatch):
    monkeypatch.chdir(fill(tmp_path, class_tree("cat", "dog", count=10, prefix="pets/")))
    assert "Checking images 20/20" in san("prepare", "pets").stderr
