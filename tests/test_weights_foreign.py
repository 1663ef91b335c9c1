"""Checkpoints of others: recognised by their keys, taken whole or not at all, and in part only when asked."""

import importlib
import json

import pytest
import torch
from small_run import few_blocks, prepared_folder  # noqa: F401 -- a fixture
from torch import nn
from training import prepare

from sancli import model, weights
from sancli.errors import WeightsError
from sancli.model.imagenet import imagenet_classes
from sancli.runs import open_file, open_model, open_part, published_info


@pytest.fixture(scope="module")
def patchwise():
    torch.manual_seed(0)
    return model.build("san10", num_classes=1000).eval()


@pytest.fixture(scope="module")
def authors(tmp_path_factory, patchwise):
    """A checkpoint as the authors' training leaves it."""
    path = tmp_path_factory.mktemp("authors") / "model_best.pth"
    optimizer = torch.optim.SGD(patchwise.parameters(), lr=0.1, momentum=0.9)
    state = nn.DataParallel(patchwise).state_dict()
    content = {"epoch": 100, "state_dict": state, "optimizer": optimizer.state_dict(), "top1_val": 77.1}
    torch.save(content, path)
    return path


def test_the_authors_checkpoint_is_a_model_with_the_names_of_imagenet(authors, patchwise, capsys):
    opened = open_model(str(authors))
    assert (opened.info.arch, opened.info.attention) == ("san10", "patchwise")
    assert opened.info.classes == imagenet_classes()
    assert opened.info.preprocessing.image_size == 224
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(opened.network(image), patchwise(image))
    assert "looks like san10 patchwise, of ImageNet" in capsys.readouterr().err


def test_the_authors_checkpoint_predicts_from_the_command_line(authors, san, tmp_path):
    picture = prepared_folder(tmp_path / "data", images=1) / "test/red/0.png"
    outcome = san("predict", picture, "--model", authors, "--json")
    assert outcome.code == 0, outcome.stderr


@pytest.mark.parametrize(
    ("arch", "attention"),
    [("san10", "pairwise"), ("san15", "patchwise"), ("san19", "pairwise"), ("resnet26", "patchwise")],
)
def test_each_network_is_recognised_by_its_keys(arch, attention):
    with torch.device("meta"):
        state = model.build(arch, attention=attention, num_classes=7).state_dict()
    assert weights.recognise(state) == (arch, attention, 7)


@pytest.fixture
def torchvision():
    """Its import takes a second."""
    return importlib.import_module("torchvision")


def test_torchvisions_resnet50_is_taken_as_it_is(tmp_path, torchvision):
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    opened = open_model(str(tmp_path / "resnet50.pth"))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(opened.network(image), theirs(image), rtol=1e-4, atol=1e-3)  # up to 28


def test_what_is_no_network_of_ours_is_named(tmp_path, torchvision):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "m.pth")
    with pytest.raises(WeightsError, match="keys look like ResNet18"):
        open_model(str(tmp_path / "m.pth"))


def test_a_resnet_of_other_blocks_is_refused_by_what_is_missing(tmp_path, torchvision):
    other = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [2, 2, 2, 2])  # 26, and not ours
    torch.save(other.state_dict(), tmp_path / "m.pth")
    with pytest.raises(WeightsError, match=r"missing keys: \d+ of \d+"):
        open_model(str(tmp_path / "m.pth"))


def test_a_network_without_names_is_no_model_but_a_start(tmp_path):
    torch.save(model.build("san10", num_classes=7).state_dict(), tmp_path / "m.pth")
    with pytest.raises(WeightsError, match=r"san10 patchwise with 7 outputs.*\n.*san train --weights"):
        open_model(str(tmp_path / "m.pth"))
    assert len(open_model(str(tmp_path / "m.pth"), nameless=True).info.classes) == 7


# In part


