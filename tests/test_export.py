"""What `san export` writes: read again by other programs, and opened again by ours."""

import getpass
import json
import os
import pickletools
import shlex
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
import training
import yaml
from small_run import CLASSES, PREPROCESSING, draw
from test_golden import FILE, check

import sancli
from sancli import load, model, weights
from sancli.config import ExportConfig
from sancli.config.export import SUFFIXES
from sancli.errors import WeightsError
from sancli.runs import Model, ModelInfo, Run, open_file
from sancli.tasks.export import FORMATS
from sancli.tasks.exporting.authors import write_authors
from sancli.tasks.exporting.hub import CURVES, MATRIX

EVALUATION = {
    "model": {"name": "birds-001", "arch": "san10", "epoch": 3},
    "split": "test",
    "images": 40,
    "top1": 0.875,
    "top1_interval": [0.74, 0.95],
    "macro_f1": 0.861234,
    "balanced": 0.87,
    "most_confused": [],
}


def info(**changes):
    known = {
        "name": "birds-001",
        "classes": CLASSES,
        "arch": "san10",
        "attention": "patchwise",
        "relation": None,
        "preprocessing": PREPROCESSING,
        "metrics": {"top1": 0.5},
        "epoch": 3,
        "data": {"name": "birds", "path": str(Path.home() / "data" / "birds"), "sha256": "5" * 64},
    }
    return ModelInfo(**known | changes)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("SAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sancli.model.build", training.build)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def birds(place):
    """A run with a network of a few hundred parameters, an evaluation and figures."""
    torch.manual_seed(0)
    run = Run(Path("runs/birds-001"))
    run.save_model(training.Micro(len(CLASSES)).eval().state_dict(), info())
    run.config.write_text('lr = 0.001\nepochs = 3\nbatch_size = 64\ndata = "/home/ann/birds"\n')
    (run.folder / CURVES).write_bytes(b"curves")
    evaluated = run.folder / "eval-test"
    evaluated.mkdir()
    (evaluated / "metrics.json").write_text(json.dumps(EVALUATION))
    (evaluated / MATRIX).write_bytes(b"matrix")
    draw(place / "photo.png", "green")
    return run


def same_answers(one, other):
    return load(one).predict("photo.png") == load(other).predict("photo.png")


def test_every_format_is_known_to_the_settings_and_has_its_function():
    assert {*FORMATS, "hub"} == set(ExportConfig.FORMATS)
    assert FORMATS.keys() == SUFFIXES.keys()


def test_without_an_option_the_newest_run_becomes_one_file_that_predicts_the_same(san, birds):
    done = san("export")
    assert done.code == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "Next: san predict photo.jpg --model birds-001.safetensors"
    with safetensors.safe_open("birds-001.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- it is no dict
        assert str(Path.home()) not in str(file.metadata())
    assert training.same(tensors, weights.read(birds.weights))
    described = json.loads(Path("birds-001.json").read_text())
    assert described["classes"] == list(CLASSES)
    assert described["preprocessing"]["image_size"] == PREPROCESSING.image_size
    assert same_answers("birds-001.safetensors", birds.folder)


def test_json_names_the_files(san, birds):
    said = json.loads(san("export", "-o", "out.safetensors", "--json").stdout)
    assert said["files"] == ["out.safetensors", "out.json"]
    assert all(Path(path).is_file() for path in said["files"])


def test_the_hubs_folder_holds_weights_description_card_and_figures(san, birds):
    done = san("export", "--format", "hub", "--license", "cc-by-4.0")
    assert done.code == 0, done.stderr
    folder = Path("birds-001-hub")
    assert {path.name for path in folder.iterdir()} == {
        *("model.safetensors", "model.json", "README.md", "curves.png", "confusion_matrix.png")
    }
    assert same_answers(folder, birds.folder)
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front)
    assert (card["license"], card["library_name"]) == ("cc-by-4.0", "sancli")
    assert card["pipeline_tag"] == "image-classification"
    (result,) = card["model-index"][0]["results"]
    assert result["dataset"]["split"] == "test"
    assert {m["name"]: m["value"] for m in result["metrics"]} == {"Top-1": 0.875, "Macro F1": 0.8612}
    assert "![curves](curves.png)" in text
    assert "87.5 % (95 % interval 74.0 to 95.0)" in text
    assert "| batch size | 64 |" in text


