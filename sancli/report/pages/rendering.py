"""From a template and values to a page; every value is escaped, for HTML and for people."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sancli.errors import printable

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, values: dict[str, Any]) -> str:
    """The page that a template in templates/ makes of the values."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: object) -> object:
    """A file may be named with a newline, or with what turns the direction of writing around."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return value if hasattr(value, "__html__") else printable(value)  # what is markup already is ours
