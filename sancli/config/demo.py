"""Settings of `san demo`."""

from dataclasses import dataclass
from pathlib import Path

from sancli.config.base import Config


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Config):
    """Where the demo draws its scenes and keeps its run."""

    folder: Path = Path("san-demo")
    seed: int = 0