def test_the_card_is_one_that_the_hubs_own_library_reads(san, birds):
    from huggingface_hub import ModelCard

    san("export", "--format", "hub")
    data = ModelCard.load("birds-001-hub/README.md").data
    assert (data.model_name, data.license) == ("birds-001", "unknown")
    assert {result.metric_value for result in data.eval_results} == {0.875, 0.8612}


def test_nothing_of_this_machine_is_in_what_is_exported(san, birds):
    for form in ExportConfig.FORMATS:
        san("export", "--format", form)
    private = [
        str(Path.home()).encode(),
        str(Path.cwd()).encode(),
        b"/home/ann",
        f"/{getpass.getuser()}/".encode(),
        *(str(path).encode() for path in (Path(sys.prefix), Path(sancli.__file__).parent)),
    ]
    written = [path for path in Path().rglob("*") if path.is_file() and "runs" not in path.parts]
    assert len(written) == 10  # the photo is one of them; three forms share their description
    for path in written:
        content = path.read_bytes()
        assert not [word for word in private if word in content], path


def test_figures_of_other_weights_are_not_on_the_card(san, birds):
    stale = EVALUATION | {"model": {"epoch": 2}}
    (birds.folder / "eval-test" / "metrics.json").write_text(json.dumps(stale))
    san("export", "--format", "hub")
    text = Path("birds-001-hub/README.md").read_text()
    assert "87.5" not in text
    assert "| Top-1 | 50.0 % |" in text
    assert not Path("birds-001-hub", MATRIX).exists()


def test_the_authors_form_is_read_by_plain_torch_and_loads_strictly(san, birds):
    done = san("export", "--format", "authors")
    assert done.code == 0, done.stderr
    checkpoint = torch.load("birds-001.pth", weights_only=False)
    network = torch.nn.DataParallel(training.Micro(len(CLASSES)))  # as their tool/test.py has it
    network.load_state_dict(checkpoint["state_dict"], strict=True)
    assert training.same(dict(network.module.state_dict()), weights.read(birds.weights))
    assert training.same(weights.read(Path("birds-001.pth")), weights.read(birds.weights))
    assert json.loads(Path("birds-001.json").read_text())["classes"] == list(CLASSES)


def test_the_authors_form_is_that_of_a_torch_of_their_time(san, birds):
    san("export", "--format", "authors")
    assert not zipfile.is_zipfile("birds-001.pth")  # read since torch 1.6; their code is of 1.2
    with Path("birds-001.pth").open("rb") as file:  # magic number, version, system, content, storages
        pickles = [list(pickletools.genops(file)) for _ in range(5)]
    assert pickles[0][1][1] == 0x1950A86A20F9469CFC6C
    called = {text for code, text, _ in pickles[3] if code.name in ("GLOBAL", "STACK_GLOBAL")}
    assert called <= {
        *("collections OrderedDict", "torch._utils _rebuild_tensor_v2"),
        *("torch FloatStorage", "torch LongStorage"),
    }


def test_the_next_command_is_the_authors_own_and_their_other_view_is_said(san, birds):
    done = san("export", "--format", "authors", "-o", "x.pth")
    assert "Their tool/test.py shows it the middle 224 of 256 px, not 32 px" in done.stderr
    last = done.stderr.splitlines()[-1]
    words = shlex.split(last.removeprefix("Next: "))
    assert words[:4] == ["python", "-m", "tool.test", "--config"]
    assert words[4] == "config/imagenet/imagenet_san10_patchwise.yaml"
    options = dict(zip(words[5::2], words[6::2], strict=True))
    assert options["classes"] == "3"
    assert Path(options["model_path"]) == Path("x.pth").absolute()


