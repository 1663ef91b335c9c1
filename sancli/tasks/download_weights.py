"""`san download-weights`: the published networks, and the authors' checkpoints made ready to use."""

import json
from pathlib import Path

from sancli import model, runs, weights
from sancli.config import DownloadConfig
from sancli.console import emit, next_command, result, say, size, table
from sancli.data.preprocessing import Preprocessing
from sancli.errors import UsageError, WeightsError, closest, command
from sancli.model.imagenet import imagenet_classes
from sancli.model.zoo import BASELINES, PUBLISHED, SOURCE, Network

DRIVE = "https://drive.google.com/file/d/{}/view"
LIST = "list"
HEADER = ("name", "attention", "params", "FLOPs", "top-1", "top-5", "size", "downloaded")


def run(config: DownloadConfig) -> None:
    """Lists the published networks, or converts the checkpoint of one.

    Raises:
        UsageError: There is no such network, no file is named, or the result exists.
        WeightsError: The file is not that network.
    """
    check_source(config)
    if config.name == LIST:
        show_list()
        return
    name = full_name(config.name, config.attention)
    target = config.to / f"{name}.safetensors" if config.to else weights.cached(name)
    if target.exists() and not config.force:
        raise UsageError(
            f"{target} exists.", why="it is never written over unasked.", fix="add --force to make it anew."
        )
    if config.source is None:
        raise UsageError(
            f"{name}: which file? Name it with --from.",
            why="the authors' checkpoint is converted from your disk; nothing is fetched.",
            fix=f"get it from {DRIVE.format(PUBLISHED[name].drive_id)},\n"
            f"       then: san download-weights {name} --from model_best.pth",
        )
    convert(name, config.source, target)
    emit({"command": "download-weights", "name": name, "file": str(target)})
    next_command("san", "predict", "photo.jpg", "--model", target if config.to else name)


def check_source(config: DownloadConfig) -> None:
    """Refuses what --from cannot mean.

    Raises:
        UsageError: It is an address, or no network is named to make of it.
    """
    if config.source is None:
        return
    if str(config.source).lower().startswith(("http:", "https:")):
        raise UsageError(
            "--from takes a file, not an address.",
            why="nothing is fetched from the network.",
            fix="fetch the file with a browser, and name it.",
        )
    if config.name == LIST:
        raise UsageError(
            f"{LIST} and --from contradict each other.",
            why=f"{LIST} shows what was published; --from converts one of them.",
            fix=command("san", "download-weights", "NAME", "--from", config.source),
        )


def full_name(name: str, attention: str | None) -> str:
    """The name with its attention: san15 is san15-patchwise.

    Raises:
        UsageError: There is no such network, or the two contradict each other.
    """
    arch, _, named = name.lower().partition("-")
    if named and attention and named != attention:
        raise UsageError(
            f"{name} and --attention {attention} contradict each other.",
            why=f"{name} is the {named} network.",
            fix=f"san download-weights {arch}-{attention}",
        )
    full = f"{arch}-{named or attention or 'patchwise'}"
    archs = dict.fromkeys(network.arch for network in PUBLISHED.values())
    if full not in PUBLISHED:
        raise UsageError(
            f"{name} was not published.",
            why=f"known: {', '.join(PUBLISHED)}; and {LIST}.",
            fix=closest(name, [*archs, *PUBLISHED, LIST]),
        )
    return full


def convert(name: str, source: Path, target: Path) -> None:
    """Reads the checkpoint, holds it to the network, and writes it with classes and preprocessing inside.

    Raises:
        WeightsError: It is damaged, another network, or names other classes.
    """
    network, info = PUBLISHED[name], info_of(name)
    empty = model.build(network.arch, attention=info.attention, num_classes=len(info.classes))
    weights.load_into(empty, weights.read(source), source=source)
    check_classes(source, info.classes)
    weights.save(target, empty.state_dict(), info=json.dumps(info.to_dict()))
    say(f"Wrote {target} ({size(target.stat().st_size)}): {name}, {len(info.classes)} classes")


def info_of(name: str) -> runs.ModelInfo:
    """What the authors' network needs besides its numbers: ImageNet's classes, and 224 of 256 pixels."""
    network = PUBLISHED[name]
    assert network.attention is not None
    return runs.ModelInfo(
        name=name,
        classes=imagenet_classes(),
        arch=network.arch,
        attention=network.attention,
        relation=None,
        preprocessing=Preprocessing(image_size=224, crop="center", crop_share=224 / 256),
        data={"name": "ImageNet", "published_top1": network.top1 / 100, "published_top5": network.top5 / 100},
        started_from=SOURCE,
    )


def check_classes(source: Path, classes: tuple[str, ...]) -> None:
    """Refuses a file of ours whose 1000 classes are others than ImageNet's.

    Raises:
        WeightsError: They are.
    """
    text = weights.read_info(source)
    if text is not None and tuple(json.loads(text).get("classes", ())) != classes:
        raise WeightsError(
            f"{source} names other classes than ImageNet's.",
            why="under this name every label would be wrong.",
            fix="use the file as it is: --model takes it.",
        )


def show_list() -> None:
    """The published networks and the paper's baselines: facts, and which are here."""
    emit({"command": "download-weights", "networks": [facts(name) for name in PUBLISHED]})
    rows = [row(name, network) for name, network in (PUBLISHED | BASELINES).items()]
    result(table(HEADER, rows, title="Published networks, and the baselines beside them"))
    say(f"Top-1 and top-5 on the validation images of ImageNet, in %: {SOURCE}")
    next_command("san", "download-weights", "san10-patchwise", "--from", "model_best.pth")


def facts(name: str) -> dict[str, object]:
    """One network as plain values; accuracies are fractions."""
    network = PUBLISHED[name]
    here = weights.is_downloaded(name)
    return {
        "name": name,
        "arch": network.arch,
        "attention": network.attention,
        "parameters": round(network.parameters_m * 1e6),
        "flops": round(network.flops_g * 1e9),
        "top1": network.top1 / 100,
        "top5": network.top5 / 100,
        "source": SOURCE,
        "downloaded": here,
        "file": str(weights.cached(name)) if here else None,
    }


def row(name: str, network: Network) -> tuple[object, ...]:
    """One line of the table; what is not downloaded has the size that it would have."""
    here = name in PUBLISHED and weights.is_downloaded(name)
    count = weights.cached(name).stat().st_size if here else network.parameters_m * 1e6 * 4  # fp32
    return (
        name,
        network.attention or "-",
        f"{network.parameters_m} M",
        f"{network.flops_g} G",
        network.top1,
        network.top5,
        size(count),
        ("yes" if here else "no") if name in PUBLISHED else "-",
    )
