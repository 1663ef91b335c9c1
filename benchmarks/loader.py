"""What reading images costs, and what share of an epoch on a CPU it is.

usage: python benchmarks/loader.py DATA [--network san10-patchwise] [--sizes 160 224] [--json]

DATA is a folder made by `san prepare`. Its images are read as they are, and as photos of 12 megapixels that
are tiled with them: in full (without enough_px) and as `san train` reads them. First each part of the work is
timed alone, on one core; then training steps are, on one batch that is there already and on batches that come
from 0, 1 and 2 processes. The share of data is what the steps take longer then. Files are in the page cache.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Figures, best_of, conditions, file_name, keep_memory, spread
from PIL import Image
from subjects import ROOT, make, train_step

from sancli.data.dataset import Images, Order, training_loader
from sancli.data.images import decode, load_image, read_file
from sancli.data.prepared import Sample, open_prepared
from sancli.data.preprocessing import Preprocessing
from sancli.data.transforms import AUGMENTS, evaluation_view, training_view

PHOTO, TILE, PHOTOS = (4000, 3000), 125, 6
"""Width and height in pixels, the side of a tile, and how many are made."""
IN_FULL = 10**9
"""An enough_px that no picture has."""
WORKERS = (0, 1, 2)
AUGMENT = "medium"
"""That of `san train` without options."""
WARM, MORE = 4, 4
"""Batches before those that are timed, which wait for the start of the processes, and after them: while steps
are timed the processes read ahead as they do in a long epoch."""


def photos(samples: list[Sample], folder: Path) -> list[Sample]:
    """Detailed and noisy JPEGs of 12 megapixels: what a telephone makes, or worse."""
    random, paths = np.random.default_rng(0), itertools.cycle(sample.path for sample in samples)
    made = []
    for number in range(PHOTOS):
        canvas = Image.new("RGB", PHOTO)
        for x, y in itertools.product(range(0, PHOTO[0], TILE), range(0, PHOTO[1], TILE)):
            canvas.paste(load_image(next(paths)).resize((TILE, TILE)), (x, y))
        noise = random.normal(0, 6, (PHOTO[1], PHOTO[0], 1))
        pixels = (np.asarray(canvas) + noise).clip(0, 255).astype(np.uint8)
        made.append(Sample(folder / f"{number}.jpg", 0))
        Image.fromarray(pixels).save(made[-1].path, quality=90)
    return made


def parts(samples: list[Sample], size: int) -> Figures:
    """Milliseconds an image of each part of the work, on one core."""
    preprocessing, some = Preprocessing(image_size=size), samples[:: max(1, len(samples) // 40)]
    files = [read_file(sample.path) for sample in some]
    pictures = [decode(file, enough_px=preprocessing.enough_px).image for file in files]
    torch.set_num_threads(1)
    work: dict[str, tuple[Callable[[Any], Any], Iterable[Any]]] = {
        "read": (lambda sample: read_file(sample.path), some),
        "decode_in_full": (decode, files),
        "decode": (lambda file: decode(file, enough_px=preprocessing.enough_px), files),
        "evaluation_view": (evaluation_view(preprocessing), pictures),
        **{name: (training_view(preprocessing, name), pictures) for name in AUGMENTS},
    }
    found = {name: best_of(lambda of=of: [*map(*of)], 3) * 1e3 / len(some) for name, of in work.items()}
    return {name: round(ms, 3) for name, ms in found.items()}


def batches(
    samples: list[Sample], size: int, enough_px: int, *, workers: int, options: argparse.Namespace
) -> Iterable[Any]:
    """A loader of training batches; it can be passed through again and again."""
    count = (WARM + options.steps + MORE) * options.batch
    images = Images(
        [*itertools.islice(itertools.cycle(samples), count)],
        training_view(Preprocessing(image_size=size), AUGMENT),
        enough_px=enough_px,
    )
    return training_loader(images, Order(count, batch_size=options.batch, seed=0), workers=workers)


def milliseconds(loader: Iterable[Any], options: argparse.Namespace) -> float:
    """Of a training step and of the wait for its batch, for one image."""
    batches = iter(loader)
    for _ in range(WARM):
        train_step(options.network, next(batches).images)
    began = time.perf_counter()
    for _ in range(options.steps):
        train_step(options.network, next(batches).images)
    return (time.perf_counter() - began) * 1e3 / (options.steps * options.batch)


def shares(samples: list[Sample], size: int, enough_px: int, options: argparse.Namespace) -> Figures:
    """Milliseconds an image of steps alone and with data from 0, 1 and 2 processes; the shares of data."""
    loaders = {str(n): batches(samples, size, enough_px, workers=n, options=options) for n in WORKERS}
    one = next(iter(loaders["0"]))
    loaders = {"alone": itertools.repeat(one)} | loaders
    times: dict[str, list[float]] = {key: [] for key in loaders}
    make(options.network)[0].train()
    for _ in range(options.rounds):
        for key, loader in loaders.items():
            times[key].append(milliseconds(loader, options))
        print(".", end="", file=sys.stderr, flush=True)
    alone = times["alone"]
    return {
        key: spread("ms", values)
        | spread("share", [1 - before / now for before, now in zip(alone, values, strict=True)])
        for key, values in times.items()
    }


def measure(samples: list[Sample], options: argparse.Namespace) -> Iterator[Figures]:
    """Parts and shares by what is read and by size, so far: anew after each case."""
    costs, epochs, threads = {}, {}, torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        sources = {"images": samples, "photos": photos(samples, Path(folder))}
        for (source, of), size in itertools.product(sources.items(), options.sizes):
            costs[f"{source}, {size} px"] = parts(of, size)
            torch.set_num_threads(threads)
            ways = {source: Preprocessing(image_size=size).enough_px, f"{source} in full": IN_FULL}
            for way, enough_px in ways.items() if source == "photos" else [*ways.items()][:1]:
                epochs[f"{way}, {size} px"] = shares(of, size, enough_px, options)
                yield {"parts_ms": costs, "epoch": epochs}


def lines(result: Figures) -> Iterator[str]:
    """The figures as tables."""
    yield "ms an image on one core"
    names = next(iter(result["parts_ms"].values()))
    yield " " * 16 + "".join(f"{name.replace('_', ' '):>{max(8, len(name) + 2)}}" for name in names)
    for case, of in result["parts_ms"].items():
        yield f"{case:16}" + "".join(f"{ms:{max(8, len(name) + 2)}.2f}" for name, ms in of.items())
    yield ""
    title = f"ms an image of {result['conditions']['network']}, and the share of data"
    yield f"{title}\n{'':24}{'step alone':>12}" + "".join(f"{f'{n} processes':>18}" for n in WORKERS)
    for case, of in result["epoch"].items():
        cells = (f"{of[str(n)]['ms']:.1f} ({100 * of[str(n)]['share']:.0f} %)" for n in WORKERS)
        yield f"{case:24}{of['alone']['ms']:12.1f}" + "".join(cell.rjust(18) for cell in cells)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="san10-patchwise")
    parser.add_argument("--sizes", type=int, nargs="+", default=(160, 224))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")
    parser.add_argument(
        "--out", type=Path, help="default: benchmarks/results/loader-DATE-PROCESSOR-CORES.json"
    )
    options = parser.parse_args()
    keep_memory()
    settings = {name: getattr(options, name) for name in ("network", "batch", "steps", "rounds")}
    stated = conditions(**settings, augment=AUGMENT, photo_px=PHOTO)
    data = open_prepared(options.data)
    out = options.out or ROOT / "benchmarks/results" / file_name("loader")
    for found in measure(data.samples("train"), options):
        result = {"conditions": stated | {"data": data.manifest.name}} | found
        out.write_text(json.dumps(result, indent=1) + "\n")
    print(*([json.dumps(result)] if options.json else lines(result)), sep="\n")


if __name__ == "__main__":
    main()