@pytest.mark.parametrize(
    "case",
    ["san15:pairwise:128x160:1:eval", pytest.param("san19:patchwise:128x128:1:eval", marks=pytest.mark.slow)],
)
def test_a_network_in_the_authors_form_gives_the_authors_numbers(case, place, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(place)
    arch, attention = case.split(":")[:2]
    with torch.device("meta"):
        network = model.build(arch, attention=attention, num_classes=1000)
    filled = {name: check.fill(name, tuple(x.shape)) for name, x in network.state_dict().items()}
    network.load_state_dict(filled, assign=True)
    write_authors(Model(network, info(arch=arch, attention=attention), Path("x"), None), Path("x.pth"))
    state = torch.load("x.pth", weights_only=False)["state_dict"]
    monkeypatch.setattr(check, "fill", lambda name, shape: state[f"module.{name}"])
    with np.load(FILE) as file:
        assert check.differences(case, check.cases(file)[case]) == []


@pytest.mark.parametrize(
    "changes",
    [{"relation": "star-product"}, {"arch": "resnet26"}, {"attention": "pairwise", "relation": "hadamard"}],
)
def test_a_network_that_the_authors_code_does_not_know_is_refused(place, changes):
    with pytest.raises(WeightsError, match="cannot be written for the authors' code"):
        write_authors(Model(training.Micro(3), info(**changes), Path("x"), None), Path("x.pth"))
    assert not Path("x.pth").exists()


@pytest.mark.parametrize("form", ExportConfig.FORMATS)
def test_nothing_is_written_over_unless_it_is_asked_for(san, birds, form):
    assert san("export", "--format", form).code == 0
    before = {path: path.read_bytes() for path in Path().rglob("birds-001*/*") if path.is_file()}
    refused = san("export", "--format", form)
    assert refused.code == 2
    assert "exists" in refused.stderr
    assert before == {path: path.read_bytes() for path in before}
    assert san("export", "--format", form, "--force").code == 0
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_the_json_beside_is_not_written_over_either(san, birds):
    Path("birds-001.json").write_text("mine")
    assert san("export").code == 2
    assert Path("birds-001.json").read_text() == "mine"
    assert not Path("birds-001.safetensors").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("-o", "runs/birds-001/model.safetensors"),
        ("--format", "hub", "-o", "runs/birds-001"),
        ("--format", "authors", "-o", "runs/birds-001/model.pth"),  # its model.json would be written over
    ],
)
def test_the_model_itself_is_never_written_over(san, birds, arguments):
    before = {path: path.read_bytes() for path in birds.folder.rglob("*") if path.is_file()}
    done = san("export", *arguments, "--force")
    assert done.code == 2, done.stderr
    assert before == {path: path.read_bytes() for path in birds.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("names", [["notes.txt"], ["README.md"], ["model.json", "model.safetensors", "x.py"]])
def test_a_folder_with_other_things_is_not_replaced_even_with_force(san, birds, names):
    Path("mine").mkdir()
    for name in names:
        Path("mine", name).write_text("mine")
    done = san("export", "--format", "hub", "-o", "mine", "--force")
    assert done.code == 2
    assert "not even with --force" in done.stderr
    assert sorted(path.name for path in Path("mine").iterdir()) == sorted(names)


def test_a_folder_takes_the_file_under_the_models_name(san, birds):
    Path("out").mkdir()
    assert san("export", "-o", "out").code == 0
    assert open_file(Path("out/birds-001.safetensors")).info.classes == CLASSES


def test_a_name_from_elsewhere_leads_out_of_no_folder(san, birds):
    foreign = info(name="../../../etc/passwd")
    weights.save(Path("x.safetensors"), training.Micro(3).state_dict(), info=json.dumps(foreign.to_dict()))
    assert san("export", "--model", "x.safetensors").code == 0
    assert Path("etc-passwd.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--format", "hup"), "did you mean hub?"),
        (("--format", "authors", "--push", "ann/birds"), "contradict each other"),
        (("--push", "birds"), "it takes the form OWNER/NAME"),
        (("--push", "../birds"), "it takes the form OWNER/NAME"),
        (("--private",), "--private wants --push"),
        (("--license", "mit"), "--license wants --format hub"),
        (("-o", "birds.bin"), "-o birds.safetensors"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_the_way_out(san, birds, arguments, says):
    done = san("export", *arguments)
    assert done.code == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) <= 6


def test_without_a_run_the_error_says_how_to_get_one(san, place):
    done = san("export")
    assert done.code == 4
    assert "there is no trained model here" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_is_an_error_of_storage(san, birds):
    Path("shut").mkdir(mode=0o500)
    assert san("export", "-o", "shut").code == 6
