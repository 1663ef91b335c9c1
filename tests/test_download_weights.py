"""san download-weights: the list, and the authors' checkpoints made ready to use."""

import dataclasses
import hashlib
import json

import pytest
import requests
import torch
from filehost import file_host
from huggingface_hub import constants
from small_run import few_blocks  # noqa: F401 -- a fixture
from torch import nn

from sancli import load, model, runs, weights
from sancli.errors import WeightsError
from sancli.model.imagenet import imagenet_classes
from sancli.model.zoo import PUBLISHED
from sancli.tasks.downloading.naming import full_name
from sancli.weights.fetching import retries


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


@pytest.fixture
def small_file(tmp_path):
    """A whole checkpoint, of no network of ours."""
    torch.save({"state_dict": {"a": torch.ones(50_000)}}, tmp_path / "small.pth")
    return tmp_path / "small.pth"


def test_the_list_has_every_published_network(san):
    done = san("download-weights", "list")
    assert done.code == 0
    for name in (*PUBLISHED, "resnet50", "78.2", "20.5 M"):
        assert name in done.stdout
    listed = json.loads(san("download-weights", "--json").stdout)["networks"]
    assert [network["name"] for network in listed] == list(PUBLISHED)
    assert not any(network["downloaded"] for network in listed)
    assert [network["top1"] for network in listed] == [0.749, 0.771, 0.766, 0.78, 0.769, 0.782]


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
    info = json.dumps(runs.published_info("san10-pairwise").to_dict())
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
        ("san19-patchwise", "missing keys: "),
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
        (["resnet50"], "--weights FILE takes torchvision's file"),
        (["resnet26"], "san train --arch resnet26 --weights none"),
        (["san16-pairwise"], "was not published"),
        (["san15-pairwise", "--attention", "patchwise"], "contradict"),
        (["san15", "--attention", "pearwise"], "did you mean pairwise"),
        (["san15", "--from", "a.pth", "--repo", "ann/san"], "--from and --repo contradict"),
        (["all", "--from", "a.pth"], "all and --from contradict"),
        (["list", "--from", "model_best.pth"], "list and --from contradict"),
        (["ann/birds", "--repo", "ann/san"], "ann/birds and --repo contradict"),
        (["san15", "--repo", "https://huggingface.co/ann/san"], "is no repository"),
        (["san15", "--repo", "../etc"], "is no repository"),
        (["san15", "--revision", "main"], "--revision wants a repository"),
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


