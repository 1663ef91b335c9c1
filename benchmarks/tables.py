"""Figures as lines of text, at most 100 characters long."""

from collections.abc import Iterator
from typing import Any

Figures = dict[str, Any]
TASKS = {"train": "train", "infer": "infer", "infer_batch1": "infer batch 1"}
SHARES = {"share_of_flops": "FLOPs %", "share_of_bandwidth": "bytes %"}


def lines(result: Figures) -> Iterator[str]:
    """All tables that there are figures for."""
    for table in (machine_lines, networks_table, memory_table, growth_tables):
        yield from table(result)


def machine_lines(result: Figures) -> Iterator[str]:
    """What 100 % is."""
    if peak := result.get("machine"):
        products = f"{peak['fp32_gflops']} GFLOP/s in fp32 and {peak['bf16_gflops']} in bf16"
        yield f"At its best this machine does {products}, and copies {peak['copy_gb_s']} GB/s:"
        yield "those are 100 % in training/inference."
        yield ""


def networks_table(result: Figures) -> Iterator[str]:
    """Times, each with its ratio and the quartiles of that; and shares of the machine."""
    timed = result.get("networks", {})
    tasks = [task for task in TASKS if any(task in of for of in timed.values())]
    shares = [share for share in SHARES if any(share in of.get("infer", {}) for of in timed.values())]
    heads = [f"{TASKS[task]:>18}" for task in tasks] + [f"{SHARES[share]:>9}" for share in shares]
    if timed:
        yield f"{'ms an image, ratio':26}" + "".join(heads)
    for name, of in timed.items():
        cells = [time_cell(of.get(task)) for task in tasks] + [share_cell(of, share) for share in shares]
        yield f"{name:26}" + "".join(cells)


def time_cell(figure: Figures | None) -> str:
    """Milliseconds and ratio, with half the distance of its quartiles."""
    if figure is None:
        return f"{'-':>18}"
    low, high = figure["ratio_quartiles"]
    shown = "" if high == low else f" +-{(high - low) / 2:.2f}"
    return f"{figure['ms']:8.1f} {figure['ratio']:.2f}{shown:7}".rjust(18)


def share_cell(of: Figures, share: str) -> str:
    """Percent in training and in inference."""
    shown = (
        f"{100 * of[kind][share]:.0f}" if share in of.get(kind, {}) else "-" for kind in ("train", "infer")
    )
    return "/".join(shown).rjust(9)


def memory_table(result: Figures) -> Iterator[str]:
    """MiB an image."""
    if "memory" not in result:
        return
    yield ""
    yield f"{'MiB an image':26}{'saved for backward':>20}{'peak growth of a step':>24}"
    for name, of in result["memory"].items():
        growth = f"{of['peak_growth_mib']:.1f}" if "peak_growth_mib" in of else "-"
        yield f"{name:26}{of['saved_mib']:20.1f}{growth:>24}"


def growth_tables(result: Figures) -> Iterator[str]:
    """Milliseconds an image by size, by batch and by threads; a line of ratios under each."""
    for stage, what in (("by_size", "px"), ("by_batch", "images"), ("by_threads", "threads")):
        for kind, of in result.get(stage, {}).items():
            points = list(next(iter(of.values())))
            yield ""
            yield f"{f'{kind}, ms an image; {what}':28}" + "".join(f"{point:>10}" for point in points)
            for name, figures in of.items():
                yield f"{name:28}" + "".join(f"{figures[point]['ms']:10.1f}" for point in points)
                if not name.startswith("resnet50"):
                    ratios = (f"({figures[point]['ratio']:.2f})" for point in points)
                    yield " " * 28 + "".join(ratio.rjust(10) for ratio in ratios)
