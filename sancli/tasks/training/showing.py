"""What people read of a run: its plan before it starts, and its epochs."""

import math
from typing import Any

from sancli import console
from sancli.data.prepared import Prepared
from sancli.engine.loop import Learner
from sancli.ops.cpu import library
from sancli.tasks.training.planning import Plan
from sancli.tasks.training.progress import Progress
from sancli.tasks.training.rehearsal import Rehearsal

LONG_S = 3600
"""A run that takes longer is shown with what would shorten it."""
SLOW_READING, LARGE_PX = 0.5, 512
"""Reading that takes this share of a step deserves a word, where the images have such a short side."""
SLOW_TO_READ = (
    "the images are large: read from copies made once, an epoch is shorter (san prepare SOURCE --resize 256)"
)
NOTICE = (
    "No ImageNet weights are here, so this is from scratch; with them a network learns faster and better: "
    "san download-weights {arch}-{attention}"
)


def show_plan(plan: Plan, learner: Learner, rehearsal: Rehearsal, progress: Progress) -> None:
    """Says what will be done and how long it takes, each automatic choice with its reason."""
    config = plan.config
    left = progress.epochs_left(plan.epochs, steps_per_epoch=plan.steps_per_epoch)
    total = rehearsal.epoch_s(plan) * left
    lines = {
        "Data": data_line(plan.prepared, plan),
        "Model": model_line(plan, learner),
        "Images": images_line(plan),
        "Learning": learning_line(plan, learner),
        "Device": f"{plan.device.describe()}, {operators_text(plan)}{workers_text(plan)}",
        "Memory": plan.reasons["memory"],
        "Time": time_line(plan, rehearsal, left=left),
    }
    for name, text in lines.items():
        console.say(f"{name:<9} {text}")
    if total > LONG_S and not progress.epoch:
        console.say(f"          {shorter(plan, total)}")
    if is_slow_to_read(plan, rehearsal):
        console.say(f"          {SLOW_TO_READ}")
    if plan.lacks_imagenet:
        console.say(NOTICE.format(arch=config.arch, attention=config.attention))


def why(plan: Plan, setting: str) -> str:
    """The reason of an automatic choice, in brackets; nothing where the user chose."""
    reason = plan.reasons.get(setting)
    return f" ({reason})" if reason else ""


def images_line(plan: Plan) -> str:
    """The size that the network sees, how an image becomes square, and how far training strays from it."""
    view, share = plan.preprocessing, ""
    if view.crop == "center" and view.crop_share != 1.0:
        share = f" {view.crop_share:.1%} of the short side{why(plan, 'crop_share')}"
    return f"{view.image_size} px{why(plan, 'image_size')}, {view.crop}{share}, augment {plan.config.augment}"


def data_line(prepared: Prepared, plan: Plan) -> str:
    """Classes and images."""
    return (
        f"{prepared.root}: {len(plan.classes)} classes, {len(plan.train):,} training and {len(plan.val):,} "
        "validation images"
    )


def model_line(plan: Plan, learner: Learner) -> str:
    """The network, its size and where its weights are from."""
    config = plan.config
    kind = f" {config.attention}" if config.arch.startswith("san") else ""
    relation = f" {config.relation}" if config.relation else ""
    return (
        f"{config.arch}{kind}{relation}{why(plan, 'arch')}, {parameters(learner) / 1e6:.1f} M parameters, "
        f"from {plan.started_from}"
    )


def parameters(learner: Learner) -> int:
    """How many numbers the network learns."""
    return sum(parameter.numel() for parameter in learner.network.parameters())


def learning_line(plan: Plan, learner: Learner) -> str:
    """Epochs, steps, batch, rate and how classes are weighed."""
    config = plan.config
    parts = [
        f"{console.plural(plan.epochs, 'epoch')} of {console.plural(plan.steps_per_epoch, 'step')}"
        + left_out(plan),
        f"batch {plan.step_images}{why(plan, 'batch_size')}",
    ]
    if learner.micro_batch < plan.step_images:
        parts.append(f"{learner.micro_batch} at a time")
    parts += [f"{config.optimizer}", f"lr {config.lr:.2g}"]
    if config.body_rate != 1.0:
        parts.append(f"{config.body_rate:g} of it below the head")
    if config.freeze_epochs:
        parts.append(f"the head alone for {console.plural(config.freeze_epochs, 'epoch')}")
    if config.balance != "none":
        parts.append(f"balanced by {config.balance}{why(plan, 'balance')}")
    return ", ".join(parts)


