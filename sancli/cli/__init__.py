"""The command line: no work is done here, and no torch is imported, so that --help answers at once."""

import io
import signal
import sys
from typing import NoReturn

from sancli import console
from sancli.cli.commands import app
from sancli.cli.options import Terminated
from sancli.errors import SanError

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line; every error ends here, as a few lines and an exit code."""
    signal.signal(signal.SIGTERM, _stop)
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks ends no command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except SanError as error:
        if console.settings.debug:
            raise
        console.error(str(error))
        console.emit(
            {"error": {"what": error.what, "why": error.why, "fix": error.fix}, "exit_code": error.exit_code}
        )
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `san runs | head`: the reader has seen enough
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if console.settings.debug:
            raise
        console.error(
            f"Error: this is a bug in san: {type(error).__name__}: {error}\n"
            "  why: the program met something it was not written for; your images are as they were.\n"
            "  fix: report it with what the same command prints with --debug, and what san doctor prints."
        )
        sys.exit(1)


def _stop(signal_number: int, _frame: object) -> NoReturn:
    raise Terminated(signal_number)