@pytest.fixture
def host(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(retries, "PAUSES", (0, 0, 0))
    with file_host() as host:
        yield host


def test_an_address_becomes_a_model_with_its_record_and_is_not_fetched_twice(san, host, authors_file, cache):
    host.files["/model_best.pth"] = authors_file.read_bytes()
    host.faults["/model_best.pth"] = ["503", "cut"]
    command = [
        "download-weights",
        "san10-pairwise",
        "--json",
        "--from",
        host.url("/model_best.pth?key=secret"),
    ]
    done = san(*command)
    assert done.code == 0, done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert not [path for path in (cache / "weights").iterdir() if b"key=secret" in path.read_bytes()]
    said, sha256 = json.loads(done.stdout), hashlib.sha256(authors_file.read_bytes()).hexdigest()
    assert (said["written"], said["sha256"]) == (True, sha256)
    record = json.loads((cache / "weights" / "san10-pairwise.json").read_text())
    assert record["classes"] == list(imagenet_classes())
    assert record["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert record["data"]["published_top1"] == pytest.approx(0.749)
    assert record["download"]["bytes"] == authors_file.stat().st_size
    asked = len(host.asked)
    again = san(*command)
    assert (again.code, json.loads(again.stdout)["written"]) == (0, False)
    assert len(host.asked) == asked
    left = {path.name for path in (cache / "weights").iterdir() if not path.name.startswith(".")}
    assert left == {"san10-pairwise.safetensors", "san10-pairwise.json"}


def test_bytes_that_changed_since_the_first_download_are_refused_unless_forced(
    san, host, authors_file, small_file, tmp_path
):
    host.files["/model_best.pth"] = authors_file.read_bytes()
    to = ["--to", tmp_path / "x", "--from", host.url("/model_best.pth")]
    target = tmp_path / "x" / "san10-pairwise.safetensors"
    assert san("download-weights", "san10-pairwise", *to).code == 0
    target.unlink()
    host.files["/model_best.pth"] = small_file.read_bytes()
    refused = san("download-weights", "san10-pairwise", *to)
    assert refused.code == 4
    assert "is another file than at the first download" in refused.stderr
    assert not target.exists()
    forced = san("download-weights", "san10-pairwise", "--force", *to)
    assert "Warning:" in forced.stderr
    assert "missing keys: " in forced.stderr  # it goes on to the check of what has come


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        (["wrong"], "/model_best.pth holds no usable weights"),
        (["truncated"], "/model_best.pth holds no usable weights"),
        (["empty"], "it is empty (0 bytes)"),
        (["page"], "a web page with the title"),
        (["404"], "HTTP 404"),
    ],
)
def test_whatever_comes_in_place_of_the_file_the_old_one_stays(san, host, small_file, tmp_path, faults, says):
    host.files["/model_best.pth"], host.faults["/model_best.pth"] = small_file.read_bytes(), faults
    old = tmp_path / "san10-pairwise.safetensors"
    old.write_bytes(b"old")
    source = ["--from", host.url("/model_best.pth"), "--force", "--to", tmp_path]
    done = san("download-weights", "san10-pairwise", *source)
    assert done.code == 4
    assert says in done.stderr
    assert ".download " not in done.stderr
    assert old.read_bytes() == b"old"
    assert not list(tmp_path.glob("*.download*"))


def test_another_network_at_an_address_is_named(san, host, authors_file, cache):
    host.files["/model_best.pth"] = authors_file.read_bytes()
    done = san("download-weights", "san15-pairwise", "--from", host.url("/model_best.pth"))
    assert done.code == 4
    assert f"{host.url('/model_best.pth')} is not SAN15 pairwise as expected" in done.stderr
    assert "it looks like SAN10 pairwise" in done.stderr
    assert not list((cache / "weights").glob("san*"))


