"""A model of ours on the Hugging Face Hub -> the cache, where `--model OWNER/NAME` finds it."""

from pathlib import Path
from typing import Any

from sancli import weights
from sancli.console import say
from sancli.errors import UsageError, WeightsError
from sancli.tasks.downloading.arrival import Arrival, bring, model_in, only_one, page_of
from sancli.tasks.downloading.keeping import keep_model
from sancli.weights.fetching.hub import open_repository
from sancli.weights.fetching.partial import Partial
from sancli.weights.records import Record


def obtain_model(
    name: str,
    *,
    revision: str | None = None,
    force: bool = False,
    offline: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Brings the model of OWNER/NAME into the cache, unless it is there; the facts for --json.

    Raises:
        WeightsError: It cannot be had, or is no model of ours.
        StorageError: No space, or a place that cannot be written.
    """
    target = weights.cached_repository(name)
    source = page_of(name, revision)
    facts: dict[str, Any] = {"file": str(target), "source": source, "written": False, "dry_run": dry_run}
    if not force and is_here(name, target, source, named=revision is not None):
        return facts
    if offline:
        raise WeightsError(
            f"{name} would have to be fetched, and --offline forbids it.",
            why=f"looked for {target}.",
            fix=f"fetch {source}/model.safetensors elsewhere; --model takes the file.",
        )
    if dry_run:
        say(f"Would fetch model.safetensors of {source}")
        say(f"and write {target}; nothing was fetched or written")
        return facts
    partial = Partial.of(target)
    with only_one(target), partial.noted():
        if not force and is_here(name, target, source, named=revision is not None):
            return facts  # another process has brought it while this one waited
        remote = model_in(open_repository(name, revision))
        say(f"Fetching {name}, {source}")
        bring(remote, partial)
        arrival = Arrival(path=partial.path, label=remote.label, source=source, fetched=True)
        try:
            record = keep_model(arrival, partial, target, force=force)
        except WeightsError:
            partial.drop()
            raise
    return facts | {"sha256": record.sha256, "written": True}


def is_here(name: str, target: Path, source: str, *, named: bool) -> bool:
    """Whether the model is in the cache, at the revision that was named, if one was.

    Raises:
        UsageError: It is there at another one.
    """
    if not target.exists():
        return False
    record = Record.of(target)
    if named and (not record or record.source != source):
        raise UsageError(
            f"{name} is here at another revision.",
            why=f"{target} is of {record.source if record else 'an unknown one'}.",
            fix="add --force to take this one in its place.",
        )
    say(f"{name} is here already: {target}")
    return True
