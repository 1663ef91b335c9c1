"""`san train` as a user meets it: the plan, the run folder, small and awkward data, starting from weights."""

import dataclasses
import json
import re
import tomllib

import pytest
import torch
import training

from sancli import console, weights
from sancli.data.images import load_image
from sancli.data.prepared import Sample, open_prepared
from sancli.data.preprocessing import Preprocessing
from sancli.data.transforms import evaluation_view
from sancli.engine import checkpoint
from sancli.errors import DataError, UsageError, WeightsError
from sancli.runs import Run
from sancli.tasks import train
from sancli.tasks.training import choices, planning


@pytest.fixture(autouse=True)
def micro(monkeypatch, request):
    torch.set_num_threads(1)
    monkeypatch.setattr("sancli.model.build", training.build)
    if "promised" not in request.node.name:  # one test with the evaluation at the end, which has its own
        monkeypatch.setattr(train, "evaluate_split", lambda *_, **__: {})


@pytest.fixture
def data(tmp_path):
    return training.prepare(tmp_path / "data" / "shapes")


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def test_a_run_folder_holds_all_that_is_promised(data, runs, capsys):
    train.run(training.config(data, runs))
    folder = runs / "run-001"
    promised = {
        *("config.toml", "model.safetensors", "model.json", "last.ckpt", "metrics.csv", "curves.png"),
        *("samples.jpg", "log.txt", "eval-val", "README.md"),
    }
    assert promised <= {path.name for path in folder.iterdir()}
    info = json.loads((folder / "model.json").read_text())
    assert info["classes"] == ["disc", "square"]
    assert info["finished"] is True
    assert info["started_from"] == "scratch"
    settings = tomllib.loads((folder / "config.toml").read_text())
    assert (settings["batch_size"], settings["workers"], settings["device"]) == (4, 0, "cpu")
    shown = capsys.readouterr().err
    log = (folder / "log.txt").read_text()
    for line in (
        "Using ",
        "Data  ",
        "Model ",
        "Time  ",
        "Epoch 1/2",
        "Epoch 2/2",
        "Best: epoch",
        "Next: san",
    ):
        assert line in shown
        assert line in log
    assert shown.count("Epoch") == 2  # in a pipe: one line an epoch, no bar


def test_a_checkpoint_holds_tensors_and_plain_values_only(data, runs):
    train.run(training.config(data, runs, epochs=1))
    state = torch.load(runs / "run-001" / "last.ckpt", weights_only=True)
    assert state["progress"]["epoch"] == 1
    assert not any(name.startswith(("module.", "_orig_mod.")) for name in state["network"])


@pytest.mark.parametrize("ema", [True, False])
def test_the_first_epoch_from_scratch_is_measured_with_the_statistics_of_its_own_weights(data, runs, ema):
    train.run(
        training.config(data, runs, epochs=1, batch_size=12, ema=ema)
    )  # one step; all images are one batch
    network = training.Micro(2)
    network.load_state_dict(weights.read(runs / "run-001" / "model.safetensors"))
    view = evaluation_view(Preprocessing(image_size=32))
    images = torch.stack([view(load_image(sample.path)) for sample in open_prepared(data).samples("train")])
    values = network.body[0](images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(network.body[1].running_mean, values.mean(1))
    torch.testing.assert_close(network.body[1].running_var, values.var(1))


def test_the_same_seed_gives_the_same_bits_and_another_does_not(data, runs):
    for seed in (1, 1, 2):
        train.run(training.config(data, runs, epochs=1, seed=seed))
    one, again, other = (checkpoint.load(runs / f"run-00{n}" / "last.ckpt")["network"] for n in (1, 2, 3))
    assert training.same(one, again)
    assert not training.same(one, other)


def test_a_dry_run_shows_the_plan_and_writes_nothing(data, runs, capsys):
    console.settings.json = True
    train.run(training.config(data, runs, dry_run=True))
    said = capsys.readouterr()
    plan = json.loads(said.out)
    assert (plan["batch_size"], plan["steps_per_epoch"], plan["train_images"]) == (4, 3, 12)
    assert plan["seconds"] > 0
    assert "Dry run" in said.err
    assert re.search(r"Memory +about [\d.]+ [KM]iB in a step: [\d.]+ [KM]iB an image", said.err)
    assert not runs.exists()


def test_json_is_one_object_at_the_end(data, runs, capsys):
    console.settings.json = True
    train.run(training.config(data, runs, epochs=1))
    result = json.loads(capsys.readouterr().out)
    assert result["run"] == str(runs / "run-001")
    assert 0 <= result["metrics"]["top1"] <= 1


def test_it_learns(data, runs):
    train.run(training.config(data, runs, epochs=12, lr=0.03, augment="none"))
    rows = (runs / "run-001" / "metrics.csv").read_text().splitlines()
    columns = rows[0].split(",")
    losses = [float(row.split(",")[columns.index("train_loss")]) for row in rows[1:]]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("counts", "options"),
    [
        ({"train": 1, "val": 1}, {"batch_size": 64}),  # two images, one batch larger than the data
        ({"train": 1, "val": 1}, {"batch_size": 1}),
        ({"train": 5, "val": 3}, {"batch_size": 3}),  # 10 images: the last batch would be of one
        ({"train": 5, "val": 3}, {"batch_size": "auto", "balance": "sampler", "ema": False}),
        ({"train": 5, "val": 3}, {"limit": 2, "optimizer": "sgd", "cutmix": 1.0, "select": "loss"}),
        (
            {"train": 5, "val": 3},
            {"precision": "bf16", "equalize": True, "crop": "pad", "select": "macro-f1"},
        ),
    ],
)
def test_small_data_and_rare_options_run(tmp_path, runs, monkeypatch, counts, options):
    train.run(training.config(training.prepare(tmp_path / "few", counts), runs, **options))
    assert Run(runs / "run-001").read_info().finished


