"""Whether the kernels are right: every operator, type and awkward size against float64, twice the same bits.

And where it is easy to go wrong unseen: tensors that 32 bits cannot count, another stream than torch's first,
a graph, memory that is not the kernel's.
"""

import contextlib
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from cases import OPERATORS, Case, Size, awkward, case
from devices import kernels, synchronize
from routes import plain, results
from subjects import ROOT, images, make, products
from torch import Tensor

from stages import Figures, Settings, in_time, name_of

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""Of 1 + the largest value; as in tests/test_cuda.py."""
TOOLS = ("memcheck", "racecheck", "synccheck")
LAST = 2
"""Images that are looked at."""
DELAY = 10**8
"""Cycles, 50 ms and more, that a stream waits: who does not wait for it reads what is not there yet."""


def correctness(settings: Settings, until: float) -> Iterator[Figures]:
    """By operator and type the largest error, and every case that is wrong."""
    torch.backends.cudnn.deterministic = True  # the convolutions are torch's
    for dtype, operator in in_time(itertools.product(settings.dtypes, OPERATORS), until):
        checks = [checked(one, settings.device) for one in awkward(operator, dtype, settings.awkward)]
        yield {
            "operators": [
                {
                    "operator": operator,
                    "type": name_of(dtype),
                    "cases": len(checks),
                    "largest_error": max(error for error, _ in checks),
                    "wrong": [wrong for _, wrong in checks if wrong],
                }
            ]
        }


def checked(one: Case, device: str) -> tuple[float, str]:
    """The largest error of a case, and what is wrong with it, or nothing."""
    here, wide = one.to(device), one.to("cpu", torch.float64)
    with kernels(device), products("fp32"):
        first, second = (results(here.function, *here.args, **here.options) for _ in range(2))
        synchronize(device)
    with plain():
        wanted = results(wide.function, *wide.args, **wide.options)
    error = max(distance(a, b) for a, b in zip(first, wanted, strict=True))
    if not error <= TOLERANCE[one.dtype]:  # what is not a number is wrong too
        return error, f"{one}: off by {error:.3g}"
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        return error, f"{one}: not the same bits twice"
    return error, ""


def distance(got: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of 1 + the largest value."""
    got, wanted = got.detach().cpu().double(), wanted.detach()
    return float((got - wanted).abs().max() / (1 + wanted.abs().max())) if got.numel() else 0.0


def large(settings: Settings, until: float) -> Iterator[Figures]:
    """More elements than 32 bits count: the last images give what they give alone."""
    layer, dtype = settings.layers[0], settings.dtypes[min(1, len(settings.dtypes) - 1)]
    for operator in in_time(OPERATORS, until):
        try:
            same = the_last_are_the_same(operator, layer, dtype, settings)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            same = f"left out: {str(error).partition('. GPU')[0]}"
        yield {operator: same}


def the_last_are_the_same(operator: str, layer: Size, dtype: torch.dtype, settings: Settings) -> bool:
    """Whether the last images of a huge batch are right; backward too, where that takes little memory."""
    alone = case(operator, layer._replace(images=1), dtype, batch=False)
    count = settings.many // max(x.numel() for x in alone.args if isinstance(x, Tensor)) + LAST + 1
    one = case(operator, layer._replace(images=count), dtype, batch=False, device=settings.device)
    few = tuple(x[-LAST:] if isinstance(x, Tensor) and len(x) == count else x for x in one.args)
    with torch.no_grad(), kernels(settings.device):
        pairs = [tuple(first(one.function(*args, **one.options)) for args in (one.args, few))]
        if operator == "aggregation":
            backward = torch.ops.san.aggregation_backward
            pairs += zip(*(backward(args[0], *args) for args in (one.args, few)), strict=True)
        return all(torch.equal(whole[-LAST:], last) for whole, last in pairs)


def first(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The result of an operator without its statistics."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def streams(settings: Settings, until: float) -> Iterator[Figures]:
    """On another stream, behind work that takes long: results are those of the usual one."""
    layer, dtype = settings.layers[-1]._replace(images=2), settings.dtypes[0]
    for operator in in_time(OPERATORS, until):
        one = case(operator, layer, dtype, device=settings.device)
        late = [torch.full_like(x, float("nan")) if isinstance(x, Tensor) else x for x in one.args]
        with kernels(settings.device), torch.no_grad():
            wanted = first(one.function(*one.args, **one.options))
            synchronize(settings.device)
            with elsewhere(settings.device):
                for target, source in zip(late, one.args, strict=True):
                    if isinstance(source, Tensor):
                        target.copy_(source)
                got = first(one.function(*late, **one.options))
            synchronize(settings.device)
        yield {operator: torch.equal(got, wanted)}


@contextlib.contextmanager
def elsewhere(device: str) -> Iterator[None]:
    """A stream of its own, that starts with a wait."""
    if device != "cuda":
        yield
        return
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(DELAY)
        yield


def graphs(settings: Settings, until: float) -> Iterator[Figures]:
    """A captured forward pass of each network gives the bits of an eager one, and for other images too."""
    for name in in_time(("san10-patchwise", "san10-pairwise"), until):
        net = make(name, settings.device)[0].eval()
        some, others = (images(name, settings.batches[0], settings.size, settings.device) for _ in range(2))
        with torch.inference_mode():
            wanted = net(others)
            replay = captured(net, some) if settings.device == "cuda" else net
            yield {name: torch.equal(replay(others), wanted)}


def captured(net: torch.nn.Module, x: Tensor) -> "Replay":
    """A graph of net(x); kernels are compiled before it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        net(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = net(x)
    return Replay(graph, x, out)


class Replay:
    """A graph and the memory that it reads and writes."""

    def __init__(self, graph: torch.cuda.CUDAGraph, x: Tensor, out: Tensor) -> None:
        self.graph, self.x, self.out = graph, x, out

    def __call__(self, x: Tensor) -> Tensor:
        """The output for these images."""
        self.x.copy_(x)
        self.graph.replay()
        return self.out


def sanitizer(settings: Settings, until: float) -> Iterator[Figures]:
    """The correctness stage under NVIDIA's own checks of memory and races, where they are installed."""
    program = shutil.which("compute-sanitizer")
    if program is None or settings.device != "cuda":
        yield {"left_out": "no compute-sanitizer here"}
        return
    for tool in in_time(TOOLS, until):
        with tempfile.TemporaryDirectory(prefix="san-sanitizer-") as folder:
            command = [
                program, "--tool", tool, "--error-exitcode", "99", "--target-processes", "all",
                sys.executable, str(ROOT / "benchmarks/gpu.py"), "--quick", "--stages", "correctness",
                "--out", str(Path(folder) / "result.json"),
            ]  # fmt: skip
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=max(1.0, until - time.time()),
                )
            except subprocess.TimeoutExpired:
                yield {tool: "out of time"}
                continue
        told = [line for line in done.stdout.splitlines() if line.startswith("=========")]
        yield {tool: "ok" if done.returncode == 0 else told[:20] or f"exit code {done.returncode}"}
