"""Every image is read once, in processes or here, with one result; and no file can stop it."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from folders import class_tree, fill, picture
from PIL import Image

from sancli import console
from sancli.data.preparation import scan
from sancli.data.preparation.scan import hash_file, hash_source, scan_file, scan_files

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


def crash_on(path, max_pixels):
    """Stands for a decoder with a bug, in a worker."""
    if path.name == "crash.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return scan_file(path, max_pixels)


def crash_in_chunk(paths, max_pixels):
    return [crash_on(path, max_pixels) for path in paths]


def test_a_decoder_that_crashes_costs_one_file(tmp_path, monkeypatch):
    paths = many(tmp_path)
    crash = tmp_path / "crash.png"
    crash.write_bytes(picture(5000))
    monkeypatch.setattr(scan, "_scan_chunk", crash_in_chunk)
    monkeypatch.setattr(scan, "scan_file", crash_on)
    found = scan_files([*paths[:50], crash, *paths[50:]], max_pixels=MAX_PIXELS, workers=2)
    assert found[50].reason == "the decoder crashed on it"
    assert found[50].sha256 == hash_file(crash)
    monkeypatch.undo()
    assert found[:50] + found[51:] == [scan_file(path, MAX_PIXELS) for path in paths]


def test_where_no_worker_starts_images_are_scanned_without(tmp_path, monkeypatch):
    paths = many(tmp_path)
    monkeypatch.setattr(scan, "_pool", dying_pool)
    found = scan_files(paths, max_pixels=MAX_PIXELS, workers=2)
    assert found == [scan_file(path, MAX_PIXELS) for path in paths]


@contextmanager
def dying_pool(workers):
    """Its processes end before they have done anything, as in a script without a main guard."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=os._exit, initargs=(1,)) as pool:
        yield pool


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    """Their command line holds this folder's name through the path of the script."""
    script = tmp_path / "parent_that_dies.py"
    script.write_text(
        "import os, sys\n"
        "from sancli.data.preparation import scan\n"
        "if __name__ == '__main__':\n"
        "    with scan._pool(2) as pool:\n"
        "        print(*{pool.submit(os.getpid).result() for _ in range(20)}, flush=True)\n"
        "        os.kill(os.getpid(), 9)\n"
    )
    import sancli

    env = os.environ | {"PYTHONPATH": str(Path(sancli.__file__).parent.parent)}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, check=False)
    workers = list(map(int, done.stdout.split()))
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
