"""Mutates label files and counts what comes of them: labels, or an error that names what is wrong.

    python benchmarks/fuzz_labels.py --seconds 3600 --seed 0 --out benchmarks/results/fuzz-labels.json

A finding is any other exception, an error without a fix or of more than six lines, a case of over 2 s of
processor time, or a label that could lead out of a folder. Findings are kept as files beside the results; a
campaign is added to a file of results that is there.
"""

import platform
import random
import time
import traceback
from collections import Counter
from collections.abc import Iterator

from fuzzing import earlier, leave, read_options
from mat_file import matlab

from sancli.data.imagenet import devkit_wnids, names, synsets
from sancli.data.listing import Listing
from sancli.data.preparation.labels.claims import MAX_LABEL_BYTES
from sancli.data.preparation.labels.matching import unsafe
from sancli.data.preparation.layouts import Hints, LabelFile, Seen, recognise
from sancli.errors import SanError

SLOW_S = 2.0
IMAGES = [f"{number}.jpg" for number in range(8)] + ["caf\u00e9.png", "x.tar.gif"]
KIT_TABLE, KIT_LIST = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
VALIDATION = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 9)]
PIECES = (
    *(
        b",",
        b";",
        b"\t",
        b"|",
        b'"',
        b'""',
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b" ",
        b"''",
        b"\\",
        b"/",
        b"../",
        b"..",
    ),
    *(
        b"\xff\xfe",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        b"\x80",
        b"\xe9",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\x1b[31m",
        b"[red]",
    ),
    *(
        b"image,label\n",
        b"0",
        b"999",
        b"1000",
        b"1001",
        b"-1",
        b"1e9",
        b"9" * 30,
        b"nan",
        b"n01440764",
        b"n0144076",
    ),
    *(b"ILSVRC2012_val_00000001.JPEG", b"ILSVRC2012_val_99999999.JPEG", b"a" * 300, b"\xc2\xb2", b"\xd9\xa3"),
    *(
        "\u2028\u0085\u00e9".encode(),
        b"C:\\x.jpg",
        b"/etc/passwd",
        b"<html>",
        b"PK\x03\x04",
        b"=1+1",
        b"train",
    ),
)


def seeds() -> list[tuple[str, bytes, list[str]]]:
    """Good files of every form, and the images that they are about."""
    rows = [f"{name},{'cat' if place % 2 else 'dog'}" for place, name in enumerate(IMAGES)]
    table = "image,label\n" + "\n".join(rows) + "\n"
    split = "file;class;split\n" + "\n".join(
        f"{n};c{i % 3};{'train' if i % 4 else 'val'}" for i, n in enumerate(IMAGES)
    )
    kit = [*[number for number in devkit_wnids() if number > 10][:7], 1000]
    wnids = [*names()][:8]
    texts = {
        "one_hot.csv": "image,a,b,c\n"
        + "".join(f"{n},{i % 3 // 2},{i % 3 % 2},{+(i % 3 == 0)}\n" for i, n in enumerate(IMAGES)),
        "labels.csv": table,
        "split.csv": split,
        "quoted.csv": "image,label\n" + "".join(f'"{n}","a ""b"" {i}"\n' for i, n in enumerate(IMAGES)),
        "ILSVRC2012_validation_ground_truth.txt": "".join(f"{number}\n" for number in kit),
        "sorted.txt": "".join(f"{number}\n" for number in range(8)),
        "wnids.txt": "".join(f"{wnid}\n" for wnid in wnids),
        "val.txt": "".join(f"{name} {number}\n" for number, name in enumerate(VALIDATION)),
        "LOC_val_solution.csv": "ImageId,PredictionString\n"
        + "".join(f"{n[:-5]},{w} 1 2 3 4 {w} 5 6 7 8 \n" for n, w in zip(VALIDATION, wnids, strict=True)),
    }
    codes = ("utf-8", "utf-8", "utf-16", "utf-8-sig")
    found = [(name, text.encode(code)) for name, text in texts.items() for code in codes]
    found.append(("labels.csv", table.encode("latin-1")))
    about = {
        name: IMAGES if name in ("labels.csv", "split.csv", "quoted.csv", "one_hot.csv") else VALIDATION
        for name in texts
    }
    table = matlab([(number, devkit_wnids()[number]) for number in kit], packed=False)
    found += [(KIT_TABLE, table)] * 4
    return [(name, content, about.get(name, VALIDATION)) for name, content in found]


def mutate(draw: random.Random, content: bytes) -> bytes:
    """The content with one to four changes, most often one."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        place, end = sorted(draw.randint(0, len(content)) for _ in range(2))
        kind = draw.randrange(7)
        if kind == 0:
            content = content[:place] + draw.choice(PIECES) + content[place:]
        elif kind == 1:
            content = content[:place] + content[min(end, place + draw.randint(1, 40)) :]
        elif kind == 2 and content:
            place = min(place, len(content) - 1)
            content = content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
        elif kind == 3:
            content = content[:place] + content[place:end] * draw.choice((2, 2, 3, 50)) + content[end:]
        elif kind == 4:
            content = content[:place]
        elif kind == 5:
            lines = content.split(b"\n")
            draw.shuffle(lines)
            content = b"\n".join(lines)
        else:
            content = content[:place] + draw.choice(PIECES) * draw.choice((1, 5, 300)) + content[end:]
        content = content[: 2**20]
    return content


def cases(seed: int) -> Iterator[tuple[Seen, str, bytes]]:
    """Sources with a mutated label file in them, or given by --labels; for ever."""
    draw, good = random.Random(seed), seeds()
    kit_list = next(content for name, content, _ in good if name == KIT_LIST)
    while True:
        name, content, images = draw.choice(good)
        content = mutate(draw, content)
        listing = Listing()
        for path in images if draw.random() < 0.95 else [*IMAGES, *VALIDATION]:
            listing.add_file(path)
        hints = Hints(
            labels=LabelFile(name, content) if draw.random() < 0.6 else None,
            skip_missing=draw.random() < 0.5,
            label_col="label" if draw.random() < 0.1 else None,
        )
        read = {name: content}
        if name == KIT_TABLE:
            hints = Hints(skip_missing=True)
            read[KIT_LIST] = kit_list
        if hints.labels is None:
            for path in read:
                listing.add_file(path)
        yield (
            Seen(listing.sort(), "source", hints, lambda names, read=read: {n: read[n] for n in names}),
            name,
            content,
        )


def judge(seen: Seen, counts: Counter[str]) -> str | None:
    """What is wrong with how a case ended; None: nothing."""
    began = time.process_time()
    try:
        found = recognise(seen)
        counts[f"read as {found.name}"] += 1
        for image in found.images:
            label = image.label
            if label is None:
                continue
            if label in ("", ".", "..") or unsafe(label) or len(label.encode()) > MAX_LABEL_BYTES:
                return f"unsafe label {label!r}"
            if found.name == "imagenet-val" and label not in names():
                return f"unknown wnid {label!r}"
            if image.path not in seen.listing.images:
                return f"unknown image {image.path!r}"
    except SanError as error:
        counts[f"exit {error.exit_code}"] += 1
        if not (error.what and error.why and error.fix) or len(str(error).splitlines()) > 6:
            return f"a poor error: {error}"
    except Exception:  # that is what is looked for
        return traceback.format_exc()
    if (took := time.process_time() - began) > SLOW_S:
        return f"it took {took:.1f} s"
    return None


def run(*, seconds: float, count: int, seed: int) -> tuple[Counter[str], list[tuple[str, str, bytes]]]:
    """Tries cases until the time or the number is used up; gives the outcomes and the findings."""
    counts: Counter[str] = Counter()
    findings: list[tuple[str, str, bytes]] = []
    end = time.monotonic() + seconds
    for number, (seen, name, content) in enumerate(cases(seed)):
        if number >= count or time.monotonic() > end:
            break
        if wrong := judge(seen, counts):
            findings.append((wrong, name, content))
    return counts, findings


def main() -> None:
    """Runs a campaign and writes its result."""
    options = read_options(__doc__)
    assert len(synsets()) == 1000
    began = time.monotonic()
    counts, findings = run(seconds=options.seconds, count=options.count, seed=options.seed)
    campaign = {
        "seeds": [options.seed],
        "cases": counts.total(),
        "seconds": round(time.monotonic() - began),
        "outcomes": dict(sorted(counts.items())),
        "findings": [wrong for wrong, _, _ in findings],
    }
    before = earlier(options.out)
    result = {
        **before,
        "program": "benchmarks/fuzz_labels.py",
        "python": platform.python_version(),
        "campaigns": [*before.get("campaigns", []), campaign],
    }
    leave(result, options, {f"{number}-{name}": data for number, (_, name, data) in enumerate(findings)})


if __name__ == "__main__":
    main()
