"""What the commands share: the options that all of them have, and those that several have."""

import functools
import inspect
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sancli import console
from sancli.config import AUTO, DEVICES, PRECISIONS, PRESETS, EvalConfig, read_toml
from sancli.errors import Interruption, UsageError, check_choice

MACHINE = "Machine"


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated as Ctrl-C is: what is half-made is put away on the way out."""


def one_of(*choices: str) -> Callable[[], list[str]]:
    """Shell completion for a value; the task's settings check it and say "did you mean"."""
    return lambda: list(choices)


def number_or_auto(value: object) -> object:
    """64 or "auto"."""
    if value == AUTO or isinstance(value, int):
        return value
    try:
        return int(str(value))
    except ValueError:
        raise typer.BadParameter(f"{value!r} is neither a number nor auto.") from None


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Puts a file's settings below the options that are given, and above preset and defaults."""
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise UsageError(
                f"--config {path} cannot be read.", why=f"{why}.", fix="name a TOML file with options."
            ) from None
        known = {str(param.name): param for param in context.command.params if param.name not in COMMON}
        values = {name: as_given(known[name], value) for name, value in read_toml(text, known=known).items()}
        context.default_map = {**(context.default_map or {}), **values}
    return path


def as_given(param: Any, value: Any) -> Any:
    """A TOML value as the command line would hold it: a list for a single option is its words with commas."""
    single = not getattr(param, "multiple", False) and param.nargs == 1
    return ",".join(map(str, value)) if single and isinstance(value, list) else value


def read_preset(context: typer.Context, name: str) -> str:
    """Puts a preset's values below the options and the config file, and above the defaults."""
    check_choice("--preset", name, PRESETS)
    context.default_map = {**PRESETS[name], **(context.default_map or {})}
    return name


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="TOML file with any of these options.", is_eager=True, callback=read_config
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only results, warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
COMMON = {"config": ConfigFile, "json": Json, "quiet": Quiet, "verbose": Verbose, "debug": Debug}


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that every command has, and sees to it that Ctrl-C ends in a few lines."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        chosen = {name: options.pop(name) for name in COMMON}
        del chosen["config"]  # its callback has read it
        vars(console.settings).update(chosen, emitted=False)
        try:
            command(**options)
        except KeyboardInterrupt as interrupt:
            number = signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT
            raise Interruption(
                f"stopped by {'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'}.",
                why=" ".join(getattr(interrupt, "__notes__", ["nothing half-made was left behind."])),
                fix="run the same command again.",
                signal_number=number,
            ) from None

    signature = inspect.signature(command)
    extra = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=kind,
            default=None if name == "config" else False,
        )
        for name, kind in COMMON.items()
    ]
    parameters = [*signature.parameters.values(), *extra]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, **COMMON}
    return run


def given(context: typer.Context) -> frozenset[str]:
    """The options that stand on the command line itself, not in a file or a preset."""
    origins = {str(p.name): context.get_parameter_source(str(p.name)) for p in context.command.params}
    return frozenset(name for name, origin in origins.items() if origin and origin.name == "COMMANDLINE")


Device = Annotated[
    str,
    typer.Option(help=f"{', '.join(DEVICES)}.", autocompletion=one_of(*DEVICES), rich_help_panel=MACHINE),
]
Precision = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(PRECISIONS)}. auto: bf16 where the GPU has it, fp32 on a CPU.",
        autocompletion=one_of(*PRECISIONS),
        rich_help_panel=MACHINE,
    ),
]
Workers = Annotated[
    Any,
    typer.Option(
        parser=number_or_auto,
        metavar="INT|auto",
        help="Processes that read images.",
        rich_help_panel=MACHINE,
    ),
]
InferenceBatch = Annotated[int, typer.Option(help="Images at a time.", rich_help_panel=MACHINE)]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "--weights",
        metavar="RUN|FILE|NAME",
        help="A run's folder, a file, or what was downloaded: a published network, OWNER/NAME of the Hugging"
        " Face Hub. Default: the newest run.",
    ),
]
Tta = Annotated[
    str,
    typer.Option(
        help="none, or flip: the mean with the mirrored image.", autocompletion=one_of(*EvalConfig.TTAS)
    ),
]
MaxPixels = Annotated[
    int, typer.Option(help="Larger images are refused: a file of a few KB can hold 900 megapixels.")
]
RunsDir = Annotated[Path, typer.Option(help="Where the run folders are.")]
