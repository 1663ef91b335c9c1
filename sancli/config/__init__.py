"""What the user decides: one frozen dataclass a task, which checks itself. Imports no torch."""

from sancli.config.base import ARCHS, ATTENTIONS, AUTO, DEVICES, PRECISIONS, RELATIONS, SPLITS, read_toml
from sancli.config.demo import DemoConfig
from sancli.config.download_weights import DownloadConfig
from sancli.config.evaluate import EvalConfig
from sancli.config.export import ExportConfig
from sancli.config.predict import PredictConfig
from sancli.config.prepare import PrepareConfig
from sancli.config.train import PRESETS, TrainConfig

__all__ = [
    "ARCHS",
    "ATTENTIONS",
    "AUTO",
    "DEVICES",
    "PRECISIONS",
    "PRESETS",
    "RELATIONS",
    "SPLITS",
    "DemoConfig",
    "DownloadConfig",
    "EvalConfig",
    "ExportConfig",
    "PredictConfig",
    "PrepareConfig",
    "TrainConfig",
    "read_toml",
]
