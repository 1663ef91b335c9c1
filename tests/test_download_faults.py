"""Files fetched from a real server on this machine that cuts, lies, stalls and forgets."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from filehost import file_host

from sancli.errors import StorageError, UsageError, WeightsError
from sancli.tasks.downloading import arrival
from sancli.tasks.downloading.arrival import bring, only_one
from sancli.weights.fetching import retries, transfer
from sancli.weights.fetching.partial import Partial
from sancli.weights.fetching.transfer import Remote
from sancli.weights.records import sha256_of

CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture(autouse=True)
def no_proxy_and_short_pauses(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(retries, "PAUSES", (0, 0, 0, 0))


@pytest.fixture
def host():
    with file_host() as host:
        host.files["/w.bin"] = CONTENT
        yield host


@pytest.fixture
def partial(tmp_path):
    return Partial.of(tmp_path / "w.safetensors")


def remote(host, path="/w.bin", **known):
    return Remote(url=host.url(path), label="w.bin", **known)


def known_sha256(tmp_path):
    (tmp_path / "good").write_bytes(CONTENT)
    return sha256_of(tmp_path / "good")


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["cut"],
        [
            "cut",
            "cut",
            "cut",
            "cut",
            "cut",
            "cut",
            "cut",
        ],  # each brings more: more of them than there are tries
        ["503", "429", "500"],
        ["hang"],
        ["redirect"],
        ["slow"],
        ["503", "cut", "redirect", "cut"],
    ],
    ids=lambda faults: "-".join(faults) or "none",
)
def test_what_passes_by_itself_ends_in_the_right_file(host, partial, faults):
    host.faults["/w.bin"] = list(faults)
    bring(remote(host), partial)
    assert partial.path.read_bytes() == CONTENT
    assert not host.faults["/w.bin"]


def test_a_transfer_that_broke_off_goes_on_and_no_byte_comes_twice(host, partial):
    host.faults["/w.bin"] = ["cut"]
    bring(remote(host), partial)
    (_, _, whole), (_, again, rest) = host.asked
    assert (whole, rest) == (200, 206)
    assert len(CONTENT) // 2 - transfer.CHUNK <= int(again.strip("bytes=-")) <= len(CONTENT) // 2


@pytest.mark.parametrize("without", ["no-range", "no-etag", "no-length"])
def test_a_server_that_cannot_go_on_starts_again(host, partial, without):
    host.always.add(without)
    host.faults["/w.bin"] = ["cut"]
    bring(remote(host, size=len(CONTENT)), partial)
    assert partial.path.read_bytes() == CONTENT


def test_a_server_that_always_breaks_off_at_the_same_place_is_given_up(host, partial):
    host.always.add("no-range")
    host.faults["/w.bin"] = ["cut"] * 20
    with pytest.raises(WeightsError, match="broke off"):
        bring(remote(host), partial)
    assert len(host.asked) == 5  # one that brought something, and four in vain


def test_the_next_command_goes_on_where_this_one_was_given_up(host, partial):
    host.faults["/w.bin"] = ["cut", "503", "503", "503", "503", "503"]
    with pytest.raises(WeightsError, match=r"1.\d MiB are kept in .*, and the same command goes on"):
        bring(remote(host), partial)
    bring(remote(host), partial)
    assert host.asked[-1][2] == 206
    assert partial.path.read_bytes() == CONTENT


def test_a_file_that_has_changed_in_between_is_never_spliced(host, partial):
    host.faults["/w.bin"] = ["cut", "503", "503", "503", "503", "503"]
    with pytest.raises(WeightsError):
        bring(remote(host), partial)
    host.files["/w.bin"] = CONTENT[::-1]
    bring(remote(host), partial)
    assert partial.path.read_bytes() == CONTENT[::-1]


def test_the_bytes_of_another_address_are_never_gone_on_with(host, partial):
    host.faults["/w.bin"] = ["cut", "404"]
    with pytest.raises(WeightsError):
        bring(remote(host), partial)
    host.files["/other.bin"] = CONTENT[::-1]
    bring(remote(host, "/other.bin"), partial)
    assert partial.path.read_bytes() == CONTENT[::-1]


def test_all_of_it_is_here_and_the_server_has_nothing_to_add(host, partial):
    bring(remote(host), partial)
    bring(remote(host), partial)
    assert host.asked[-1] == ("/w.bin", f"bytes={len(CONTENT)}-", 416)
    assert partial.path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        (["404"], "HTTP 404: there is no such file"),
        (["403"], "HTTP 403: access is refused.*quota for this file is used up"),
        (["401"], "HTTP 401: it is private"),
        (["503"] * 9, "HTTP 503"),
        (["quota"], "quota for this file is used up"),
        (["page"], 'a web page with the title "Sign in to the hotel\'s network"'),
        (["hang"] * 9, "the connection broke off"),
        (["redirect"] * 40, "redirects"),
    ],
)
def test_what_is_no_file_is_told_apart_in_words(host, partial, faults, says):
    host.faults["/w.bin"] = list(faults)
    with pytest.raises(WeightsError, match=says) as raised:
        bring(remote(host), partial)
    assert len(str(raised.value).splitlines()) <= 6
    assert not partial.count


def test_wrong_bytes_of_the_right_size_are_fetched_once_more(host, partial, tmp_path):
    host.faults["/w.bin"] = ["wrong"]
    bring(remote(host, sha256=known_sha256(tmp_path)), partial)
    assert partial.path.read_bytes() == CONTENT


def test_wrong_bytes_twice_are_refused_and_not_kept(host, partial, tmp_path):
    host.faults["/w.bin"] = ["wrong", "wrong"]
    with pytest.raises(WeightsError, match="came with wrong bytes, twice"):
        bring(remote(host, sha256=known_sha256(tmp_path)), partial)
    assert not partial.path.exists()


def test_a_file_that_was_truncated_at_its_source_is_refused(host, partial):
    host.faults["/w.bin"] = ["truncated", "truncated"]
    with pytest.raises(WeightsError, match="the server announces 1,500,000 bytes; it should be 3,000,000"):
        bring(remote(host, size=len(CONTENT)), partial)


def test_a_server_that_says_nothing_is_given_up_in_bounded_time(host, partial, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", (0.1, 0.1))
    monkeypatch.setattr(retries, "PAUSES", (0,))
    host.faults["/w.bin"] = ["hang", "hang"]
    with pytest.raises(WeightsError, match="did not answer in time"):
        bring(remote(host), partial)


def test_a_pause_that_is_asked_for_is_kept_up_to_a_bound():
    def ask(seconds):
        raise retries.TransientError(WeightsError("no.", why="busy.", fix="wait."), pause=seconds)

    began = time.monotonic()
    with pytest.raises(WeightsError):
        retries.retrying(lambda: ask(3600))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9/w.bin", "nothing answers at its address: the connection is refused"),
        ("http://nowhere.invalid/w.bin", "its host was not found"),
        ("http://", "w.bin did not come"),
        ("https://127.0.0.1:PORT/w.bin", "certificate|TLS"),
    ],
)
def test_no_connection_is_told_apart_in_words_at_the_first_try(host, partial, monkeypatch, url, says):
    monkeypatch.setattr(retries.time, "sleep", pytest.fail)
    with pytest.raises(WeightsError, match=says):
        bring(Remote(url=url.replace("PORT", str(host.port)), label="w.bin"), partial)


def test_a_proxy_that_is_not_there_is_named(host, partial, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"the proxy does not let it through[^$]*HTTPS_PROXY"):
        bring(Remote(url="http://example.invalid/w.bin", label="w.bin"), partial)


def test_a_token_goes_to_no_other_host(host, partial):
    host.faults["/w.bin"] = ["redirect"]
    bring(remote(host, headers={"authorization": "Bearer hf_secret"}), partial)
    assert host.tokens == [("/w.bin", "Bearer hf_secret"), ("/w.bin", None)]


def test_too_little_space_is_said_before_the_first_byte(host, partial, monkeypatch):
    monkeypatch.setattr(transfer, "free_bytes", lambda _: 1000)
    with pytest.raises(StorageError, match="3,000,000 bytes are needed, 1,000 are free"):
        bring(remote(host), partial)
    assert not partial.count


def test_a_disk_that_fills_up_ends_in_an_error_of_storage(host, partial):
    """A file may not grow past this size, which fails as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(StorageError, match="no space to write"):
            bring(remote(host), partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    bring(remote(host), partial)
    assert host.asked[-1][2] == 206  # what had room was kept
    assert partial.path.read_bytes() == CONTENT


def test_a_place_that_is_no_folder_is_an_error_of_storage(host, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        bring(remote(host), Partial.of(tmp_path / "file" / "w.safetensors"))


@pytest.fixture
def ctrl_c():
    """Heard, also where the tests run in the background of a shell, which has it ignored there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_keeps_what_has_come_and_says_so(host, partial):
    host.faults["/w.bin"], host.slow_s = ["slow"], 0.2
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt) as raised, partial.noted():
        bring(remote(host), partial)
    assert "are kept in" in raised.value.__notes__[0]
    assert 0 < partial.count < len(CONTENT)
    bring(remote(host), partial)
    assert host.asked[-1][2] == 206
    assert partial.path.read_bytes() == CONTENT


def test_two_at_once_wait_for_each_other_and_the_wait_is_bounded(tmp_path, monkeypatch, capsys):
    target, inside = tmp_path / "a.safetensors", []
    monkeypatch.setattr(arrival, "LOCK_WAIT", 10)

    def second():
        with only_one(target):
            inside.append("second")

    with only_one(target):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        inside.append("first")
    thread.join()
    assert inside == ["first", "second"]
    assert "is being fetched already" in capsys.readouterr().err
    monkeypatch.setattr(arrival, "LOCK_WAIT", 0.1)
    with (
        only_one(target),
        pytest.raises(UsageError, match=f"process {os.getpid()} is writing"),
        only_one(target),
    ):
        pass


def test_the_lock_of_a_process_that_was_killed_holds_nobody_up(tmp_path):
    target = tmp_path / "a.safetensors"
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from sancli.files import locked\n"
        "with locked(Path(sys.argv[1]), name='.a'): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    assert (tmp_path / ".a.lock.holder").exists()
    with only_one(target):
        pass


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("[Errno -3] Temporary failure in name resolution", "its host was not found"),
        ("[Errno -2] Name or service not known", "its host was not found"),
        ("[Errno -5] No address associated with hostname", "its host was not found"),
        ("[Errno 8] nodename nor servname provided, or not known", "its host was not found"),
        ("[Errno 11001] getaddrinfo failed", "its host was not found"),
        ("[Errno 111] Connection refused", "nothing answers"),
        ("[WinError 10061] ... the target machine actively refused it", "nothing answers"),
        ("url: /ann/refused/resolve/main/san15.pth (Caused by: [Errno 104] Connection reset by peer)", None),
    ],
)
def test_the_words_of_every_system_for_no_way_to_a_host_are_known(words, says):
    why = retries.no_way(words)
    assert why is None if says is None else says in why
