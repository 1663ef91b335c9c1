"""The ways in which the labels of the ImageNet validation images go round: to one wnid for each number."""

import re
from dataclasses import dataclass, field

from sancli.console import plural
from sancli.data.imagenet import names, synsets
from sancli.data.preparation.labels.text import Text, read_text, shown, wrong_line
from sancli.errors import DataError

IMAGE = re.compile(r"(?:.*[/\\])?ILSVRC2012_val_(\d{8})(?:\.jpe?g)?", re.IGNORECASE)
"""The name of a validation image; its number is what label lists go by."""
WNID = re.compile(r"n\d{8}")
WHOLE = 50_000
"""Images in the validation set."""
GROUND_TRUTH = "validation_ground_truth"
"""In the name of the development kit's list, and of no other."""
BETWEEN = re.compile(r"[,;\t ]+")


@dataclass
class Truth:
    """What a file says about the validation images."""

    name: str
    form: str
    """For people: what the file was taken for."""
    labels: dict[int, str] = field(default_factory=dict)
    """The wnid of each image's number."""
    lines: dict[int, int] = field(default_factory=dict)
    """Where it stands."""

    def say(self, image: int) -> str:
        """For people: label and line."""
        return f"{self.labels[image]} in line {self.lines[image]:,} of {self.name}"


@dataclass(frozen=True)
class _Line:
    number: int
    cells: list[str]

    @property
    def text(self) -> str:
        return repr(" ".join(self.cells)[:60])


def read_truth(content: bytes, name: str, devkit: dict[int, str], *, devkit_from: str | None) -> Truth | None:
    """The labels in a file; None where it holds something else.

    Args:
        content: Of the file.
        name: Of the file, for people.
        devkit: The wnid of each number of the development kit.
        devkit_from: Where these numbers are from, if not from this package.

    Raises:
        DataError: A line cannot be used, or the numbers do not tell which list they are.
    """
    lines = _lines(read_text(content, name))
    filled = [line for line in lines if any(line.cells)]
    if 2 * sum(_image_in(line) is not None for line in filled) > len(filled):
        start = next(place for place, line in enumerate(lines) if any(line.cells))
        header = _image_in(lines[start]) is None
        truth, values = Truth(name, "names and wnids"), _by_name(lines[start + header :], name)
    elif 2 * sum(_is_label(line) for line in filled) > len(filled):
        truth, values = Truth(name, "a wnid a line"), _by_line(lines, name)
    else:
        return None
    if _is_list_of_classes(values):
        return None
    truth.lines = {number: line for number, (line, _) in values.items()}
    if 2 * sum(bool(WNID.fullmatch(value)) for _, value in values.values()) > len(values):
        truth.labels = {number: _known(name, *value) for number, value in values.items()}
        return truth
    form, table = _numbering(values, name, devkit, devkit_from)
    truth.form = truth.form.replace("wnids", "numbers").replace("wnid", "number") + form
    truth.labels = {number: _wnid(name, *value, table) for number, value in values.items()}
    return truth


def _lines(text: Text) -> list[_Line]:
    """The lines, cut into cells; empty ones at the end are no lines."""
    lines = text.content.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n\t ").split("\n")
    return [
        _Line(number, [cell.strip("\"' ") for cell in BETWEEN.split(line.strip())])
        for number, line in enumerate(lines, start=1)
    ]


def _image_in(line: _Line) -> int | None:
    """The place of the cell that names a validation image, beside another cell."""
    if len(line.cells) < 2:
        return None
    return next((place for place, cell in enumerate(line.cells) if IMAGE.fullmatch(cell)), None)


def _is_label(line: _Line) -> bool:
    return len(line.cells) == 1 and bool(line.cells[0].isdigit() or WNID.fullmatch(line.cells[0]))


