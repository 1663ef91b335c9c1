import csv
import multiprocessing
import os
import resource
import signal

import pytest

from sancli.errors import StorageError, UsageError
from sancli.files import locked, replacing, storage_errors, write_csv, write_json, write_text


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_full_disk_leaves_the_old_file_and_says_what_is_free(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"no space to write[\s\S]*bytes are free") as raised:
            write_text(path, "x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert raised.value.exit_code == 6
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_json(tmp_path / "file" / "inside.json", {})
    with pytest.raises(StorageError, match="gone"), storage_errors(tmp_path):
        os.listdir(tmp_path / "gone")


def test_of_a_copy_the_place_is_named_and_not_the_source(tmp_path):
    with pytest.raises(StorageError, match="no space to write target"), storage_errors(tmp_path):
        raise OSError(28, "No space left on device", "source", None, "target")


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_a_spreadsheet_sees_no_formula(tmp_path, value):
    write_csv(tmp_path / "a.csv", ["name", "number"], [[value, -1.5]])
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["name", "number"], [f"'{value}", "-1.5"]]


def test_names_that_are_not_utf8_keep_their_bytes(tmp_path):
    write_csv(tmp_path / "a.csv", ["name"], [["\udcff.jpg"]])
    assert (tmp_path / "a.csv").read_bytes() == b"name\n\xff.jpg\n"


def _hold(folder, ready, done):
    with locked(folder):
        ready.set()
        done.wait(30)


def test_a_folder_in_use_names_the_process_that_holds_it(tmp_path):
    fork = multiprocessing.get_context("fork")
    ready, done = fork.Event(), fork.Event()
    other = fork.Process(target=_hold, args=(tmp_path, ready, done))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(UsageError, match=f"process {other.pid} is writing there"), locked(tmp_path):
            pass
    finally:
        done.set()
        other.join()
    with locked(tmp_path):  # and free again
        pass