def left_out(plan: Plan) -> str:
    """What an epoch does without: the rest that fills no batch, where it is a tenth or more."""
    rest = len(plan.train) - plan.steps_per_epoch * plan.step_images
    return f" (without {rest} images, others each time)" if 10 * rest >= len(plan.train) else ""


def operators_text(plan: Plan) -> str:
    """Which implementation of attention runs on a CPU; a network without attention needs none."""
    if plan.device.torch_device.type != "cpu" or not plan.config.arch.startswith("san"):
        return ""
    return f"{library.state()}, "


def workers_text(plan: Plan) -> str:
    """Who reads the images."""
    if not plan.workers:
        return f"images read in between{why(plan, 'workers')}"
    return f"{console.plural(plan.workers, 'process', 'processes')} reading images{why(plan, 'workers')}"


def time_line(plan: Plan, rehearsal: Rehearsal, *, left: float) -> str:
    """How long it takes, from one measured batch of each kind; of a run that goes on, what is left."""
    epoch = rehearsal.epoch_s(plan)
    rest = "" if left == plan.epochs else f" for the {left:.3g} epochs that are left"
    return (
        f"about {console.duration(epoch * left)}{rest}: {console.duration(epoch)} an epoch, "
        f"{console.duration(rehearsal.step_s)} a step, {console.duration(rehearsal.load_s)} to read its batch"
    )


def is_slow_to_read(plan: Plan, rehearsal: Rehearsal) -> bool:
    """Whether an epoch would be much shorter with smaller files."""
    large = plan.prepared.manifest.median_short_side_px >= LARGE_PX
    return large and rehearsal.load_s > SLOW_READING * rehearsal.step_s


def shorter(plan: Plan, total: float) -> str:
    """Which options bring the run under an hour."""
    ways = []
    epochs = math.floor(plan.epochs * LONG_S / total)
    if epochs >= 3:
        ways.append(f"--epochs {epochs} (about {console.duration(total * epochs / plan.epochs)})")
    size = int(plan.config.image_size)
    smaller = size * math.sqrt(LONG_S / total) // 16 * 16
    if 64 <= smaller < size:
        ways.append(f"--image-size {smaller:.0f} (about {console.duration(total * (smaller / size) ** 2)})")
    if plan.config.arch in ("san15", "san19", "resnet38", "resnet50"):
        ways.append("--arch san10")
    return (
        f"shorter with {' or '.join(ways)}"
        if ways
        else "shorter with --preset fast, or --limit N images a class"
    )


def plan_facts(plan: Plan, learner: Learner, rehearsal: Rehearsal, progress: Progress) -> dict[str, Any]:
    """The plan for --json."""
    left = progress.epochs_left(plan.epochs, steps_per_epoch=plan.steps_per_epoch)
    settings = {
        name: getattr(plan.config, name) for name in ("arch", "attention", "image_size", "lr", "epochs")
    }
    return {
        "data": str(plan.prepared.root),
        "classes": list(plan.classes),
        "train_images": len(plan.train),
        "val_images": len(plan.val),
        **settings,
        "batch_size": plan.batch_size,
        "micro_batch": learner.micro_batch,
        "steps_per_epoch": plan.steps_per_epoch,
        "parameters": parameters(learner),
        "started_from": plan.started_from,
        "device": plan.device.torch_device.type,
        "precision": plan.device.precision,
        "workers": plan.workers,
        "reasons": plan.reasons,
        "step_seconds": rehearsal.step_s,
        "load_seconds": rehearsal.load_s,
        "seconds": rehearsal.epoch_s(plan) * left,
    }


def live_text(plan: Plan, progress: Progress) -> str:
    """What stands at the end of the bar."""
    text = f"epoch {progress.epoch + 1}/{plan.epochs}, loss {progress.loss / progress.images:.3f}"
    return f"{text}, best {progress.best_text(plan.config.select)}" if progress.best_epoch else text


def epoch_line(plan: Plan, row: dict[str, Any], *, seconds: float, better: bool) -> str:
    """A complete epoch in one line."""
    selected = f", macro-F1 {100 * row['val_macro_f1']:.1f} %" if plan.config.select == "macro-f1" else ""
    return (
        f"Epoch {row['epoch']:>{len(str(plan.epochs))}}/{plan.epochs}"
        f"  train loss {row['train_loss']:.3f}, top-1 {100 * row['train_top1']:5.1f} %"
        f"  val loss {row['val_loss']:.3f}, top-1 {100 * row['val_top1']:5.1f} %{selected}"
        f"  {console.duration(seconds)}{'  best' if better else ''}"
    )
