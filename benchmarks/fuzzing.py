"""What the fuzzers share: their options, the results that are there already, and what a campaign leaves."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_options(about: str | None) -> argparse.Namespace:
    """How long, how many cases, from which seed, and where the results go."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, formatter_class=style)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def earlier(out: Path | None) -> dict[str, Any]:
    """The results that a campaign is added to; {} where there are none."""
    if out is None or not out.exists():
        return {}
    return dict(json.loads(out.read_text(encoding="utf-8")))


def leave(result: Mapping[str, Any], options: argparse.Namespace, findings: Mapping[str, bytes]) -> None:
    """Prints the result and writes it; the findings, by the ends of their names, are kept beside it."""
    print(json.dumps(result, indent=2))
    if options.out is None:
        return
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for end, content in findings.items():
        options.out.with_name(f"{options.out.stem}-{options.seed}-{end}").write_bytes(content)