def _by_name(lines: list[_Line], name: str) -> dict[int, tuple[int, str]]:
    """Number of the image -> line and label, where each line names its image."""
    found: dict[int, tuple[int, str]] = {}
    for line in lines:
        if not any(line.cells):
            continue
        place = _image_in(line)
        if place is None:
            raise wrong_line(
                name,
                line.number,
                f"reads {line.text}",
                why="an image such as ILSVRC2012_val_00000001.JPEG and its label are expected",
                fix="mend the line",
            )
        number = int(str(IMAGE.fullmatch(line.cells[place])[1]))  # type: ignore[index]
        beside = [*line.cells[place + 1 :], *reversed(line.cells[:place])]
        labels = set(filter(WNID.fullmatch, beside)) or {beside[0]}  # Kaggle: a wnid for each object, all one
        if number in found:
            labels.add(found[number][1])
        if len(labels) > 1:
            raise wrong_line(
                name,
                line.number,
                f"gives image {number} two labels, {shown(sorted(labels))}",
                why="an image of the validation set has one",
                fix="leave one of them",
            )
        found[number] = (line.number, labels.pop())
    return found


def _by_line(lines: list[_Line], name: str) -> dict[int, tuple[int, str]]:
    """The same where the number of the line is that of the image."""
    for line in lines:
        if len(line.cells) != 1 or not line.cells[0]:
            raise wrong_line(
                name,
                line.number,
                f"reads {line.text}" if any(line.cells) else "is empty",
                why="line 1 is the label of image 1, and so on: all that follow would belong to other images",
                fix="mend the line",
            )
    return {line.number: (line.number, line.cells[0]) for line in lines}


def _is_list_of_classes(values: dict[int, tuple[int, str]]) -> bool:
    """Whether it is the 1000 wnids, each once: a list of the classes, not of labels."""
    labels = [label for _, label in values.values()]
    return len(labels) >= 1000 and len(set(labels)) == len(labels)


def _numbering(
    values: dict[int, tuple[int, str]], name: str, devkit: dict[int, str], devkit_from: str | None
) -> tuple[str, dict[int, str]]:
    """Which numbers these are: the smallest and the largest tell, or the name of the file."""
    places = {int(label): line for line, label in values.values() if _is_number(label)}
    lowest, highest = min(places, default=0), max(places, default=0)
    kits = f": those of the development kit, 1 to 1000{f', by {devkit_from}' if devkit_from else ''}"
    if GROUND_TRUTH in name.lower():
        return kits, devkit
    if lowest == 0 and highest >= 1000:
        raise wrong_line(
            name,
            places[0],
            f"is 0, and line {places[highest]:,} is {highest}",
            why="indices of the sorted wnids run from 0 to 999, numbers of the kit from 1 to 1000",
            fix="correct one of them",
        )
    if lowest == 0:
        return ": indices of the sorted wnids, 0 to 999", {at: one.wnid for at, one in enumerate(synsets())}
    if highest >= 1000:
        return kits, devkit
    raise DataError(
        f"the numbers in {name} can mean two things.",
        why=f"they run from {lowest} to {highest}: indices of the sorted wnids begin at 0, numbers of the"
        " development kit end at 1000, and for one number the two have different classes.",
        fix="name the file ILSVRC2012_validation_ground_truth.txt if it is the kit's; or write wnids.",
    )


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit() and len(label) < 6  # int() refuses thousands of digits


def _wnid(name: str, line: int, label: str, table: dict[int, str]) -> str:
    if _is_number(label) and int(label) in table:
        return table[int(label)]
    raise wrong_line(
        name,
        line,
        f"{label[:60]!r} is no class",
        why=f"the others are numbers, which run from {min(table)} to {max(table)}",
        fix="correct it",
    )


def _known(name: str, line: int, wnid: str) -> str:
    if wnid in names():
        return wnid
    raise wrong_line(
        name,
        line,
        f"{wnid} is no class of the challenge",
        why=f"its validation images show {plural(len(names()), 'class', 'classes')}, n01440764 to n15075141",
        fix="correct it",
    )
