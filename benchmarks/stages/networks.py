"""The networks against ResNet-50, channels last, of the same precision: time, memory, where the time goes."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from devices import once, or_none, synchronize
from measure import Times, figures
from memory import MIB, saved_mib
from subjects import SANS, base_of, forget, images, ready, train_step

from stages import Figures, Settings, in_time

PRECISIONS = ("-bf16", "-tf32", "")
QUICK = ("san10-patchwise", "san15-patchwise", "san15-pairwise")
"""Those whose ratios count."""
SMALLEST_OF_AUTHORS = 128
"""Pixels: their padding asks for more than 3 of them in the last maps."""
AUTHORS = ("san10-patchwise", "san15-patchwise", "san10-pairwise", "san15-pairwise")
WARM = 3
SHOWN = 25
"""Kernels of a profile."""
FULL = 0.97
"""Of the memory: what a batch may take that is said to fit."""


def networks(settings: Settings, until: float) -> Iterator[Figures]:
    """Milliseconds an image and ratios to ResNet-50, by task: those that matter most first."""
    torch.backends.cudnn.benchmark = True  # the best of each convolution, for ResNet-50 above all
    for batch, precision in itertools.product(settings.batches, PRECISIONS):
        names = tuple(f"{name}{precision}" for name in ("resnet50", *SANS))
        for kind in ("train", "infer"):
            share = (until - time.time()) / 4  # a task never takes more than a part of what is left
            times = in_turns(names, kind, batch, settings, time.time() + share)
            yield {f"{kind}_batch{batch}": figures(times)}
        forget()


def in_turns(names: tuple[str, ...], kind: str, batch: int, settings: Settings, until: float) -> Times:
    """Rounds in which each network has its turn; one that needs too much memory is left out."""
    steps = {}
    for name in in_time(names, until):
        step = ready(name, kind, batch=batch, size=settings.size, device=settings.device)
        if or_none(repeated, step, WARM if settings.device == "cuda" else 0) is not None:
            steps[name] = step
    if base_of(names[0]) not in steps:
        return {}
    times: Times = {name: [] for name in steps}
    for number in range(settings.rounds):
        if number and time.time() >= until:
            break
        order = list(steps)[number % len(steps) :] + list(steps)[: number % len(steps)]
        for name in order:
            synchronize(settings.device)
            step = steps[name]
            took_ms = once(lambda step=step: repeated(step, settings.calls), settings.device)
            times[name].append(took_ms / settings.calls / batch)
    return times


def repeated(step: Callable[[], Any], calls: int) -> bool:
    """Some steps in a row."""
    for _ in range(calls):
        step()
    return True


def authors(settings: Settings, until: float) -> Iterator[Figures]:
    """Milliseconds an image of a training step: the authors' graph in fp32, ours in fp32 and bf16."""
    torch.backends.cudnn.benchmark = True
    batch = min(settings.batches)
    for name in in_time(AUTHORS, until):
        rivals = {"authors": f"{name}-naive", "fp32": name, "bf16": f"{name}-bf16"}
        found = {key: or_none(milliseconds_an_image, rival, batch, settings) for key, rival in rivals.items()}
        base = found["authors"]
        ratios = {key: round(base / own, 2) if base and own else None for key, own in found.items()}
        yield {name: {"ms": found, "times_as_fast": ratios}}
        forget()


def milliseconds_an_image(name: str, batch: int, settings: Settings) -> float:
    """Of a training step."""
    size = max(settings.size, SMALLEST_OF_AUTHORS)
    step = ready(name, "train", batch=batch, size=size, device=settings.device)
    repeated(step, WARM if settings.device == "cuda" else 0)
    return once(lambda: repeated(step, settings.calls), settings.device) / settings.calls / batch


def memory(settings: Settings, until: float) -> Iterator[Figures]:
    """MiB an image kept for backward, and by which a step grows; the largest batch of a training step."""
    for precision, name in in_time(itertools.product(("-bf16", ""), ("resnet50", *QUICK)), until):
        subject, batch = name + precision, min(settings.batches)
        found: Figures = {"saved_mib": saved_mib(subject, batch, settings.size, settings.device)}
        if settings.device == "cuda":
            found |= or_none(largest_batch, subject, batch, settings.size) or {}
        yield {subject: found}
        forget()


def largest_batch(name: str, batch: int, size: int) -> Figures:
    """Foretold from the growth of two steps, then tried."""
    smaller, larger = (peak_bytes(name, count, size) for count in (batch // 2, batch))
    per_image = (larger - smaller) / (batch - batch // 2)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    fitting = int((FULL * free - larger) / per_image) + batch
    while or_none(peak_bytes, name, fitting, size) is None:
        fitting = int(fitting * FULL)
    return {"peak_growth_mib": round(per_image / MIB, 2), "largest_batch": fitting}


def peak_bytes(name: str, batch: int, size: int) -> float:
    """By which a training step grows at its peak, images included."""
    train_step(name, images(name, 2, size, "cuda"))  # the optimizer's state is there from now on
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train_step(name, images(name, batch, size, "cuda"))
    return float(torch.cuda.max_memory_allocated() - before)


def profile(settings: Settings, until: float) -> Iterator[Figures]:
    """Where the time of a training step of SAN15 goes: the kernels that take most of it."""
    for name in in_time(("san15-patchwise-bf16", "san15-pairwise-bf16"), until):
        step = ready(name, "train", batch=min(settings.batches), size=settings.size, device=settings.device)
        repeated(step, WARM if settings.device == "cuda" else 0)
        took_ms = once(step, settings.device)
        with torch.profiler.profile() as profiler:
            step()
            synchronize(settings.device)
        spent = kernel_times(profiler, settings.device)
        busy = sum(spent.values())
        kernels = [
            {"kernel": key[:160], "ms": round(ms, 3), "share": round(ms / busy, 3)}
            for key, ms in spent.most_common(SHOWN)
        ]
        yield {name: {"step_ms": round(took_ms, 2), "kernels_ms": round(busy, 2), "kernels": kernels}}
        forget()


def kernel_times(profiler: torch.profiler.profile, device: str) -> Counter[str]:
    """Milliseconds by kernel; on a CPU by torch's operator."""
    spent: Counter[str] = Counter()
    if device != "cuda":
        for event in profiler.key_averages():
            spent[event.key] = event.self_cpu_time_total / 1e3
        return spent
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            spent[event.name] += event.time_range.elapsed_us() / 1e3
    return spent
