"""One file that describes itself, as a run holds it, and its description beside it."""

import json
from pathlib import Path

from sancli import weights
from sancli.runs import Model
from sancli.tasks.exporting.description import shareable, write_beside


def write_safetensors(model: Model, target: Path) -> list[Path]:
    """Writes the weights and, beside them, classes and preprocessing; both paths.

    Raises:
        StorageError: No space, or a place that cannot be written.
    """
    info = json.dumps(shareable(model.info).to_dict())
    weights.save(target, model.network.state_dict(), info=info)
    return [target, write_beside(target, model.info)]
