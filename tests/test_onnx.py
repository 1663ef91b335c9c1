"""`san export --format onnx`: what onnxruntime, which knows nothing of us, makes of the file.

An export takes seconds: most tests share one, of a network of a few hundred parameters.
"""

import contextlib
import dataclasses
import importlib.util
import io
import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
import torch
import training
from small_run import CLASSES, PREPROCESSING, draw, prepared_folder, trained_run
from test_portable import EVERY, lived

from sancli import console, load, weights
from sancli.config import ExportConfig
from sancli.data.preprocessing import Preprocessing
from sancli.errors import WeightsError
from sancli.model import resnet
from sancli.model.san import SAN
from sancli.runs import Run, open_file
from sancli.tasks import export
from sancli.tasks.exporting.onnx import compared, graph, pictures, spread

PAGE = Path(__file__).parent.parent / "docs/weights.md"


class Exported(NamedTuple):
    """A folder with data, a run that tells colours apart, and model.onnx of it."""

    place: Path
    run: Run
    said: dict
    shown: list[str]

    @property
    def content(self):
        return (self.place / "model.onnx").read_bytes()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    place, out, err = tmp_path_factory.mktemp("onnx"), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("sancli.model.build", training.build)
        patch.setattr(console.settings, "json", True)
        run = trained_run(Path("runs/colours-001"), prepared_folder(place / "data/colours"))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            export.run(ExportConfig(output=Path("model.onnx")))  # the ending says which format
        patch.setattr(console.settings, "emitted", False)
    return Exported(place, Run(place / run.folder), json.loads(out.getvalue()), err.getvalue().splitlines())


@pytest.fixture
def here(exported, tmp_path, monkeypatch):
    """An empty folder for runs with the exported weights: their graphs are there already."""

    def described(*_, metadata, **__):
        model = onnx.load_from_string(exported.content)
        onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
        return model.SerializeToString()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sancli.model.build", training.build)
    monkeypatch.setattr("sancli.tasks.exporting.onnx.graph", described)
    return tmp_path


def run_with(exported, folder, *, shift=0.0, **preprocessing):
    """A run with the weights of the exported one, and another preprocessing."""
    state = weights.read(exported.run.weights)
    state["fc.bias"] += shift * torch.arange(len(CLASSES))
    view = dataclasses.replace(PREPROCESSING, **preprocessing)
    run = Run(folder)
    run.save_model(state, dataclasses.replace(exported.run.read_info(), name=folder.name, preprocessing=view))
    return run


def metadata_of(path):
    return {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}


def test_the_file_is_a_plain_onnx_model_with_classes_and_preprocessing_inside(exported):
    assert exported.said["files"] == ["model.onnx", "model.json"]
    model = onnx.load(exported.place / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}  # nothing but ONNX's own operators
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert not model.functions
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    side = PREPROCESSING.image_size
    assert shapes == {"image": ["batch", 3, side, side], "logits": ["batch", len(CLASSES)]}
    described = metadata_of(exported.place / "model.onnx")
    assert described == json.loads((exported.place / "model.json").read_text())
    assert described["classes"] == list(CLASSES)


def test_the_difference_to_torch_is_measured_on_the_models_own_images_and_said(exported):
    (line,) = (line for line in exported.shown if line.startswith("Largest difference to torch"))
    said = re.fullmatch(r"Largest difference to torch: (\S+) in a logit; they reach (\S+) \((.*)\)", line)
    assert 0 < float(said[1]) < 1e-4 * float(said[2])
    assert said[3] == "onnxruntime, 12 images of colours, test"
    assert exported.said["difference"] == pytest.approx(float(said[1]), rel=0.1)
    assert "It takes image [N, 3, 32, 32], normalised, and gives logits [N, 3]" in exported.shown


def test_what_the_next_command_shows_is_the_preprocessing(exported, capsys, monkeypatch):
    monkeypatch.chdir(exported.place)
    python, option, line = shlex.split(exported.shown[-1].removeprefix("Next: "))
    assert (python, option) == ("python", "-c")
    exec(line, {})
    assert Preprocessing.from_dict(json.loads(capsys.readouterr().out)) == PREPROCESSING


