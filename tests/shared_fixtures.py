"""What several tests share: the command line as a user meets it, and settings that do not leak."""

import functools
import os
import sys
from dataclasses import dataclass

import pytest
import torch
import typer
from emulator import emulated, emulated_operators  # noqa: F401 -- fixtures
from PIL import Image

from sancli import cli, console
from sancli.data.preparation import scan
from sancli.ops.cpu import build, library

SETS = tuple(build.INSTRUCTION_SETS)


@dataclass
class Outcome:
    """What a command left behind on the screen."""

    code: int
    stdout: str
    stderr: str


def pytest_configure():
    """Processes that run tests side by side share the cores: threads that wait for one would spin on it."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        threads = max(1, (os.cpu_count() or 1) // processes)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of the commands that tests start
        torch.set_num_threads(threads)
        console.people.width = console.results.width = 300  # they start with COLUMNS=80


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """CUDA kernels that run on the CPU are compiled for it, longer than they run: that is for -m build."""
    for item in items:
        if "emulated" in item.fixturenames and not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.build)


@pytest.fixture(scope="session", autouse=True)
def built_kernels():
    """Built before the first test, so that none of them waits for it, or sees the line that says so."""
    library.state("float")
    library.state("double")


@pytest.fixture(
    params=["reference", "compiled", *(pytest.param(one, marks=pytest.mark.slow) for one in SETS)]
)
def implementation(request, monkeypatch):
    """Runs a test in plain PyTorch and in C++; with -m slow for each set of instructions that runs here."""
    if request.param == "reference":
        monkeypatch.setattr(library, "instruction_set", lambda: None)
        return
    best = library.instruction_set()
    if best is None or build.find_compiler() is None:
        pytest.skip(str(library.state()))
    assert library.state().kernels, library.state().why
    if request.param != "compiled":
        if SETS.index(request.param) < SETS.index(best):
            pytest.skip(f"this processor has {best} at best")
        monkeypatch.setattr(library, "instruction_set", lambda: request.param)


@pytest.fixture(autouse=True)
def fresh_console(monkeypatch):
    """Each test starts with the default settings; lines are not wrapped, as in a pipe."""
    vars(console.settings).update(vars(console.Settings()))
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture(autouse=True)
def few_images_are_read_here(monkeypatch):
    """Workers take half a second to start; test_scan.py starts them."""
    monkeypatch.setattr(scan, "IN_PROCESS", 64)


@functools.cache
def command_line():
    """Typer makes it of the commands' signatures at each call: more work than many a command has."""
    return typer.main.get_command(cli.app)


@pytest.fixture
def san(monkeypatch, capsys):
    """Runs `san ARGUMENTS...` through main(), where errors become lines and exit codes."""
    monkeypatch.setattr(cli, "app", command_line())

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["san", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
            sys.exit(0)
        return Outcome(ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def quick_figures(monkeypatch):
    """Their layout takes most of a small run's time: test_report.py draws them as they are."""

    def save(figure, file, **_):
        Image.new("RGB", (8, 8)).save(file, "PNG")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)
