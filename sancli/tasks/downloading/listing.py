"""The table of the published networks."""

from sancli import weights
from sancli.config import TrainConfig
from sancli.console import emit, next_command, result, say, size, table
from sancli.model.zoo import BASELINES, PUBLISHED, SOURCE, Network
from sancli.tasks.downloading.naming import full_name

HEADER = ("name", "attention", "params", "FLOPs", "top-1", "top-5", "size", "downloaded")


def show_list() -> None:
    """The published networks and the paper's baselines: facts, and which are here."""
    emit({"command": "download-weights", "networks": [facts(name) for name in PUBLISHED]})
    rows = [row(name, network) for name, network in (PUBLISHED | BASELINES).items()]
    result(table(HEADER, rows, title="Published networks, and the baselines beside them"))
    say(f"Top-1 and top-5 on the validation images of ImageNet, in %: {SOURCE}")
    if repositories := weights.cached_repositories():
        say(f"From the Hugging Face Hub: {', '.join(repositories)}")
    here = [name for name in PUBLISHED if weights.is_downloaded(name)]
    if here:
        next_command("san", "predict", "photo.jpg", "--model", here[-1])
    else:
        next_command("san", "download-weights", full_name(TrainConfig.arch, None))


def show_missing(missing: dict[str, str]) -> None:
    """The networks that are not here, each with its address in one piece, to be copied."""
    for name, address in missing.items():
        result(f"{name:15}  {address}")


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
        "top1": round(network.top1 / 100, 3),
        "top5": round(network.top5 / 100, 3),
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
