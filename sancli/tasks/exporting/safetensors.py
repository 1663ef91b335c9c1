"""One file that describes itself, as a run holds it, and its description beside it."""

import json
from pathlib import Path
from typing import Any

from sancli import weights
from sancli.runs import Model
from sancli.tasks.exporting.description import shareable, write_beside


def write_safetensors(model: Model, target: Path) -> dict[str, Any]:
    """Writes the weights and, beside them, classes and preprocessing; there is nothing more to be said.

    Raises:
        StorageError: No space, or a place that cannot be written.
    """
    info = json.dumps(shareable(model.info).to_dict())
    weights.save(target, model.network.state_dict(), info=info)
    write_beside(target, model.info)
    return {}
