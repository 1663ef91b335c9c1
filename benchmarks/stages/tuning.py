"""Which tiles are fastest on this card: what kernels/tiles.json is filled with."""

import contextlib
import datetime
import itertools
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import nvrtc
import torch
from cases import Size, case
from devices import kernels, milliseconds, or_none

from sancli.files import write_text
from sancli.ops.cuda import aggregation, compiling, loader, sources, tiles, window
from sancli.ops.layout import laid_out
from sancli.ops.trunk import maps
from stages import Figures, Settings, in_time, name_of

PATH = sources.folder() / tiles.TABLE
ROWS, COLUMNS, PLANES, PIXELS, VECTORS = (4, 8, 16), (8, 16, 32), (2, 4, 8, 16), (2, 4, 8), (1, 2, 4)
THREADS = range(64, 513)
SHARED = 64 << 10
"""Of the smallest card: a tile of the table fits on all of them."""
REGISTERS = 65536
"""Of a multiprocessor."""
Tile = tuple[int, int, int, int, int]


def tuning(settings: Settings, until: float) -> Iterator[Figures]:
    """For each kernel, layer and type of the table: the fastest tile, its time, and the former tile's."""
    chosen = itertools.product(settings.dtypes[:2], settings.layers, launchers())
    for dtype, layer, kernel in in_time(chosen, until):
        key = f"{name_of(dtype)} {layer.kernel_size} {layer.groups}"
        if entry := or_none(fastest, kernel, layer, dtype, settings, until):
            yield {"tiles": {kernel: {key: entry}}}


def launchers() -> dict[str, Callable[..., None]]:
    """What runs each kernel of the table, given value, weight, their gradients' maps and K."""
    return {
        "aggregation_forward": lambda value, weight, out, k: aggregation.forward(value, weight, out, k),
        "aggregation_backward_weight": lambda value, weight, out, k: aggregation.backward_weight(
            out, value, weight, k
        ),
        "aggregation_backward_value": lambda value, weight, out, k: aggregation.backward_value(
            out, weight, value, k
        ),
    }


def fastest(kernel: str, layer: Size, dtype: torch.dtype, settings: Settings, until: float) -> Figures | None:
    """An entry of the table; None where no tile fits."""
    value, weight, k = case("aggregation", layer, dtype, device=settings.device).args
    given = value.detach(), laid_out(weight.detach().flatten(1, 2))[0], maps(value, *value.shape[1:]), k
    given[2].normal_()
    run = partial(launchers()[kernel], *given)
    now = tiles.tile(kernel, dtype, k, layer.groups)
    times: dict[Tile, float] = {}
    with kernels(settings.device):
        for tile in in_time([now, *candidates(kernel, layer, dtype, settings)], until):
            with trying(kernel, tile):
                times[tile] = milliseconds(run, settings.device)
    if not times:
        return None
    best = min(times, key=lambda tile: times[tile])
    card = torch.cuda.get_device_name() if settings.device == "cuda" else "emulator"
    return {
        "tile": list(best),
        "from": f"{card}, {datetime.date.today()}",
        "ms": round(times[best], 4),
        "ms_before": round(times[now], 4),
        "tried": len(times),
    }


def candidates(kernel: str, layer: Size, dtype: torch.dtype, settings: Settings) -> list[Tile]:
    """The tiles that the card can run without spilling registers; on the emulator the first of them."""
    every = itertools.product(ROWS, COLUMNS, PLANES, PIXELS, VECTORS)
    able = {tile: of for tile in every if (of := made(tile, layer, dtype))}
    if settings.device != "cuda":
        return list(able)[:1]
    names = {f"{kernel}<{of.name}>": tile for tile, of in able.items()}
    arch = "sm_{}{}".format(*loader.capability(torch.device("cuda", torch.cuda.current_device())))
    options, text = (*compiling.OPTIONS, *nvrtc.ADDED), loader.text(aggregation.SOURCE)
    whole = nvrtc.Program(aggregation.SOURCE, text, tuple(names), arch, options, mix=False)
    fitting = []
    for row in nvrtc.compile_all(nvrtc.programs(whole)):
        tile = names[row["kernel"]]
        if "error" not in row and not row["stack"] and row["registers"] * able[tile].threads <= REGISTERS:
            fitting.append(tile)
    return fitting


def made(tile: Tile, layer: Size, dtype: torch.dtype) -> window.Window | None:
    """The window of a tile; None where it makes none, or is larger than the map in vain."""
    rows, columns, planes, pixels, vector = tile
    if layer.groups % planes or planes % vector or columns % pixels or vector * dtype.itemsize > 16:
        return None
    if rows >= 2 * layer.height or columns >= 2 * layer.width:
        return None
    fill = math.gcd(planes, 16 // dtype.itemsize)
    found = window.Window(dtype, layer.kernel_size, layer.groups, *tile, fill)
    return found if found.threads in THREADS and found.shared <= SHARED else None


@contextlib.contextmanager
def trying(kernel: str, tile: Tile) -> Iterator[None]:
    """Within it the table has this tile for the kernel, and no other."""
    table = {**tiles.table(), kernel: {"*": {"tile": list(tile)}}}
    with patch.object(tiles, "table", lambda: table):
        window.fitted.cache_clear()
        yield
    window.fitted.cache_clear()


def write(found: dict[str, dict[str, Figures]]) -> None:
    """Puts entries into the table: a line each, the general ones first."""
    table = json.loads(PATH.read_text(encoding="utf-8"))
    for kernel, entries in found.items():
        table[kernel] |= entries
    write_text(PATH, text(table))


def text(table: dict[str, dict[str, Figures]]) -> str:
    """The table as JSON with a line a tile."""
    parts = []
    for kernel, entries in table.items():
        lines = (f"    {json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items())
        parts.append(f"  {json.dumps(kernel)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(parts) + "\n}\n"
