"""The CPU kernels are built once and called; if that goes wrong, plain PyTorch runs and one line says why."""

import multiprocessing
import re
import subprocess
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from sancli.errors import UsageError
from sancli.ops.cpu import build, library

SOURCE = """
#include <cstdint>
#include "by.h"
extern "C" int64_t san_shift(char* scratch, int64_t threads, const SAN_REAL* in, const char* none,
                             int64_t count, double by, int64_t sign, SAN_REAL* out) {
    if (!scratch) return %s;
    const SAN_REAL step = BY * SAN_REAL(by) * (sign ? 1 : -1) + (none ? 100 : 0);
    for (int64_t i = 0; i < count; ++i) out[i] = in[i] + step;
    return 0;
}
"""
needs_compiler = pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler")


@pytest.fixture
def fresh(monkeypatch):
    """As in a new process to which nobody said what to use."""
    for name in ("SAN_OPS", "SAN_CPU"):
        monkeypatch.delenv(name, raising=False)
    forget()
    yield
    forget()


@pytest.fixture
def sources(fresh, tmp_path, monkeypatch):
    """Sources that compile in no time, and an empty cache."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "by.h").write_text("#define BY 1\n")
    (folder / "shift.cpp").write_text(SOURCE % "0")
    (folder / "other.cpp").write_text('extern "C" int san_other() { return 7; }\n')
    monkeypatch.setattr(build, "sources", lambda: folder)
    monkeypatch.setenv("SAN_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def said(monkeypatch):
    """The lines that were announced."""
    lines = []
    monkeypatch.setattr(build, "announce", lines.append)
    return lines


def forget():
    for cached in (library.instruction_set, library._load, library._say_once):
        cached.cache_clear()


def shifted(values, by, sign=True):
    out = torch.empty_like(values)
    library.kernels(values).call("san_shift", values, None, values.numel(), by, sign, out)
    return out


def compiler_script(folder, text):
    """A compiler of our own making, as $CXX would name it."""
    script = folder / "compiler"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    return str(script)


def only_library(tmp_path):
    (path,) = (tmp_path / "cache" / "kernels").glob("*.so")
    return path


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kernel_is_built_announced_and_called(sources, said, tmp_path, dtype):
    values = torch.arange(5, dtype=dtype)
    assert torch.equal(shifted(values, 2.5), values + 2.5)
    assert torch.equal(shifted(values, 2.5, sign=False), values - 2.5)
    real = {torch.float32: "float", torch.float64: "double"}[dtype]
    assert re.fullmatch(rf"Building the CPU kernels \(.+, {real}\) with .+, once; about \d+ s\.", said[0])
    assert len(said) == 1
    assert only_library(tmp_path).name.startswith(f"san-{library.instruction_set()}-{real}-")


@needs_compiler
def test_a_kernel_gets_the_scratch_memory_that_it_asks_for(sources, said):
    (sources / "shift.cpp").write_text(SOURCE.replace("BY *", "(scratch[(1 << 20) - 1] = 3) *") % "1 << 20")
    assert torch.equal(shifted(torch.zeros(2), 1.0), torch.tensor([3.0, 3.0]))


@needs_compiler
def test_the_next_process_takes_it_from_the_cache_and_says_nothing(sources, said, tmp_path, monkeypatch):
    assert library.state().kernels
    before = only_library(tmp_path).stat().st_mtime_ns
    forget()
    monkeypatch.setattr(subprocess, "Popen", None)  # nor does it run anything
    assert library.state().kernels
    assert only_library(tmp_path).stat().st_mtime_ns == before
    assert len(said) == 1


@needs_compiler
def test_an_edited_header_builds_anew(sources, said):
    assert shifted(torch.zeros(1), 1.0) == 1
    (sources / "by.h").write_text("#define BY 2\n")
    forget()
    assert shifted(torch.zeros(1), 1.0) == 2
    assert len(said) == 2


@needs_compiler
@pytest.mark.parametrize("damage", ["cut", "changed", "no checksum"])
def test_a_damaged_library_is_built_anew(sources, said, tmp_path, damage):
    assert library.state().kernels
    path = only_library(tmp_path)
    whole = path.read_bytes()
    path.unlink()  # this process has the old file mapped
    path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else whole)
    if damage == "changed":
        path.write_bytes(whole[:-1] + b"?")
    if damage == "no checksum":
        path.with_suffix(".sha256").unlink()
    forget()
    assert shifted(torch.zeros(1), 1.0) == 1
    assert len(said) == 2
    assert len(path.read_bytes()) == len(whole)


def test_without_a_compiler_one_line_says_so_and_plain_pytorch_runs(sources, said, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert library.kernels(torch.zeros(1)) is None
    assert library.kernels(torch.zeros(1).double()) is None
    assert said == [
        "No compiled CPU kernels, plain PyTorch runs in their place, slower: "
        "no C++ compiler found, neither $CXX nor c++, g++, clang++."
    ]
    assert str(library.state()).startswith("plain PyTorch (no C++ compiler found")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 1", "the C++ compiler fails: exit code 1"),
        ("[ $1 = --version ] || { echo In a.cpp >&2; echo a.cpp:2: error: y >&2; exit 4; }",
         "the C++ compiler fails: a.cpp:2: error: y"),
        ("exit 0", "cannot be written"),  # it makes no file
    ],
)  # fmt: skip
def test_a_compiler_that_fails_is_said_once_and_not_tried_again(
    sources, said, tmp_path, monkeypatch, script, why
):
    monkeypatch.setenv("CXX", compiler_script(tmp_path, script))
    for _ in range(2):
        assert library.kernels(torch.zeros(1)) is None
    assert why in said[-1]
    assert sum("plain PyTorch runs" in line for line in said) == 1
    assert not list((tmp_path / "cache" / "kernels").glob("san-*"))


@needs_compiler
def test_a_source_that_does_not_compile_is_said_with_its_first_error(sources, said):
    (sources / "other.cpp").write_text("int f() { return nothing; }\n")
    assert library.kernels(torch.zeros(1)) is None
    assert re.search(r"other\.cpp:1.*'?nothing'?", said[-1])
    assert "\n" not in said[-1]


@needs_compiler
def test_a_library_that_cannot_be_loaded_falls_back(sources, said):
    (sources / "other.cpp").write_text("extern int elsewhere;\nint* there = &elsewhere;\n")
    assert library.kernels(torch.zeros(1)) is None
    assert "elsewhere" in said[-1]


@needs_compiler
def test_a_cache_that_cannot_be_written_is_done_without(sources, said, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert shifted(torch.zeros(1), 1.0) == 1
    assert re.search(r"for this run alone, because .*cache.* cannot be written; about", said[0])
    assert not library.state().path.exists()  # it is loaded, and leaves nothing behind


@needs_compiler
def test_a_cache_that_is_never_free_is_done_without(sources, said, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "PATIENCE", 0.1)
    (tmp_path / "cache" / "kernels").mkdir(parents=True)
    with FileLock(tmp_path / "cache" / "kernels" / ".lock"):
        assert shifted(torch.zeros(1), 1.0) == 1
    assert "kernels is in use; about" in said[0]


@needs_compiler
def test_two_processes_at_once_build_once(sources, said, tmp_path, monkeypatch):
    log = tmp_path / "log"
    slow = f'echo "$@" >> {log}; sleep 0.5; exec {build.find_compiler().path} "$@"'
    monkeypatch.setenv("CXX", compiler_script(tmp_path, slow))

    def one(answers):
        answers.put((str(library.state()), len(said)))

    fork = multiprocessing.get_context(
        "fork"
    )  # each with this process's sources, and what it says of its own
    answers = fork.SimpleQueue()
    both = [fork.Process(target=one, args=(answers,)) for _ in range(2)]
    for process in both:
        process.start()
    states, lines = zip(*(answers.get() for _ in both), strict=True)
    for process in both:
        process.join()
    assert set(states) == {f"C++ kernels for {build.LABELS[library.instruction_set()]}"}
    assert sorted(lines) == [0, 1]
    assert sum(" -c " in line for line in log.read_text().splitlines()) == 2  # one for each source


@needs_compiler
def test_kernels_and_torch_share_one_openmp(sources, said):
    if not Path("/proc/self/maps").is_file():
        pytest.skip("the system does not say what is loaded")
    (sources / "other.cpp").write_text(
        '#include <omp.h>\nextern "C" int san_o() { return omp_get_max_threads(); }\n'
    )
    assert library.state().kernels
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "omp" in line}
    assert len([path for path in mapped if "gomp" in path]) <= 1


def test_the_reference_is_forced_by_name(sources, said, monkeypatch):
    monkeypatch.setenv("SAN_OPS", "reference")
    assert library.kernels(torch.zeros(1)) is None
    assert str(library.state()) == "plain PyTorch (SAN_OPS=reference)"
    assert said == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SAN_OPS", "referense", "did you mean reference?"),
        ("SAN_CPU", "avx51", "did you mean avx512?"),
    ],
)
def test_a_value_that_is_not_known_is_an_error(sources, monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=re.escape(words)):
        library.kernels(torch.zeros(1))


def test_instructions_can_be_forced_lower_but_not_higher(sources, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert library.instruction_set() == "avx2"
    monkeypatch.setenv("SAN_CPU", "plain")
    library.instruction_set.cache_clear()
    assert library.instruction_set() == "plain"
    monkeypatch.setenv("SAN_CPU", "avx512")
    library.instruction_set.cache_clear()
    with pytest.raises(UsageError, match="SAN_CPU=avx512 does not run here"):
        library.instruction_set()


@needs_compiler
def test_what_the_kernels_cannot_take_is_left_to_plain_pytorch(sources, said):
    x = torch.zeros(2)
    taken = [(x,), (x, None), (x.bfloat16(), x), (x.double(), None, x.double())]
    left = [(x.half(),), (x.int(),), (x, x.double()), (x.to("meta"),), (x[:0],)]
    assert all(library.kernels(*tensors) for tensors in taken)
    assert not any(library.kernels(*tensors) for tensors in left)


@needs_compiler
def test_the_real_kernels_can_be_had(fresh):
    state = library.state()
    assert state.kernels, state.why
    assert state.path.is_file()