@pytest.mark.parametrize(
    ("size", "share", "within"), [((36, 36), 1.0, 1e-4), ((40, 36), 1.0, 0.01), ((78, 104), 0.875, 1e-3)]
)
def test_the_pages_lines_answer_as_san_predict_does(exported, here, san, capsys, size, share, within):
    texts = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (lines,) = (text for text in texts if "onnxruntime" in text)
    run = run_with(exported, here / "runs/cropped-001", crop_share=share)
    assert san("export", "-o", "model.onnx").code == 0
    for colour in CLASSES:
        draw(here / "photo.jpg", colour, size=size)
        (label, probability), *_ = load(run.folder).predict("photo.jpg")
        assert label == colour
        capsys.readouterr()
        exec(lines, {})
        said = capsys.readouterr().out.split()
        assert said[0] == label
        assert float(said[1]) == pytest.approx(probability, abs=within)


SOME = [("pairwise", "subtraction")]
"""Patchwise is what the other tests export."""


@pytest.mark.parametrize(
    ("attention", "relation"),
    [one if one in SOME else pytest.param(*one, marks=pytest.mark.slow) for one in EVERY],
)
def test_every_relation_becomes_a_file_that_answers_as_torch_does(attention, relation):
    network = lived(SAN(attention, relation, (0, 1, 0, 0, 0), 4))
    found = compared(network, graph(network, side=32, metadata={}), torch.randn(5, 3, 32, 32))
    assert found.largest < 1e-4 * found.reach


@pytest.mark.slow
@pytest.mark.parametrize("arch", resnet.LAYERS)
def test_a_resnet_becomes_a_file_that_answers_as_torch_does(arch):
    network = lived(resnet.resnet(arch, 4))
    found = compared(network, graph(network, side=64, metadata={}), torch.randn(2, 3, 64, 64))
    assert found.largest < 1e-4 * found.reach


def test_a_graph_that_answers_otherwise_is_refused_and_leaves_nothing(exported, here, san):
    run_with(exported, here / "runs/other-001", shift=0.1)
    done = san("export", "--format", "onnx")
    assert done.code == 4
    assert "does not answer as torch does, and was not written" in done.stderr
    assert len(done.stderr[done.stderr.index("Error:") :].splitlines()) <= 6
    assert [path.name for path in here.iterdir()] == ["runs"]


def test_images_on_which_the_network_diverges_say_nothing_and_some_must_be_left(exported, monkeypatch):
    monkeypatch.setattr("sancli.model.build", training.build)
    network = open_file(exported.run.weights).network
    images = torch.randn(4, 3, 32, 32)
    images[2] = torch.inf
    assert compared(network, exported.content, images).largest < 1e-3
    with pytest.raises(WeightsError, match="cannot be held to torch"):
        compared(network, exported.content, images[2:3])


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_said_before_anything_is_looked_for(san, tmp_path, monkeypatch, missing):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else there(name))
    monkeypatch.chdir(tmp_path)  # there is no model here
    done = san("export", "--format", "onnx")
    assert done.code == 2
    assert f"--format onnx needs {missing}." in done.stderr
    assert 'pip install "sancli[onnx]"' in done.stderr


@pytest.mark.parametrize("lost", ["data", "images"])
def test_drawn_scenes_stand_in_for_images_that_are_not_here(exported, here, lost):
    run = run_with(exported, here / "runs/lost-001")
    data = prepared_folder(here / "elsewhere/colours")
    if lost == "images":
        for path in data.rglob("*.png"):
            path.write_bytes(b"broken")
    model = open_file(run.weights)
    known = {"path": str(data if lost == "images" else here / "nowhere")}
    images, source = pictures(dataclasses.replace(model, info=dataclasses.replace(model.info, data=known)))
    assert source == "12 drawn scenes"
    assert images.shape == (12, 3, 32, 32)
    assert images.isfinite().all()


def test_equalizing_is_said_to_be_left_to_others(exported, here, san):
    run_with(exported, here / "runs/flat-001", equalize=True)
    done = san("export", "--format", "onnx")
    assert done.code == 0, done.stderr
    assert "Warning: equalizing the histograms is not in the graph" in done.stderr


def test_san_itself_takes_no_onnx_file_and_says_what_it_takes(exported, san, monkeypatch):
    monkeypatch.chdir(exported.place)
    done = san("predict", draw(Path("photo.png"), "red"), "--model", "model.onnx")
    assert done.code == 4
    assert "model.onnx is for other programs" in done.stderr


def test_the_images_that_are_compared_are_spread_over_all():
    assert spread(list(range(24))) == list(range(0, 24, 2))
    assert spread([1, 2]) == [1, 2]
    assert spread([]) == []