def test_data_without_val_says_how_to_get_one(tmp_path, runs):
    data = training.prepare(tmp_path / "few", {"train": 2, "val": 0})
    with pytest.raises(DataError, match="no val split") as refused:
        train.run(training.config(data, runs))
    assert "--val" in refused.value.fix


def test_a_class_that_val_lacks_is_named(tmp_path, runs, capsys):
    data = training.prepare(tmp_path / "few", {"train": 2, "val": 1})
    (data / "val" / "square" / "0.png").unlink()
    manifest = json.loads((data / "dataset.json").read_text())
    manifest["counts"]["val"]["square"] = 0
    (data / "dataset.json").write_text(json.dumps(manifest))
    train.run(training.config(data, runs, dry_run=True))
    assert "val has no images of square" in capsys.readouterr().err


def test_a_folder_that_was_not_prepared_gets_the_line_to_paste(tmp_path, runs):
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError) as refused:
        train.run(training.config(tmp_path / "raw", runs))
    assert refused.value.fix == f"san prepare {tmp_path / 'raw'}"


def test_early_stop_and_time_limit_end_a_run_in_good_order(data, runs, monkeypatch, capsys):
    train.run(training.config(data, runs, epochs=50, lr=1e-9, early_stop=2))
    train.run(training.config(data, runs, epochs=50, time_limit=1e-6))
    said = capsys.readouterr().err
    assert "--early-stop: nothing better for 2 epochs" in said
    assert "--time-limit of 1e-06 min reached" in said
    assert len((runs / "run-002" / "metrics.csv").read_text().splitlines()) == 2


def test_a_run_starts_from_the_weights_of_another_and_keeps_the_rows_of_known_classes(
    data, tmp_path, runs, monkeypatch
):
    train.run(training.config(data, runs))
    other = training.prepare(tmp_path / "other", classes=("cross", "square"))
    config = training.config(other, runs, weights=str(runs / "run-001"), epochs=None)
    plan, learner = train.prepare(config, frozenset(), train.World(), None)
    old = weights.read(runs / "run-001" / "model.safetensors")
    new = learner.network.state_dict()
    assert torch.equal(new["body.0.weight"], old["body.0.weight"])
    assert torch.equal(new["fc.weight"][1], old["fc.weight"][1])
    assert not torch.equal(new["fc.weight"][0], old["fc.weight"][0])
    assert (plan.epochs, plan.config.freeze_epochs, plan.started_from) == (15, 1, "run-001")
    assert plan.config.lr == pytest.approx(2e-4 / 4)