def test_classes_that_an_export_wrote_beside_a_file_are_taken_if_they_are_as_many(tmp_path):
    torch.save(model.build("san10", num_classes=2).state_dict(), tmp_path / "m.pth")
    described = published_info("san10-patchwise").to_dict()
    (tmp_path / "m.json").write_text(json.dumps(described | {"classes": ["crane", "heron"]}))
    assert open_file(tmp_path / "m.pth").info.classes == ("crane", "heron")
    for other in (json.dumps(described), "[]", "{"):
        (tmp_path / "m.json").write_text(other)
        with pytest.raises(WeightsError, match="does not say what its classes are"):
            open_file(tmp_path / "m.pth")


def small_network(outputs=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, outputs))


def test_a_part_is_what_has_the_same_name_and_shape_and_the_rest_is_listed():
    target, source = small_network(), small_network(3)
    nn.init.ones_(source[0].weight)
    before = target[3].weight.clone()
    state = {name: value for name, value in source.state_dict().items() if name != "0.bias"}
    left = weights.load_part(target, state | {"extra": torch.zeros(1)}, source="m.pth")
    assert left.fresh == ["0.bias", "3.weight", "3.bias"]
    assert left.unused == ["3.weight", "3.bias", "extra"]
    assert torch.equal(target[0].weight, source[0].weight)
    assert torch.equal(target[3].weight, before)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"other": torch.zeros(1)}, "none of its tensors"),
        ({"0.weight": torch.full((5, 3, 1, 1), torch.nan)}, "not finite"),
        ({"1.running_var": -torch.ones(5), "0.weight": torch.zeros(5, 3, 1, 1)}, "negative variances"),
    ],
)
def test_a_part_that_fits_nowhere_or_is_nonsense_changes_nothing(state, says):
    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=says):
        weights.load_part(network, state, source="m.pth")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_part_of_a_smaller_network_starts_a_larger_one(authors, patchwise, capsys):
    opened = open_part(str(authors), arch="san15", attention="patchwise", relation=None, seed=3)
    own, theirs = opened.network.state_dict(), patchwise.state_dict()
    assert torch.equal(own["layer0.0.conv.weight"], theirs["layer0.0.conv.weight"])
    assert not own["layer0.1.conv.weight"].any(), "a new block starts as the identity"
    said = capsys.readouterr().err
    assert f"{len(theirs)} of {len(own)} tensors of san15 patchwise" in said
    assert "made anew: layer0.1.bn1.weight" in said
    assert "not used" not in said


def test_train_takes_a_part_only_when_asked(tmp_path, san, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data/shapes"
    prepare(data)
    state = model.build("san10", num_classes=2).state_dict()
    del state["layer0.0.conv.weight"]
    torch.save(state, tmp_path / "cut.pth")
    wanted = ("train", data, "--weights", "cut.pth", "--dry-run", "--image-size", 32, "--batch-size", 4)
    refused = san(*wanted)
    assert refused.code == 4
    assert "1 of" in refused.stderr
    taken = san(*wanted, "--partial")
    assert taken.code == 0, taken.stderr
    assert "made anew: layer0.0.conv.weight" in taken.stderr
    assert "san10 patchwise (as the weights)" not in taken.stderr, "--arch decides it"
    assert san("train", data, "--partial").code == 2


@pytest.mark.parametrize(
    "change",
    [
        {"arch": "san99"},
        {"attention": 7},
        {"relation": "star-product", "attention": "pairwise"},
        {"preprocessing": 5},
        {"classes": "[" * 100_000},
    ],
    ids=["network", "attention", "relation", "preprocessing", "nested"],
)
def test_a_description_of_nothing_known_here_is_an_error_not_a_crash(tmp_path, patchwise, change):
    described = json.dumps(published_info("san10-patchwise").to_dict() | change)
    described = described.replace(json.dumps("[" * 100_000), "[" * 100_000)
    weights.save(tmp_path / "m.safetensors", patchwise.state_dict(), info=described)
    with pytest.raises(WeightsError, match="does not describe a model"):
        open_file(tmp_path / "m.safetensors")
