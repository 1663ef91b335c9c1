"""What a run will do: every "auto" of the settings becomes a value with its reason."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from sancli import console, weights
from sancli.config import AUTO, RELATIONS, PrepareConfig, TrainConfig
from sancli.data.dataset import seed_of
from sancli.data.prepared import MANIFEST, Prepared, Sample, choose_prepared
from sancli.data.preprocessing import Preprocessing
from sancli.engine.device import Device, choose
from sancli.errors import DataError, UsageError
from sancli.runs import Model, open_model, open_part
from sancli.tasks.training.choices import automatic_balance, automatic_size, automatic_workers

EPOCHS, EPOCHS_FROM_WEIGHTS = 45, 15
WEIGHT_DECAY = {"adamw": 0.05, "sgd": 5e-4}
SCRATCH = "scratch"
PUBLISHED_ARCHS = ("san10", "san15", "san19")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, decided to the last value."""

    config: TrainConfig
    """Nothing in it is "auto" or open."""
    prepared: Prepared
    train: list[Sample]
    val: list[Sample]
    preprocessing: Preprocessing
    device: Device
    start: Model | None
    """What it starts from; None: fresh parameters, or those of a checkpoint."""
    started_from: str
    """For the model card."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a setting has its value."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Label i is classes[i]."""
        return self.prepared.classes

    @property
    def batch_size(self) -> int:
        """Images in one optimizer step."""
        return int(self.config.batch_size)

    @property
    def workers(self) -> int:
        """Processes that read images."""
        return int(self.config.workers)

    @property
    def epochs(self) -> int:
        """Passes over the training images."""
        assert self.config.epochs is not None
        return self.config.epochs

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch: an incomplete last one is left out where there is another."""
        return max(1, len(self.train) // self.batch_size)

    @property
    def step_images(self) -> int:
        """Images that a step really has: all of them where there are fewer than a batch."""
        return min(self.batch_size, len(self.train))

    @property
    def max_pixels(self) -> int:
        """The largest image that was let in when the data was prepared."""
        return int(self.prepared.manifest.options.get("max_pixels", PrepareConfig.max_pixels))

    @property
    def lacks_imagenet(self) -> bool:
        """Whether the run starts from scratch only because the published weights are not here."""
        wanted = self.config.weights == AUTO and self.config.arch in PUBLISHED_ARCHS
        return wanted and self.from_scratch

    @property
    def from_scratch(self) -> bool:
        """Whether the run began with fresh parameters; also of one that goes on."""
        return self.started_from == SCRATCH

    def fingerprint(self) -> str:
        """The sha256 of dataset.json: whether data is the same data."""
        return hashlib.sha256((self.prepared.root / MANIFEST).read_bytes()).hexdigest()


def make_plan(
    config: TrainConfig, given: frozenset[str] = frozenset(), *, started_from: str | None = None
) -> Plan:
    """Opens the data and the starting weights, and decides what the settings leave open.

    Args:
        config: What the user wants.
        given: The options that stand on the command line.
        started_from: What a run that goes on was started from; its weights are in its checkpoint.

    Raises:
        SanError: Something that was asked for is not there, or does not fit.
    """
    reasons: dict[str, str] = {}
    prepared = choose_prepared(config.data)
    train, val = limited(prepared.samples("train"), config), prepared.samples("val")
    check_splits(prepared, train, val)
    start = find_start(config) if started_from is None else None
    config = like_start(config, start, given, reasons)
    device = choose(config.device, config.precision)
    if started_from is not None and "device" not in given:
        device = replace(device, reason="as before")
    config = resolved(config, prepared, train, device, start, reasons)
    preprocessing = Preprocessing(
        image_size=int(config.image_size),
        crop=config.crop,
        crop_share=config.crop_share or 1.0,
        equalize=config.equalize,
    )
    return Plan(
        config=config,
        prepared=prepared,
        train=train,
        val=val,
        preprocessing=preprocessing,
        device=device,
        start=start,
        started_from=started_from or (start.info.name if start else SCRATCH),
        reasons=reasons,
    )


def limited(samples: list[Sample], config: TrainConfig) -> list[Sample]:
    """At most --limit images of each class, drawn by the seed."""
    if config.limit is None:
        return samples
    generator = torch.Generator().manual_seed(seed_of(config.seed, config.limit))
    by_class: dict[int, list[int]] = {}
    for index in torch.randperm(len(samples), generator=generator).tolist():
        by_class.setdefault(samples[index].label, []).append(index)
    chosen = [index for indices in by_class.values() for index in indices[: config.limit]]
    return [samples[index] for index in sorted(chosen)]


def check_splits(prepared: Prepared, train: list[Sample], val: list[Sample]) -> None:
    """Refuses data without images to learn from or to choose by; names classes that lack some."""
    for split, samples in (("train", train), ("val", val)):
        if not samples:
            raise DataError(
                f"{prepared.root} has no {split} split.",
                why="a run learns from train, and chooses its best epoch by val.",
                fix="prepare the data again, with a larger --val."
                if split == "val"
                else "prepare a source with training images.",
            )
        present = {sample.label for sample in samples}
        if missing := [name for label, name in enumerate(prepared.classes) if label not in present]:
            console.warn(f"{split} has no images of {', '.join(missing[:8])}{' ...' if missing[8:] else ''}.")


def find_start(config: TrainConfig) -> Model | None:
    """The model to start from; None: from scratch.

    Raises:
        WeightsError: It was asked for and is not there.
    """
    name = f"{config.arch}-{config.attention}"
    if config.weights == "none":
        return None
    if config.weights == AUTO:
        usual = config.relation in (None, RELATIONS[config.attention][0])
        return open_model(str(weights.published(name))) if usual and weights.is_downloaded(name) else None
    if config.weights == "imagenet":
        if config.arch not in PUBLISHED_ARCHS:
            raise UsageError(
                f"there are no ImageNet weights of {config.arch}.",
                why=f"the authors published {', '.join(PUBLISHED_ARCHS)}.",
                fix="use --weights none, or one of those with --arch.",
            )
        return open_model(str(weights.published(name)))
    if config.partial:
        wanted = {name: getattr(config, name) for name in ("arch", "attention", "relation", "seed")}
        return open_part(config.weights, runs_dir=config.runs_dir, **wanted)
    return open_model(config.weights, runs_dir=config.runs_dir, nameless=True)


def like_start(
    config: TrainConfig, start: Model | None, given: frozenset[str], reasons: dict[str, str]
) -> TrainConfig:
    """The settings with the architecture of the starting weights.

    Raises:
        UsageError: Another architecture was asked for on the command line.
    """
    if start is None:
        return config
    for name in ("arch", "attention", "relation"):
        ours, theirs = getattr(config, name), getattr(start.info, name)
        if ours != theirs and name in given:
            raise UsageError(
                f"--{name} {ours} does not fit --weights {config.weights}.",
                why=f"those weights are of {theirs}.",
                fix=f"leave --{name} out, or use --weights none; --partial takes what fits.",
            )
    if not config.partial:  # of a part, the network is the one that was asked for
        reasons["arch"] = "as the weights"
    info = start.info
    return config.replace(arch=info.arch, attention=info.attention, relation=info.relation)


def resolved(
    config: TrainConfig,
    prepared: Prepared,
    train: list[Sample],
    device: Device,
    start: Model | None,
    reasons: dict[str, str],
) -> TrainConfig:
    """The settings without anything open; the reasons tell why, one for each that was."""
    if config.image_size == AUTO:
        published = start is not None and config.weights in (AUTO, "imagenet")
        size, reasons["image_size"] = automatic_size(prepared, published=published)
        config = config.replace(image_size=size)
    if config.crop_share is None:  # as timm does: what is measured is what the weights were made for
        share = start.info.preprocessing.crop_share if start and config.crop == "center" else 1.0
        config = config.replace(crop_share=share)
        if share != 1.0:
            reasons["crop_share"] = "as the weights"
    if config.workers == AUTO:
        workers, reasons["workers"] = automatic_workers(len(train), device)
        config = config.replace(workers=workers)
    if config.balance == AUTO:
        balance, reasons["balance"] = automatic_balance(train, len(prepared.classes))
        config = config.replace(balance=balance)
    epochs = config.epochs or (EPOCHS_FROM_WEIGHTS if start else EPOCHS)
    freeze = (
        config.freeze_epochs if config.freeze_epochs is not None else int(start is not None and epochs > 1)
    )
    return config.replace(
        data=prepared.root,
        epochs=epochs,
        freeze_epochs=freeze,
        device=device.torch_device.type,
        precision=device.precision,
        weight_decay=WEIGHT_DECAY[config.optimizer] if config.weight_decay is None else config.weight_decay,
    )


def stem(config: TrainConfig, prepared: Prepared) -> str:
    """The name of the run folder, to which a number is added."""
    return config.name or f"{Path(prepared.manifest.name).name}-{config.arch}"