def test_all_goes_on_past_a_network_that_does_not_come(san, host, authors_file, small_file, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", host.address)
    template = f"{host.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    host.files["/ann/san/san10-pairwise.pth"] = authors_file.read_bytes()
    host.files["/ann/san/san15-pairwise.pth"] = small_file.read_bytes()
    done = san("download-weights", "all", "--attention", "pairwise", "--repo", "ann/san")
    assert done.code == 4
    assert "2 of 3 networks are not here: san15-pairwise, san19-pairwise" in done.stderr
    assert weights.is_downloaded("san10-pairwise")
    assert "san10-pairwise is here already" in san("download-weights", "all", "--repo", "ann/san").stderr
    monkeypatch.setattr(constants, "ENDPOINT", "http://nowhere.invalid")
    stopped = san("download-weights", "all", "--repo", "ann/san")
    assert stopped.code == 4
    assert stopped.stderr.count("Error:") == 1  # no connection: the other networks are not asked for


def test_the_authors_release_on_google_drive_is_the_default(san, host, authors_file, monkeypatch):
    identity = PUBLISHED["san10-pairwise"].drive_id
    real = requests.Session.get

    def here(session, url, **options):
        return real(session, url.replace("https://drive.google.com", host.address), **options)

    monkeypatch.setattr(requests.Session, "get", here)
    host.files[f"/drive/{identity}"] = authors_file.read_bytes()
    host.faults[f"/drive/{identity}"] = ["quota"]
    refused = san("download-weights", "san10-pairwise")
    assert refused.code == 4
    assert "quota" in refused.stderr
    done = san("download-weights", "san10-pairwise")
    assert done.code == 0, done.stderr
    assert "is here already" in san("download-weights", "san10-pairwise").stderr
    pinned = dataclasses.replace(PUBLISHED["san10-pairwise"], sha256="0" * 64)
    monkeypatch.setitem(PUBLISHED, "san10-pairwise", pinned)
    host.files[f"/drive/{identity}"] = b"other bytes"
    forced = san("download-weights", "san10-pairwise", "--force")
    assert forced.code == 4
    assert "another file than the one that this version of sancli knows" in forced.stderr
    assert weights.is_downloaded("san10-pairwise")


def test_offline_says_the_exact_file_and_address(san, cache):
    done = san("download-weights", "san15", "--offline")
    assert done.code == 4
    assert str(cache / "weights" / "san15-patchwise.safetensors") in done.stderr
    assert PUBLISHED["san15-patchwise"].drive_id in done.stderr
    assert "san download-weights san15-patchwise --from model_best.pth" in done.stderr
    assert not cache.exists()


def test_all_offline_is_one_list_and_one_error(san, cache):
    done = san("download-weights", "all", "--offline")
    assert done.code == 4
    assert all(network.drive_id in done.stdout for network in PUBLISHED.values())
    assert "6 of 6 networks are not here" in done.stderr
    assert len(done.stdout.splitlines()) == 6
    assert len(done.stderr.splitlines()) <= 6


def test_a_network_without_its_attention_is_the_patchwise_one_here_too(san, cache):
    done = san("eval", "--model", "san15")
    assert done.code == 4
    assert "san download-weights san15-patchwise" in done.stderr


def test_a_checkpoint_that_lacks_one_tensor_is_not_said_to_have_other_sizes(san, authors_file, tmp_path):
    content = torch.load(authors_file, weights_only=True)
    del content["state_dict"]["module.bn0.weight"]
    torch.save(content, tmp_path / "lacking.pth")
    done = san("download-weights", "san10-pairwise", "--from", tmp_path / "lacking.pth")
    assert done.code == 4
    assert "bn0.weight" in done.stderr
    assert "other sizes" not in done.stderr


def test_a_dry_run_names_source_and_target_or_checks_the_file_and_writes_nothing(san, authors_file, cache):
    done = san("download-weights", "all", "--dry-run")
    assert done.code == 0
    for name, network in PUBLISHED.items():
        assert str(cache / "weights" / f"{name}.safetensors") in done.stderr
        assert network.drive_id in done.stderr
    assert done.stderr.splitlines()[-1] == "Next: san download-weights all"
    checked = san("download-weights", "san10-pairwise", "--from", authors_file, "--dry-run", "--json")
    assert checked.code == 0
    sha256 = hashlib.sha256(authors_file.read_bytes()).hexdigest()
    assert (json.loads(checked.stdout)["sha256"], json.loads(checked.stdout)["written"]) == (sha256, False)
    command = f"Next: san download-weights san10-pairwise --from {authors_file}"
    assert checked.stderr.splitlines()[-1] == command
    assert "is san10-pairwise" in checked.stderr
    assert not cache.exists()


def test_a_place_that_cannot_be_written_is_6(san, host, authors_file, tmp_path):
    (tmp_path / "file").write_text("")
    for source in (authors_file, host.url("/model_best.pth")):
        done = san("download-weights", "san10-pairwise", "--from", source, "--to", tmp_path / "file")
        assert done.code == 6
        assert "cannot be written" in done.stderr


def test_load_fetches_a_published_network_when_asked_alone(san, host, authors_file, monkeypatch):
    with pytest.raises(WeightsError, match="san download-weights san10-pairwise"):
        load("san10-pairwise")
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: pytest.fail("the network was touched"))
    assert san("download-weights", "san10-pairwise", "--from", authors_file).code == 0
    assert load("san10-pairwise", download=True).classes == imagenet_classes()
