from pathlib import Path

import pytest

from sancli.config import PRESETS, PrepareConfig, TrainConfig
from sancli.errors import UsageError


def test_settings_are_saved_and_opened_again():
    config = TrainConfig(data=Path("data/x"), arch="san15", batch_size="auto", lr=1e-4, epochs=45)
    assert TrainConfig.from_toml(config.to_toml()) == config


def test_a_setting_of_another_version_is_named():
    with pytest.raises(UsageError, match=r"no setting epoch[\s\S]*did you mean epochs"):
        TrainConfig.from_toml("epoch = 3")


def test_text_that_is_not_toml_is_refused():
    with pytest.raises(UsageError, match="not TOML"):
        TrainConfig.from_toml("epochs: 3")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_set_of_good_settings(preset):
    TrainConfig(preset=preset, **PRESETS[preset])


def test_the_preset_report_is_the_student_report():
    report = TrainConfig(**PRESETS["report"])
    assert (report.arch, report.attention, report.weights) == ("san15", "patchwise", "none")
    assert (report.epochs, report.batch_size, report.lr) == (45, 64, 1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"arch": "san51"},
        {"relation": "hadamard"},  # of pairwise, and the attention is patchwise
        {"epochs": 0},
        {"image_size": 16},
        {"label_smoothing": 1.0},
        {"batch_size": 0},
        {"workers": -1},
        {"device": "gpu"},
        {"name": "../elsewhere"},
        {"name": ".."},
        {"name": "-rf"},
        {"name": ""},
        {"lr": 0.0},
    ],
)
def test_a_wrong_setting_is_refused_before_any_work(wrong):
    with pytest.raises(UsageError):
        TrainConfig(**wrong)


def test_shares_that_leave_nothing_to_train_on_are_refused():
    with pytest.raises(UsageError, match="--val plus --test"):
        PrepareConfig(source=Path("x"), val=0.5, test=0.5)
