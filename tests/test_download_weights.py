"""san download-weights: the list, and the authors' checkpoints made ready to use."""

import json

import pytest
import torch
from torch import nn

from sancli import model, runs, weights
from sancli.model.imagenet import imagenet_classes
from sancli.model.zoo import PUBLISHED
from sancli.tasks.downloading.keeping import info_of
from sancli.tasks.downloading.naming import full_name


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def authors_file(tmp_path_factory):
    """A checkpoint as the authors' tool/train.py saves it, with random numbers."""
    torch.manual_seed(0)
    network = model.build("san10", attention="pairwise", num_classes=1000)
    optimizer = torch.optim.SGD(network.fc.parameters(), lr=0.1, momentum=0.9)
    path = tmp_path_factory.mktemp("authors") / "model_best.pth"
    content = {"epoch": 100, "state_dict": nn.DataParallel(network).state_dict(), "top1_val": 74.9}
    torch.save(content | {"optimizer": optimizer.state_dict()}, path)
    return path


def test_the_list_has_every_published_network(san):
    done = san("download-weights", "list")
    assert done.code == 0
    for name in (*PUBLISHED, "resnet50", "78.2", "20.5 M"):
        assert name in done.stdout
    listed = json.loads(san("download-weights", "--json").stdout)["networks"]
    assert [network["name"] for network in listed] == list(PUBLISHED)
    assert not any(network["downloaded"] for network in listed)
    assert listed[3]["top1"] == pytest.approx(0.780)


def test_the_authors_checkpoint_becomes_a_model_with_its_classes(san, authors_file):
    done = san("download-weights", "san10-pairwise", "--from", authors_file)
    assert done.code == 0, done.stderr
    assert "san predict photo.jpg --model san10-pairwise" in done.stderr
    opened = runs.open_model("san10-pairwise")
    assert opened.info.classes == imagenet_classes()
    assert (opened.info.preprocessing.image_size, opened.info.preprocessing.crop) == (224, "center")
    stored = torch.load(authors_file)["state_dict"]
    found = opened.network.state_dict()
    assert {f"module.{name}" for name in found} == stored.keys()
    assert all(torch.equal(value, stored[f"module.{name}"]) for name, value in found.items())
    assert json.loads(san("download-weights", "--json").stdout)["networks"][0]["downloaded"] is True


def test_a_file_of_ours_is_taken_and_nothing_is_written_over_unasked(san, authors_file, tmp_path):
    info = json.dumps(info_of("san10-pairwise").to_dict())
    weights.save(tmp_path / "ours.safetensors", weights.read(authors_file), info=info)
    command = ["download-weights", "san10", "--attention", "pairwise", "--to", tmp_path / "x", "--from"]
    written = tmp_path / "x" / "san10-pairwise.safetensors"
    assert san(*command, tmp_path / "ours.safetensors").code == 0
    assert written.read_bytes() == (tmp_path / "ours.safetensors").read_bytes()
    refused = san(*command, authors_file)
    assert refused.code == 2
    assert "--force" in refused.stderr
    written.write_bytes(b"old")
    assert san(*command, authors_file, "--force").code == 0
    assert written.stat().st_size > 1e7


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("san10-patchwise", "is not SAN10 patchwise as expected"),
        ("san15-pairwise", "it looks like SAN10 pairwise"),
        ("san19-patchwise", "keys are missing (e.g. "),
    ],
)
def test_another_network_is_named_and_nothing_is_written(san, authors_file, cache, name, says):
    done = san("download-weights", name, "--from", authors_file)
    assert done.code == 4
    assert says in done.stderr
    assert "it looks like SAN10 pairwise" in done.stderr
    assert not cache.exists()


def test_a_resnet_is_called_by_its_name(san, tmp_path):
    torch.save(model.build("resnet50", num_classes=1000).state_dict(), tmp_path / "r.pth")
    done = san("download-weights", "san10", "--from", tmp_path / "r.pth")
    assert done.code == 4
    assert "it looks like ResNet50" in done.stderr


def test_other_classes_under_a_published_name_are_refused(san, authors_file, tmp_path):
    state = weights.read(authors_file)
    weights.save(
        tmp_path / "m.safetensors", state, info=json.dumps({"classes": [str(i) for i in range(1000)]})
    )
    done = san("download-weights", "san10-pairwise", "--from", tmp_path / "m.safetensors")
    assert done.code == 4
    assert "other classes than ImageNet's" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["san51"], "did you mean san15"),
        (["san11"], "did you mean san10"),
        (["resnet50"], "was not published"),
        (["san15-pairwise", "--attention", "patchwise"], "contradict"),
        (["san15", "--attention", "pearwise"], "did you mean pairwise"),
        (["san15"], "san download-weights san15-patchwise --from model_best.pth"),
    ],
)
def test_a_wrong_request_says_what_to_do(san, arguments, says):
    done = san("download-weights", *arguments)
    assert done.code == 2
    assert says in done.stderr


def test_patchwise_is_meant_where_nothing_is_said():
    assert full_name("SAN15", None) == "san15-patchwise"
    assert full_name("san19", "pairwise") == "san19-pairwise"
    assert full_name("san10-pairwise", "pairwise") == "san10-pairwise"


def test_the_1000_class_names_are_all_different_and_in_the_order_of_their_wnids():
    names = imagenet_classes()
    assert len(set(names)) == 1000
    # n01440764, n02012849, n03126707, n03710637, n03710721, n15075141
    spots = [names[i] for i in (0, 134, 517, 638, 639, 999)]
    assert spots == ["tench", "crane bird", "crane", "maillot", "maillot tank suit", "toilet tissue"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--from", "model_best.pth"), "list and --from contradict each other"),
        (("san10", "--from", "https://example.org/model_best.pth"), "--from takes a file, not an address"),
    ],
)
def test_what_from_cannot_mean_is_refused(san, arguments, said):
    done = san("download-weights", *arguments)
    assert done.code == 2
    assert said in done.stderr
