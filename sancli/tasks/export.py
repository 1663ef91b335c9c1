"""`san export`: a model in another form, in a file, in a folder, or on the Hugging Face Hub."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sancli import console
from sancli.config import ExportConfig
from sancli.config.export import AUTHORS, HUB, ONNX, SAFETENSORS, SUFFIXES
from sancli.errors import UsageError
from sancli.files import storage_errors
from sancli.runs import Model, open_model
from sancli.tasks.exporting.authors import their_test, write_authors
from sancli.tasks.exporting.description import described_in, file_name, is_described
from sancli.tasks.exporting.hub import UNKNOWN, check_replaceable, known_license, made_before, write_hub
from sancli.tasks.exporting.onnx import check_packages, inspection, write_onnx
from sancli.tasks.exporting.safetensors import write_safetensors
from sancli.weights.publishing import Publisher


@dataclass(frozen=True)
class FileFormat:
    """A form that is one file, with its description beside it."""

    write: Callable[[Model, Path], dict[str, Any]]
    """Writes the model there, and gives what --json says of it beside the paths."""
    use: Callable[[Model, Path], tuple[object, ...]]
    """The next command, which uses it."""


def prediction(model: Model, target: Path) -> tuple[object, ...]:
    """The command that asks it about a photo."""
    return "san", "predict", "photo.jpg", "--model", target


FORMATS = {
    SAFETENSORS: FileFormat(write_safetensors, prediction),
    AUTHORS: FileFormat(write_authors, their_test),
    ONNX: FileFormat(write_onnx, inspection),
}
"""All but the folder of the Hub."""


def run(config: ExportConfig) -> None:
    """Writes the model, publishes it where that is asked for, and says where it is.

    Raises:
        UsageError: The place is taken, or its name does not fit the format.
        WeightsError: There is no such model, or it cannot be written so, or the Hub refuses it.
        StorageError: No space, or a place that cannot be written.
    """
    publisher = Publisher.ready(config.push, private=config.private) if config.push else None
    if config.form == ONNX:
        check_packages()
    model = open_model(config.model)
    if config.form != HUB:
        export_file(model, config)
    elif publisher and config.output is None:
        with storage_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as place:
            folder = Path(place) / file_name(model.info)
            write_hub(model, folder, license=config.license, repository=config.push)
            publish(folder, publisher, model, config)
    else:
        export_folder(model, publisher, config)


def export_file(model: Model, config: ExportConfig) -> None:
    """Writes a form that is one file."""
    form, suffix = FORMATS[config.form], SUFFIXES[config.form]
    target = target_of(model, config, suffix)
    if target.suffix != suffix:
        raise UsageError(
            f"-o {target} does not fit --format {config.form}.",
            why=f"its files end in {suffix}.",
            fix=f"-o {target.with_suffix(suffix)}",
        )
    beside = described_in(target)
    check_free(target, model, force=config.force)
    if not is_described(target, model.info):  # two forms of one model may share the description beside them
        check_free(beside, model, force=config.force)
    facts = form.write(model, target)
    console.say(f"Wrote {target} ({console.size(target.stat().st_size)}); its classes stand in {beside} too")
    files = [str(target), str(beside)]
    console.emit({"command": "export", "format": config.form, "files": files, **facts})
    console.next_command(*form.use(model, target))


def export_folder(model: Model, publisher: Publisher | None, config: ExportConfig) -> None:
    """Writes the folder of the Hub where it is to stay, and publishes it if that is asked for."""
    target = target_of(model, config, "-hub")
    if target.is_dir() and config.force:
        check_replaceable(target)
    check_free(target, model, force=config.force and target.is_dir())
    paths = write_hub(model, target, license=config.license, repository=config.push)
    console.say(f"Wrote {target}: {', '.join(path.name for path in paths)}")
    if publisher:
        publish(target, publisher, model, config)
        return
    tell_license(model, config)
    console.emit({"command": "export", "format": HUB, "files": [str(path) for path in paths]})
    console.next_command(*prediction(model, target))


def publish(folder: Path, publisher: Publisher, model: Model, config: ExportConfig) -> None:
    """Puts the folder on the Hub, and says where it is now."""
    tell_license(model, config)
    files = sorted(path.name for path in folder.iterdir())
    title = f"{model.info.name}, {model.info.arch}"
    address, removed = publisher.publish(folder, title=title, made_before=made_before)
    console.say(f"Published {config.push}{' (private)' if config.private else ''}: {address}")
    if removed:
        console.say(f"Removed there: {', '.join(removed)}, of the model before; this one has none")
    published = {"repository": config.push, "address": address, "files": files, "removed": removed}
    console.emit({"command": "export", "format": HUB, **published})
    console.next_command("san", "download-weights", config.push)


def target_of(model: Model, config: ExportConfig, ending: str) -> Path:
    """Where the export goes: what was named, inside it where it is a folder and a file is to be written."""
    own = f"{file_name(model.info)}{ending}"
    if config.output is None:
        return Path(own)
    return config.output / own if config.form != HUB and config.output.is_dir() else config.output


def check_free(path: Path, model: Model, *, force: bool) -> None:
    """Refuses to write over what is there, unless that is asked for; never over the model itself.

    Raises:
        UsageError: It exists.
    """
    own = {model.path, model.path.parent if model.run else model.path, described_in(model.path)}
    if path.exists() and any(known.exists() and path.samefile(known) for known in own):
        raise UsageError(
            f"{path} belongs to the model that is exported.",
            why="it would be lost for the run.",
            fix="name another place with -o.",
        )
    if path.is_symlink() or (path.exists() and not force):
        raise UsageError(
            f"{path} exists.",
            why="what is there is never written over unasked.",
            fix="name another place with -o, or add --force.",
        )


def tell_license(model: Model, config: ExportConfig) -> None:
    """That the card grants nothing, where nobody said what it should."""
    if config.license is None and known_license(model) == UNKNOWN:
        console.say("The card's license is unknown: --license mit, or another, says what others may do")
