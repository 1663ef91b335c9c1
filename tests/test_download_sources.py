"""The Hugging Face Hub and Google Drive, played by a server on this machine, through their own clients."""

import json
import resource
from pathlib import Path

import huggingface_hub
import pytest
import requests
import torch
from filehost import COMMIT, TOKEN, file_host
from huggingface_hub import constants
from small_run import CLASSES, draw, few_blocks, prepared_folder, trained_run  # noqa: F401 -- a fixture

from sancli import load, weights
from sancli.errors import StorageError, WeightsError
from sancli.tasks.downloading.arrival import bring
from sancli.weights.fetching import drive, hub, retries
from sancli.weights.fetching.partial import Partial
from sancli.weights.fetching.retries import Unreachable

CONTENT = bytes(range(256)) * 8000


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A model of ours, as `san train` leaves it."""
    root = tmp_path_factory.mktemp("place")
    return trained_run(root / "runs" / "colours-001", prepared_folder(root / "data" / "colours")).weights


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")
    monkeypatch.setattr(retries, "PAUSES", (0, 0))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def host(monkeypatch):
    with file_host() as host:
        monkeypatch.setattr(constants, "ENDPOINT", host.address)  # HF_ENDPOINT is read at import
        template = f"{host.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        real = requests.Session.get

        def here(session, url, **options):
            for place in ("https://drive.google.com", "https://drive.usercontent.google.com"):
                url = url.replace(place, host.address)
            return real(session, url, **options)

        monkeypatch.setattr(requests.Session, "get", here)
        yield host


def test_the_server_is_what_the_hubs_own_client_expects(host, tmp_path):
    host.files["/ann/birds/model.safetensors"] = CONTENT
    got = huggingface_hub.hf_hub_download(
        "ann/birds", "model.safetensors", endpoint=host.address, local_dir=tmp_path / "hub"
    )
    assert Path(got).read_bytes() == CONTENT


def test_a_repository_has_the_addresses_sizes_and_hashes_of_its_files(host):
    host.files |= {"/ann/birds/model.safetensors": CONTENT, "/ann/birds/README.md": b"# Birds"}
    found = hub.open_repository("ann/birds", None)
    assert (found.commit, found.weights()) == (COMMIT, ["model.safetensors"])
    remote = found.files["model.safetensors"]
    assert (remote.size, remote.url) == (
        len(CONTENT),
        host.url(f"/ann/birds/resolve/{COMMIT}/model.safetensors"),
    )


@pytest.mark.parametrize(
    ("name", "revision", "faults", "says"),
    [
        ("ann/bees", None, [], "there is none of that name, or it is private"),
        ("ann/birds", "v9", [], "it has no revision v9"),
        ("ann/birds", None, ["500"] * 9, "the Hub answers with HTTP 500"),
        ("ann/birds", None, ["403"], "the Hub answers with HTTP 403"),
        ("ann/birds", None, ["not-json"], "the Hub was not understood"),
    ],
)
def test_what_the_hub_refuses_is_told_apart_in_words(host, name, revision, faults, says):
    host.files["/ann/birds/model.safetensors"] = CONTENT
    host.faults["/api"] = list(faults)
    with pytest.raises(WeightsError, match=says):
        hub.open_repository(name, revision)


def test_a_hub_that_is_not_there_is_said_and_one_that_hiccups_is_asked_again(host, monkeypatch):
    host.files["/ann/birds/model.safetensors"] = CONTENT
    host.faults["/api"] = ["503"]
    assert hub.open_repository("ann/birds", None).files
    monkeypatch.setattr(constants, "ENDPOINT", "no address")
    with pytest.raises(WeightsError, match="check"):
        hub.open_repository("ann/birds", None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "retrying", lambda ask: ask())  # neither of the two is tried again
    with pytest.raises(Unreachable, match="the connection is refused"):
        hub.open_repository("ann/birds", None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://nowhere.invalid")
    with pytest.raises(Unreachable, match="its host was not found"):
        hub.open_repository("ann/birds", None)


def test_a_private_repository_opens_with_a_token_that_no_other_host_sees(host, monkeypatch, tmp_path):
    host.files["/ann/birds/model.safetensors"], host.private = CONTENT, True
    with pytest.raises(WeightsError, match="HF_TOKEN"):
        hub.open_repository("ann/birds", None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    partial = Partial.of(tmp_path / "w.safetensors")
    remote = hub.open_repository("ann/birds", None).files["model.safetensors"]
    bring(remote, partial)
    assert partial.path.read_bytes() == CONTENT
    assert TOKEN not in repr(remote)
    assert ("/ann/birds/model.safetensors", None) in host.tokens  # the host that the Hub redirects to


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        ({"san10-pairwise.safetensors", "san10-patchwise.safetensors"}, "san10-patchwise.safetensors"),
        ({"weights/san10-patchwise.pth", "other.pth"}, "weights/san10-patchwise.pth"),
        ({"model_best.pth", "README.md"}, "model_best.pth"),
        ({"model.safetensors", "last.pth"}, "model.safetensors"),
        ({"san10-patchwise.pth", "san10-patchwise.safetensors"}, "san10-patchwise.safetensors"),
        ({"anything.pth"}, "anything.pth"),
    ],
)
def test_the_fitting_file_of_a_repository_is_taken(host, files, taken):
    host.files |= {f"/ann/san/{name}": name.encode() for name in files}
    found = hub.chosen(
        hub.open_repository("ann/san", None), ("san10-patchwise", "model.safetensors", "model_best")
    )
    assert found.label == f"ann/san: {taken}"


@pytest.mark.parametrize(
    ("files", "says"),
    [({"a.pth", "b.pth"}, "several files"), ({"README.md"}, "none of its files holds weights")],
)
def test_where_no_file_fits_those_that_are_there_are_named(host, files, says):
    host.files |= {f"/ann/san/{name}": b"" for name in files}
    with pytest.raises(WeightsError, match=rf"{says}.*{min(files)}"):
        hub.chosen(hub.open_repository("ann/san", None), ("san10-patchwise",))


def test_a_model_of_the_hub_is_opened_by_its_name_and_the_network_touched_when_asked_alone(
    host, model_file, tmp_path
):
    host.files["/ann/birds/model.safetensors"] = model_file.read_bytes()
    with pytest.raises(
        WeightsError, match=r"san download-weights ann/birds; in Python: load\(..., download=True\)"
    ):
        load("ann/birds")
    assert not host.tokens
    photo = draw(tmp_path / "photo.png", "green")
    assert load("ann/birds", download=True).predict(photo)[0][0] == "green"
    asked = len(host.tokens)
    assert load("ann/birds", download=True).classes == load("ann/birds").classes == CLASSES
    assert len(host.tokens) == asked


def test_a_model_of_the_hub_is_one_command_and_then_a_name(host, san, model_file, tmp_path):
    host.files["/ann/birds/model.safetensors"] = model_file.read_bytes()
    host.faults["/ann/birds/model.safetensors"] = ["cut", "wrong"]
    done = san("download-weights", "ann/birds", "--json")
    assert done.code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["written"] is True
    record = json.loads(weights.cached_repository("ann/birds").with_suffix(".json").read_text())
    assert record["classes"] == list(CLASSES)
    assert record["download"]["sha256"] == said["sha256"]
    assert san("download-weights", "ann/birds").stderr.count("ann/birds is here already") == 1
    refused = san("download-weights", "ann/birds", "--revision", COMMIT)
    assert refused.code == 2
    assert "--force" in refused.stderr
    assert "ann/birds" in san("download-weights", "list").stderr
    photo = draw(tmp_path / "photo.png", "red")
    assert "red" in san("predict", photo, "--model", "ann/birds").stdout


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (CONTENT, "Error: ann/birds: model.safetensors "),
        (b"", "ann/birds: model.safetensors holds no usable weights"),
        (None, "ann/birds holds no model of san"),
    ],
)
def test_what_is_no_model_of_ours_is_refused_by_its_name_and_nothing_stays(host, san, content, says):
    host.files["/ann/birds/README.md"] = b"# Birds"
    if content is not None:
        host.files["/ann/birds/model.safetensors"] = content
    done = san("download-weights", "ann/birds")
    assert done.code == 4
    assert says in done.stderr
    folder = weights.cached_repository("ann/birds").parent
    assert [path.name for path in folder.iterdir()] == [".ann--birds.lock"]


def test_weights_that_do_not_describe_themselves_are_no_model(host, san, model_file, tmp_path):
    import safetensors.torch

    host.files["/ann/birds/model.safetensors"] = safetensors.torch.save({"a": torch.zeros(3)})
    done = san("download-weights", "ann/birds")
    assert done.code == 4
    assert "it does not say what it is" in done.stderr


def test_offline_and_dry_run_touch_no_network(host, san):
    for option, code, says in (("--offline", 4, "--offline forbids"), ("--dry-run", 0, "Would fetch")):
        done = san("download-weights", "ann/birds", option)
        assert done.code == code
        assert says in done.stderr
        assert "https://huggingface.co/ann/birds" in done.stderr
    assert not host.tokens


def from_drive(partial):
    drive.fetch_from_drive("abc", partial, label="san10 from Google Drive", name="san10")


@pytest.mark.parametrize("faults", [[], ["confirm"], ["cut"], ["confirm", "cut", "cut"]], ids=str)
def test_a_file_on_google_drive_comes_through_gdown(host, tmp_path, capfd, faults):
    host.files["/drive/abc"], host.faults["/drive/abc"] = CONTENT, list(faults)
    partial = Partial.of(tmp_path / "w.safetensors")
    from_drive(partial)
    assert partial.path.read_bytes() == CONTENT
    assert "From" not in capfd.readouterr().err  # gdown says nothing on our screen
    asked = len(host.asked)
    from_drive(partial)  # it is whole: the disk was full when it was to be kept
    assert len(host.asked) == asked


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        (["quota"], "quota for this file is used up"),
        (["page"], "Google Drive gave a page in place of the file"),
        (["404"], "Google Drive gave a page"),
        (["503"], "HTTP 503|Google Drive gave"),
    ],
)
def test_what_google_drive_gives_in_place_of_the_file_is_said_with_the_way_round(
    host, tmp_path, faults, says
):
    host.files["/drive/abc"], host.faults["/drive/abc"] = CONTENT, list(faults)
    with pytest.raises(WeightsError, match=says) as raised:
        from_drive(Partial.of(tmp_path / "w.safetensors"))
    assert "https://drive.google.com/file/d/abc/view with a browser" in str(raised.value)
    assert "san download-weights san10 --from model_best.pth" in str(raised.value)


def test_what_gdown_kept_is_gone_on_with(host, tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "PAUSES", ())
    host.files["/drive/abc"], host.faults["/drive/abc"] = CONTENT, ["cut"]
    partial = Partial.of(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="are kept in"):
        from_drive(partial)
    from_drive(partial)
    assert partial.path.read_bytes() == CONTENT
    assert any(status == 206 for _, _, status in host.asked)


def test_a_disk_that_fills_up_while_gdown_writes_is_an_error_of_storage(host, tmp_path):
    host.files["/drive/abc"] = CONTENT
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(StorageError, match="no space to write"):
            from_drive(Partial.of(tmp_path / "w.safetensors"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_connection_to_google_drive_is_said(host, tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "PAUSES", ())
    host.address = "http://127.0.0.1:9"
    with pytest.raises(WeightsError, match="nothing answers at its address"):
        from_drive(Partial.of(tmp_path / "w.safetensors"))
