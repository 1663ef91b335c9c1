"""The command line as a user meets it; what the commands do is tested with the tasks."""

import dataclasses
import inspect
import subprocess
import sys

import pytest
import typer

from sancli import cli, config
from sancli.cli import commands, options

TASKS = {
    commands.prepare: config.PrepareConfig,
    commands.train: config.TrainConfig,
    commands.evaluate: config.EvalConfig,
    commands.predict: config.PredictConfig,
    commands.download_weights: config.DownloadConfig,
    commands.export: config.ExportConfig,
    commands.demo: config.DemoConfig,
}


@pytest.mark.parametrize(("command", "settings"), TASKS.items())
def test_every_setting_has_its_option_with_the_same_default(command, settings):
    parameters = inspect.signature(command).parameters
    defaults = {name: p.default for name, p in parameters.items() if name not in {"context", *options.COMMON}}
    fields = {field.name: field.default for field in dataclasses.fields(settings)}
    assert defaults.keys() == fields.keys()
    for name, default in fields.items():
        required = default is dataclasses.MISSING
        assert defaults[name] == (inspect.Parameter.empty if required else default), name


def test_help_answers_without_torch():
    script = (
        "import sys\n"
        "from sancli.cli import main\n"
        "for command in sys.argv[1:]:\n"
        "    sys.argv = ['san', *command.split(), '--help']\n"
        "    try: main()\n"
        "    except SystemExit as ended: assert not ended.code, command\n"
        "    heavy = {'torch', 'torchvision', 'PIL', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "    assert not heavy, (command, heavy)\n"
    )
    names = ["", *typer.main.get_command(cli.app).commands]
    done = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage") == len(names) == 10


def test_python_m_sancli_is_san(san):
    done = subprocess.run(
        [sys.executable, "-m", "sancli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == san("--version").stdout
    assert done.stdout.startswith("san ")


def test_a_typo_in_a_value_ends_with_2_and_a_question(san):
    outcome = san("train", "--arch", "san51")
    assert outcome.code == 2
    assert "did you mean san15?" in outcome.stderr
    assert outcome.stdout == ""
    assert len(outcome.stderr.splitlines()) <= 6


def test_a_typo_in_a_command_or_an_option_is_answered_with_the_right_word(san):
    assert "Did you mean 'train'" in san("trian").stderr
    assert "--epochs" in san("train", "--epoch", "3").stderr


def settings_of(monkeypatch, san, *arguments):
    """The TrainConfig that a command line makes."""
    seen = []
    task = type(sys)("sancli.tasks.train")
    task.run = lambda config, given: seen.append((config, given))
    monkeypatch.setitem(sys.modules, "sancli.tasks.train", task)
    monkeypatch.setattr("sancli.tasks.train", task, raising=False)
    assert san("train", *arguments).code == 0
    return seen[0]


def test_an_option_wins_over_the_file_the_file_over_the_preset_the_preset_over_the_default(
    monkeypatch, san, tmp_path
):
    file = tmp_path / "train.toml"
    file.write_text('preset = "report"\nepochs = 7\nbatch-size = 16\n')
    made, given = settings_of(monkeypatch, san, "--config", file, "--batch-size", 8)
    assert (made.batch_size, made.epochs, made.lr, made.seed) == (8, 7, 1e-4, 0)
    assert given == {"config", "batch_size"}


@pytest.mark.parametrize("order", [["--preset", "report", "--config"], ["--config"]])
def test_the_order_of_preset_and_file_does_not_matter(monkeypatch, san, tmp_path, order):
    file = tmp_path / "train.toml"
    file.write_text("epochs = 7\n")
    tail = [] if "--preset" in order else ["--preset", "report"]
    made, _ = settings_of(monkeypatch, san, *order, file, *tail)
    assert (made.epochs, made.lr) == (7, 1e-4)


def test_a_run_repeats_from_its_own_config_file(monkeypatch, san, tmp_path):
    settings = config.TrainConfig(arch="san15", image_size=96, workers=1, ema=False)
    (tmp_path / "config.toml").write_text(settings.to_toml())
    assert settings_of(monkeypatch, san, "--config", tmp_path / "config.toml")[0] == settings


def test_a_list_in_a_config_file_is_words_with_commas(monkeypatch, san, tmp_path):
    seen = []
    task = type(sys)("sancli.tasks.prepare")
    task.run = seen.append
    monkeypatch.setitem(sys.modules, "sancli.tasks.prepare", task)
    monkeypatch.setattr("sancli.tasks.prepare", task, raising=False)
    (tmp_path / "p.toml").write_text('only = ["cat", "dog"]\nval = 0.2\n')
    assert san("prepare", "photos", "--config", tmp_path / "p.toml").code == 0
    assert (seen[0].only, seen[0].val) == ("cat,dog", 0.2)


def test_a_wrong_config_file_is_a_usage_error(san, tmp_path):
    assert san("train", "--config", tmp_path / "none.toml").code == 2
    (tmp_path / "a.toml").write_text("epoch = 3\n")
    assert "did you mean epochs?" in san("train", "--config", tmp_path / "a.toml").stderr


def test_a_bug_is_one_line_and_its_traceback_only_with_debug(monkeypatch, san):
    task = type(sys)("sancli.tasks.doctor")
    task.run = lambda: 1 / 0
    monkeypatch.setitem(sys.modules, "sancli.tasks.doctor", task)
    monkeypatch.setattr("sancli.tasks.doctor", task, raising=False)
    outcome = san("doctor")
    assert outcome.code == 1
    assert "this is a bug in san: ZeroDivisionError" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    with pytest.raises(ZeroDivisionError):
        san("doctor", "--debug")


def test_ctrl_c_and_sigterm_end_with_their_codes(monkeypatch, san):
    for interrupt, code in ((KeyboardInterrupt(), 130), (options.Terminated(), 143)):
        task = type(sys)("sancli.tasks.doctor")
        task.run = lambda interrupt=interrupt: (_ for _ in ()).throw(interrupt)
        monkeypatch.setitem(sys.modules, "sancli.tasks.doctor", task)
        monkeypatch.setattr("sancli.tasks.doctor", task, raising=False)
        outcome = san("doctor")
        assert outcome.code == code
        assert len(outcome.stderr.splitlines()) == 3


def test_completion_can_be_shown(san):
    assert "--show-completion" in san("--help").stdout
