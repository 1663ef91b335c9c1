"""Settings of `san train`, and its presets."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sancli.config.base import ARCHS, ATTENTIONS, AUTO, DEVICES, PRECISIONS, RELATIONS, Config, check_range
from sancli.errors import UsageError, check_choice

NAME = re.compile(r"[\w+][\w+. -]*")
"""Of a run: it becomes a folder inside runs/, and a word in commands."""
NOT_FILES = (AUTO, "imagenet", "none")
"""Values of --weights that name no run and no file."""

PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"arch": "san10", "epochs": 12, "image_size": 112, "augment": "light"},
    "balanced": {},  # the defaults
    "best": {"arch": "san19", "epochs": 90, "augment": "heavy"},
    "report": {  # the student report on the Intel scenes that this project grew out of
        "arch": "san15",
        "attention": "patchwise",
        "weights": "none",
        "epochs": 45,
        "batch_size": 64,
        "lr": 1e-4,
    },
}
"""Values that a preset puts in place of the defaults; an option given wins."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """Everything that decides a training run. Saved as config.toml with the weights it made."""

    data: Path | None = None
    """None: the newest prepared folder in data/."""
    arch: str = "san10"
    attention: str = "patchwise"
    relation: str | None = None
    """None: the authors' own, the first in RELATIONS."""
    weights: str = "auto"
    """auto, imagenet, none, a run's folder or a file."""
    partial: bool = False
    """Takes from these weights what fits, and lists what was left."""
    preset: str = "balanced"
    """A set of values; the command line has filled them in before this dataclass is made."""
    epochs: int | None = None
    """None: 45 from scratch, 15 from weights."""
    freeze_epochs: int | None = None
    """Epochs in which only the head learns. None: 0 from scratch, 1 from weights."""
    batch_size: int | Literal["auto"] = 64
    """Images in one optimizer step."""
    lr: float | None = None
    """None: 1e-3 from scratch, 2e-4 from weights, times sqrt(batch_size / 64); 50 times that with sgd."""
    body_rate: float = 1.0
    """Learning rate of all but the head, as a share of the head's."""
    optimizer: str = "adamw"
    weight_decay: float | None = None
    """None: 0.05 with adamw; 5e-4 with sgd, which adds it to the gradient."""
    label_smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    augment: str = "medium"
    equalize: bool = False
    image_size: int | Literal["auto"] = "auto"
    """Side in pixels. auto: 224 with published weights, else from the images."""
    crop: str = "center"
    crop_share: float | None = None
    """Of the short side, that --crop center shows. None: as the starting weights; 1 from scratch."""
    balance: str = "auto"
    select: str = "top1"
    """What "best" means, on val."""
    ema: bool = True
    early_stop: int | None = None
    """Epochs without a better figure after which the run ends. None: off."""
    time_limit: float | None = None
    """Minutes after which the run ends, at the end of an epoch. None: off."""
    resume: bool = False
    resume_from: Path | None = None
    limit: int | None = None
    """Training images a class. None: all."""
    device: str = "auto"
    precision: str = "auto"
    workers: int | Literal["auto"] = "auto"
    seed: int = 0
    deterministic: bool = False
    name: str | None = None
    """Of the run folder. None: <data>-<arch>; a number follows."""
    runs_dir: Path = Path("runs")
    dry_run: bool = False

    OPTIMIZERS = ("adamw", "sgd")
    AUGMENTS = ("none", "light", "medium", "heavy")
    CROPS = ("center", "squash", "pad")
    BALANCES = ("auto", "none", "loss", "sampler")
    SELECTS = ("top1", "macro-f1", "loss")

    def __post_init__(self) -> None:
        """Refuses what no run could use."""
        check_choice("--arch", self.arch, ARCHS)
        if self.name is not None and not NAME.fullmatch(self.name):
            raise UsageError(
                f"--name {self.name} cannot be the name of a folder in {self.runs_dir}.",
                why="it may hold letters, digits, spaces and . _ + -, and starts with none of . and -.",
                fix="choose another name; --runs-dir says where the folder goes.",
            )
        check_choice("--attention", self.attention, ATTENTIONS)
        if self.relation is not None:
            check_choice("--relation", self.relation, RELATIONS[self.attention])
        check_choice("--preset", self.preset, PRESETS)
        if self.partial and self.weights in NOT_FILES:
            raise UsageError(
                "--partial needs weights of which a part is taken.",
                why=f"--weights is {self.weights}.",
                fix="name a run or a file with --weights.",
            )
        check_choice("--optimizer", self.optimizer, self.OPTIMIZERS)
        check_choice("--augment", self.augment, self.AUGMENTS)
        check_choice("--crop", self.crop, self.CROPS)
        check_choice("--balance", self.balance, self.BALANCES)
        check_choice("--select", self.select, self.SELECTS)
        check_choice("--device", self.device, DEVICES)
        check_choice("--precision", self.precision, PRECISIONS)
        for option, value, low, high in (
            ("--epochs", self.epochs, 1, 100_000),
            ("--freeze-epochs", self.freeze_epochs, 0, 100_000),
            ("--batch-size", None if self.batch_size == AUTO else self.batch_size, 1, 1_000_000),
            ("--lr", self.lr, 1e-12, 1e38),
            ("--body-rate", self.body_rate, 1e-6, 1),
            ("--crop-share", self.crop_share, 0.1, 1),
            ("--weight-decay", self.weight_decay, 0, 10),
            ("--label-smoothing", self.label_smoothing, 0, 0.99),
            ("--mixup", self.mixup, 0, 10),
            ("--cutmix", self.cutmix, 0, 10),
            ("--image-size", None if self.image_size == AUTO else self.image_size, 32, 4096),
            ("--early-stop", self.early_stop, 1, 100_000),
            ("--time-limit", self.time_limit, 1e-6, 1e6),
            ("--limit", self.limit, 1, 10**9),
            ("--workers", None if self.workers == AUTO else self.workers, 0, 1024),
            ("--seed", self.seed, 0, 2**63 - 1),
        ):
            check_range(option, value, low, high)
