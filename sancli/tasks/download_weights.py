"""`san download-weights`: the published networks, fetched, checked and made ready to use."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sancli import weights
from sancli.config import DownloadConfig
from sancli.config.download_weights import ALL, LIST, is_repository
from sancli.console import emit, error, next_command, say
from sancli.errors import UsageError, WeightsError
from sancli.model.zoo import PUBLISHED
from sancli.tasks.downloading.arrival import arrive, is_fetched, only_one, source_of
from sancli.tasks.downloading.keeping import keep
from sancli.tasks.downloading.listing import show_list, show_missing
from sancli.tasks.downloading.naming import full_name
from sancli.tasks.downloading.repository import obtain_model
from sancli.weights.fetching.partial import Partial
from sancli.weights.fetching.retries import Unreachable
from sancli.weights.records import Record


def run(config: DownloadConfig) -> None:
    """Lists the published networks, or brings one, all of them, or a model of the Hub into the cache.

    Raises:
        UsageError: There is no such network, or the result exists and is of another source.
        WeightsError: The file cannot be had, or is not that network.
        StorageError: No space, or a place that cannot be written.
    """
    if config.name == LIST:
        show_list()
    elif config.name == ALL:
        obtain_all(config)
    elif is_repository(config.name):
        facts = obtain_model(
            config.name,
            revision=config.revision,
            force=config.force,
            offline=config.offline,
            dry_run=config.dry_run,
        )
        finish(config, {"name": config.name, **facts}, model=config.name)
    else:
        name = full_name(config.name, config.attention)
        finish(config, obtain(config, name), model=target_of(config, name) if config.to else name)


def finish(config: DownloadConfig, facts: dict[str, Any], *, model: str | Path) -> None:
    """Says what was done, for programs and for people."""
    emit({"command": "download-weights", **facts})
    if config.dry_run:
        next_command(*in_earnest(config))
    else:
        next_command("san", "predict", "photo.jpg", "--model", model)


def obtain_all(config: DownloadConfig) -> None:
    """Brings every published network; one that does not come does not keep the others from coming.

    Raises:
        WeightsError: Some did not come; each with its reason before.
    """
    names = [name for name, network in PUBLISHED.items() if config.attention in (None, network.attention)]
    if config.offline:
        refuse_missing(config, names)
    done, failed = [], []
    for name in names:
        try:
            done.append(obtain(config, name))
        except Unreachable:
            raise
        except WeightsError as fault:
            error(str(fault))
            failed.append(name)
    if failed:
        raise WeightsError(
            f"{len(failed)} of {len(names)} networks are not here: {', '.join(failed)}.",
            why="the reasons stand above.",
            fix="run the same command again: what is here is not fetched anew.",
        )
    emit({"command": "download-weights", "networks": done})
    if config.dry_run:
        next_command(*in_earnest(config))
    else:
        next_command("san", "download-weights", LIST)


def refuse_missing(config: DownloadConfig, names: list[str]) -> None:
    """Shows line by line what --offline keeps from coming.

    Raises:
        WeightsError: Something is not here.
    """
    missing = {name: source_of(config, name) for name in names if not target_of(config, name).exists()}
    if missing:
        show_missing(missing)
        raise WeightsError(
            f"{len(missing)} of {len(names)} networks are not here, and --offline forbids to fetch them.",
            why=f"looked in {target_of(config, names[0]).parent}.",
            fix="fetch their addresses elsewhere, then for each:\n"
            "       san download-weights NAME --from model_best.pth",
        )


def in_earnest(config: DownloadConfig) -> list[object]:
    """The same command without --dry-run."""
    options = {
        "--attention": config.attention,
        "--from": config.source,
        "--repo": config.repo,
        "--revision": config.revision,
        "--to": config.to,
    }
    given = [word for option, value in options.items() if value is not None for word in (option, value)]
    return ["san", "download-weights", config.name, *given, *(["--force"] if config.force else [])]


def obtain_for(spec: str) -> None:
    """Brings what `load` was asked for, unless it is here; other things are left to `open_model`.

    Raises:
        WeightsError: It cannot be had, or is no model.
        StorageError: No space, or a place that cannot be written.
    """
    if (name := next((name for name in (spec, f"{spec}-patchwise") if name in PUBLISHED), None)) is not None:
        obtain(DownloadConfig(name=name), name)
    elif is_repository(spec):
        obtain_model(spec)


def target_of(config: DownloadConfig, name: str) -> Path:
    """Where the network is to lie."""
    return config.to / f"{name}.safetensors" if config.to else weights.cached(name)


def obtain(config: DownloadConfig, name: str) -> dict[str, Any]:
    """Brings one network to its place, unless it is there; the facts for --json.

    Raises:
        UsageError: It is there, of another source, and --force is not given.
        WeightsError: It cannot be had, or is not that network.
        StorageError: No space, or a place that cannot be written.
    """
    target, fetched = target_of(config, name), is_fetched(config)
    if is_here(config, name, target):
        return facts_of(config, name, target, written=False)
    if fetched and config.offline:
        raise not_here(name, target, source_of(config, name))
    if fetched and config.dry_run:
        say(f"Would fetch {name} from {source_of(config, name)}")
        say(f"and write {target}; nothing was fetched or written")
        return facts_of(config, name, target, written=False)
    partial = Partial.of(target)
    with only_one(target) if fetched else nullcontext():
        if fetched and is_here(config, name, target):  # another process has brought it while this one waited
            return facts_of(config, name, target, written=False)
        with partial.noted():
            arrival = arrive(config, name, partial)
            try:
                record = keep(name, arrival, target, force=config.force, dry_run=config.dry_run)
            except WeightsError:
                partial.drop()
                raise
            partial.drop()
    return facts_of(config, name, target, written=not config.dry_run, record=record)


def is_here(config: DownloadConfig, name: str, target: Path) -> bool:
    """Whether there is nothing to do.

    Raises:
        UsageError: Something of another source is there, and --force is not given.
    """
    if config.force or not target.exists():
        return False
    record, named = Record.of(target), config.source is not None or config.repo is not None
    if named and config.name != ALL and (not record or record.source != source_of(config, name)):
        raise UsageError(
            f"{target} exists.", why="it is never written over unasked.", fix="add --force to make it anew."
        )
    say(f"{name} is here already: {target}")
    return True


def not_here(name: str, target: Path, source: str) -> WeightsError:
    """That a network would have to be fetched, and may not be."""
    return WeightsError(
        f"{name} would have to be fetched, and --offline forbids it.",
        why=f"looked for {target}.",
        fix=f"fetch {source} elsewhere, then:\n       san download-weights {name} --from model_best.pth",
    )


def facts_of(
    config: DownloadConfig, name: str, target: Path, *, written: bool, record: Record | None = None
) -> dict[str, Any]:
    """What --json says about one network: what has come, or else what is here."""
    record = record or Record.of(target)
    return {
        "name": name,
        "file": str(target),
        "source": record.source if record else source_of(config, name),
        "sha256": record.sha256 if record else None,
        "written": written,
        "dry_run": config.dry_run,
    }