def test_fine_tuning_keeps_the_crop_of_its_weights_and_can_spare_the_body(data, runs, capsys):
    train.run(training.config(data, runs, crop_share=0.875, epochs=1))
    scratch = Run(runs / "run-001").read_info()
    assert scratch.preprocessing.crop_share == 0.875
    config = training.config(data, runs, weights=str(runs / "run-001"), epochs=2, body_rate=0.3)
    train.run(config)
    said = capsys.readouterr().err
    assert "center 87.5% of the short side (as the weights)" in said
    assert "0.3 of it below the head, the head alone for 1 epoch" in said
    assert Run(runs / "run-002").read_info().preprocessing.crop_share == 0.875
    assert "center 87.5% of the short side" in (runs / "run-002" / "README.md").read_text()
    for changes, share in (({"crop_share": 1.0}, 1.0), ({"crop": "pad"}, 1.0), ({"weights": "none"}, 1.0)):
        plan, _ = train.prepare(config.replace(**changes), frozenset(), train.World(), None)
        assert plan.preprocessing.crop_share == share


def test_imagenet_weights_are_demanded_or_used_where_they_are(data, tmp_path, runs, monkeypatch, capsys):
    monkeypatch.setenv("SAN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match="san download-weights san10-patchwise"):
        train.run(training.config(data, runs, weights="imagenet"))
    assert WeightsError.exit_code == 4
    train.run(training.config(data, runs, weights="auto", epochs=1))
    assert "No ImageNet weights are here" in capsys.readouterr().err
    target = weights.cached("san10-patchwise")
    target.parent.mkdir(parents=True)
    target.write_bytes((runs / "run-001" / "model.safetensors").read_bytes())
    for asked in ("auto", "imagenet"):
        plan, _ = train.prepare(
            training.config(data, runs, weights=asked, image_size="auto", epochs=None),
            frozenset(), train.World(), None,
        )  # fmt: skip
        assert plan.start.path == target
        assert (plan.config.image_size, plan.epochs, plan.config.freeze_epochs) == (224, 15, 1)


def test_another_architecture_than_the_weights_is_refused(data, runs, monkeypatch):
    train.run(training.config(data, runs, epochs=1))
    config = training.config(data, runs, weights=str(runs / "run-001"), arch="san15")
    with pytest.raises(UsageError, match="--arch san15 does not fit"):
        train.run(config, given=frozenset({"arch"}))


def test_rare_classes_weigh_more_and_the_mean_weight_is_one():
    samples = [Sample(None, label) for label in [0] * 9 + [1] * 3]
    weight = choices.rarity(samples, 3)
    assert weight.tolist() == pytest.approx([12 / 18, 2.0, 0.0])
    assert sum(weight[sample.label] for sample in samples) == pytest.approx(12)
    assert choices.automatic_balance(samples, 2)[0] == "none"
    assert choices.automatic_balance(samples[:-1], 2)[0] == "loss"


@pytest.mark.parametrize(("side", "size"), [(150, 160), (20, 64), (160, 160), (161, 192), (3000, 224)])
def test_the_image_size_follows_the_images(data, runs, side, size):
    manifest = json.loads((data / "dataset.json").read_text()) | {"median_short_side_px": side}
    (data / "dataset.json").write_text(json.dumps(manifest))
    plan = planning.make_plan(training.config(data, runs, image_size="auto"))
    assert plan.preprocessing.image_size == size
    assert str(side) in plan.reasons["image_size"]


def test_on_a_cpu_a_batch_that_does_not_fit_goes_in_parts(data, runs, monkeypatch, capsys):
    monkeypatch.setattr("sancli.engine.device.Device.free_bytes", lambda self: 100_000)
    train.run(training.config(data, runs, dry_run=True))
    said = capsys.readouterr().err
    assert "at a time" in said
    assert "which BatchNorm sees" in said


@pytest.mark.parametrize(
    ("side", "load_s", "said"), [(3000, 2.0, True), (3000, 0.2, False), (150, 2.0, False)]
)
def test_large_files_that_slow_the_training_deserve_a_word(
    data, runs, monkeypatch, capsys, side, load_s, said
):
    manifest = json.loads((data / "dataset.json").read_text()) | {"median_short_side_px": side}
    (data / "dataset.json").write_text(json.dumps(manifest))
    measured = train.rehearse
    monkeypatch.setattr(
        train, "rehearse", lambda *args: dataclasses.replace(measured(*args), load_s=load_s, step_s=1.0)
    )
    train.run(training.config(data, runs, dry_run=True))
    assert ("san prepare SOURCE --resize 256" in capsys.readouterr().err) is said


def test_images_that_fill_no_batch_are_told_where_they_are_many(data, runs, capsys):
    train.run(training.config(data, runs, dry_run=True, batch_size=7))
    assert "1 step (without 5 images, others each time)" in capsys.readouterr().err
