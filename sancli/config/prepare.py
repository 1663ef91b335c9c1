"""Settings of `san prepare`."""

from dataclasses import dataclass, fields
from pathlib import Path

from sancli.config.base import Config, check_range
from sancli.errors import UsageError, check_choice, command


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Config):
    """Everything that decides what a prepared folder holds."""

    source: Path
    out: Path | None = None
    """None: data/<name of the source>."""
    layout: str = "auto"
    labels: Path | None = None
    """A file that says what the images show; None: it is looked for in the source."""
    image_col: str | None = None
    """Columns of that file, by name; None: usual names are looked for."""
    label_col: str | None = None
    split_col: str | None = None
    label_regex: str | None = None
    """Its group `label`, or its first, is the label in the name of an image."""
    skip_missing: bool = False
    """Images that are labelled and not there are passed over."""
    val: float = 0.15
    """Share of the training images, where the source brings no val split."""
    test: float = 0.0
    """Share of the images, where the source brings no test split."""
    seed: int = 0
    group_by: str | None = None
    """Images in whose paths this expression finds the same, or for which the column of this name in the table
    of labels says the same, go to one split together."""
    duplicates: str = "drop"
    near_duplicates: bool = False
    """Pictures that look alike are looked for, and reported; none is dropped."""
    bad: str = "skip"
    max_pixels: int = 89_478_485
    """Pillow's own limit: above it a small file may be a decompression bomb."""
    min_per_class: int = 2
    """Classes with fewer usable training images are left out, and named."""
    max_per_class: int | None = None
    """Of the training images, before val is taken from them."""
    only: str | None = None
    """Class names, separated by commas."""
    skip: str | None = None
    link: str = "auto"
    """auto: a hard link where the disk allows it, else a reflink, else a copy. A hard link shares its bytes
    with the source for ever, a reflink until one of the two is changed."""
    resize: int | None = None
    """Short side in pixels that larger pictures are brought to, once."""
    dry_run: bool = False
    force: bool = False
    check: bool = False
    """The source is a prepared folder, and is held to its hashes; every other setting says nothing then."""

    LAYOUTS = ("auto", "folders", "splits", "intel", "imagenet-val", "imagenet-train", "csv", "names")
    LABELLING = {  # which layouts obey a setting
        **dict.fromkeys(("labels", "skip_missing"), ("auto", "csv", "imagenet-val")),
        **dict.fromkeys(("image_col", "label_col", "split_col"), ("auto", "csv")),
        "label_regex": ("auto", "names"),
    }
    DUPLICATES = ("drop", "report", "off")
    BAD = ("skip", "fail")
    LINKS = ("auto", "hard", "sym", "reflink", "copy")

    def __post_init__(self) -> None:
        """Refuses what no run could use."""
        check_choice("--layout", self.layout, self.LAYOUTS)
        check_choice("--duplicates", self.duplicates, self.DUPLICATES)
        check_choice("--bad", self.bad, self.BAD)
        check_choice("--link", self.link, self.LINKS)
        check_range("--val", self.val, 0, 0.9)
        check_range("--test", self.test, 0, 0.9)
        check_range("--val plus --test", self.val + self.test, 0, 0.95)
        check_range("--min-per-class", self.min_per_class, 1, 10**9)
        check_range("--max-per-class", self.max_per_class, 1, 10**9)
        check_range("--max-pixels", self.max_pixels, 1, 10**12)
        check_range("--resize", self.resize, 1, 10**5)
        if self.max_per_class is not None and self.max_per_class < self.min_per_class:
            raise UsageError(
                f"--max-per-class {self.max_per_class} is less than --min-per-class {self.min_per_class}.",
                why="no class would be left.",
                fix="change one of them.",
            )
        if self.resize is not None and self.link not in ("auto", "copy"):
            raise UsageError(
                f"--resize and --link {self.link} do not go together.",
                why="--resize writes new files: a link would lead to the old ones.",
                fix="leave --link out.",
            )
        self._check_labelling()
        if self.check:
            self._check_alone()

    def _check_labelling(self) -> None:
        given = [name for name in self.LABELLING if getattr(self, name)]
        for name in given:
            if self.layout not in self.LABELLING[name]:
                raise UsageError(
                    f"--{name.replace('_', '-')} does not go with --layout {self.layout}.",
                    why=f"it is for {' and '.join(self.LABELLING[name][1:])}.",
                    fix="leave one of them out.",
                )
        if self.label_regex and given != ["label_regex"]:
            other = next(name for name in given if name != "label_regex").replace("_", "-")
            raise UsageError(
                f"--label-regex and --{other} do not go together.",
                why="labels stand in the names of the images, or in a file.",
                fix="leave one of them out.",
            )

    def _check_alone(self) -> None:
        for setting in fields(self):
            if setting.name not in ("source", "check") and getattr(self, setting.name) != setting.default:
                name = "OUT" if setting.name == "out" else f"--{setting.name.replace('_', '-')}"
                raise UsageError(
                    f"--check and {name} do not go together.",
                    why="--check changes nothing: it looks at a folder that was prepared.",
                    fix=command("san", "prepare", "--check", self.source),
                )

    def arguments(self) -> list[str]:
        """What to type after `san prepare` for these settings, without --dry-run."""
        words = [str(self.source)] + ([] if self.out is None else [str(self.out)])
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name not in ("source", "out", "dry_run") and value != setting.default:
                words += [f"--{setting.name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        return words
