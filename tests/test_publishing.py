"""`san export --push` through huggingface_hub itself, to a Hub on this machine."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import training
from filehost import TOKEN
from hub_server import hub_server
from huggingface_hub import constants
from small_run import CLASSES, PREPROCESSING, draw

from sancli import load, weights
from sancli.runs import ModelInfo, Run, open_model
from sancli.weights.fetching import retries
from sancli.weights.publishing import Publisher

PAUSES = retries.PAUSES
FILES = ["README.md", "model.json", "model.safetensors"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A run with a small network, and settings that reach nothing outside."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("SAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its storage speaks another protocol
    monkeypatch.setattr(retries, "PAUSES", (0, 0))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr("sancli.model.build", training.build)
    monkeypatch.chdir(tmp_path)
    described = ModelInfo(
        name="birds-001",
        classes=CLASSES,
        arch="san10",
        attention="patchwise",
        relation=None,
        preprocessing=PREPROCESSING,
        metrics={"top1": 0.5},
        data={"name": "birds", "path": "/home/ann/birds"},
    )
    Run(Path("runs/birds-001")).save_model(training.Micro(len(CLASSES)).eval().state_dict(), described)
    draw(tmp_path / "photo.png", "green")
    return tmp_path


@pytest.fixture
def hub(monkeypatch):
    with hub_server() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)  # HF_ENDPOINT is read at import
        template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


def test_what_was_pushed_is_downloaded_and_predicts_the_same(san, hub):
    done = san("export", "--push", "ann/birds", "--json")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["address"] == hub.url("/ann/birds")
    assert done.stderr.splitlines()[-1] == "Next: san download-weights ann/birds"
    assert sorted(hub.files_of("ann/birds")) == json.loads(done.stdout)["files"] == FILES
    assert {"batch", "store", "verify"} <= set(hub.steps)  # the weights went through LFS
    assert "san predict photo.jpg --model ann/birds" in hub.files_of("ann/birds")["README.md"].decode()
    assert [path.name for path in Path().iterdir() if "birds" in path.name] == []  # nothing is kept here
    assert san("download-weights", "ann/birds").code == 0
    assert load("ann/birds").predict("photo.png") == load("runs/birds-001").predict("photo.png")


def test_hf_endpoint_leads_to_another_hub_and_the_clients_own_words_stay_away(hub, place):
    """Both ways, in a new process: huggingface_hub reads it once."""
    script = (
        "import sys, sancli.model, training\n"
        "from sancli.cli import main\n"
        "sancli.model.build = training.build\n"
        "for arguments in (['export', '--push', 'ann/birds'], ['download-weights', 'ann/birds']):\n"
        "    sys.argv = ['san', *arguments]\n"
        "    try: main()\n"
        "    except SystemExit as ended: assert not ended.code\n"
    )
    places = os.pathsep.join([str(Path(__file__).parent), *sys.path])  # benchmarks/ has a training.py, too
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert hub.commits == ["birds-001, san10"]
    assert len(done.stderr.splitlines()) == 5 + 3, done.stderr
    assert open_model("ann/birds").info.classes == CLASSES


def test_the_folder_that_was_named_is_kept_and_pushed(san, hub):
    assert san("export", "--push", "ann/birds", "-o", "out").code == 0
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == hub.files_of("ann/birds")


def test_pushed_again_it_is_a_new_commit_beside_files_of_others(san, hub):
    san("export", "--push", "ann/birds")
    hub.files["/ann/birds/LICENSE"] = b"MIT"
    assert san("export", "--push", "ann/birds", "--license", "mit").code == 0
    assert len(hub.commits) == 2
    assert hub.steps.count("store") == 1  # the weights are there already
    assert hub.files_of("ann/birds")["LICENSE"] == b"MIT"
    assert b"license: mit" in hub.files_of("ann/birds")["README.md"]
    assert san("export", "--push", "ann/birds", "--license", "mit").code == 0
    assert len(hub.commits) == 2  # nothing has changed


@pytest.mark.parametrize(
    "edit", [lambda card: card, lambda card: card.replace("library_name: sancli", "library_name: timm")]
)
def test_figures_of_the_model_before_go_in_the_same_commit_where_its_card_is_ours(san, hub, edit):
    curves = Path("runs/birds-001/curves.png")
    curves.write_bytes(b"curves")
    san("export", "--push", "ann/birds")
    card = hub.files_of("ann/birds")["README.md"].decode()
    hub.files["/ann/birds/README.md"] = edit(card).encode()
    hub.files |= {"/ann/birds/photo.png": b"mine", "/ann/birds/confusion_matrix.png": b"not on the card"}
    curves.unlink()
    done = san("export", "--push", "ann/birds", "--json")
    ours = edit(card) == card
    assert json.loads(done.stdout)["removed"] == (["curves.png"] if ours else [])
    assert ("Removed there: curves.png" in done.stderr) == ours
    assert ("curves.png" in hub.files_of("ann/birds")) != ours
    assert {"photo.png", "confusion_matrix.png"} < set(hub.files_of("ann/birds"))
    assert len(hub.commits) == 2


def test_a_figure_goes_once_where_the_answer_to_the_commit_is_lost(san, hub):
    curves = Path("runs/birds-001/curves.png")
    curves.write_bytes(b"curves")
    san("export", "--push", "ann/birds")
    curves.unlink()
    hub.faults["commit"] = ["lost"]
    assert san("export", "--push", "ann/birds").code == 0
    assert sorted(hub.files_of("ann/birds")) == FILES


def test_a_figure_that_somebody_took_away_is_no_fault(san, hub):
    curves = Path("runs/birds-001/curves.png")
    curves.write_bytes(b"curves")
    san("export", "--push", "ann/birds")
    curves.unlink()
    del hub.files["/ann/birds/curves.png"]
    assert san("export", "--push", "ann/birds").code == 0
    assert sorted(hub.files_of("ann/birds")) == FILES


def test_a_private_repository_is_private_before_anything_is_in_it(san, hub):
    done = san("export", "--push", "ann/birds", "--private")
    assert done.code == 0, done.stderr
    assert hub.private is True
    assert san("export", "--push", "ann/birds", "--private", "--license", "mit").code == 0


def test_a_public_repository_gets_nothing_that_was_to_be_private(san, hub):
    hub.repositories.add("ann/birds")
    done = san("export", "--push", "ann/birds", "--private")
    assert done.code == 4
    assert "is public, and --private was given" in done.stderr
    assert hub.files_of("ann/birds") == {}
    assert "store" not in hub.steps


@pytest.mark.parametrize(
    ("step", "faults"),
    [
        ("create", ["500"]),
        ("create", ["cut"]),
        ("preupload", ["503"]),
        ("batch", ["500"]),
        ("store", ["500", "cut"]),
        ("verify", ["502"]),
        ("commit", ["500"]),
        ("commit", ["cut", "429"]),
        ("commit", ["lost"]),
    ],
)
def test_what_passes_by_itself_is_tried_again(san, hub, step, faults):
    hub.faults[step] = list(faults)
    done = san("export", "--push", "ann/birds")
    assert done.code == 0, done.stderr
    assert sorted(hub.files_of("ann/birds")) == FILES
    assert len(hub.commits) == 1
    assert not hub.faults[step]


@pytest.mark.parametrize(
    ("step", "fault", "says"),
    [
        ("create", "401", "does not accept the token (HTTP 401: so it is)"),
        ("create", "403", "may not write there (HTTP 403: so it is)"),
        ("create", "404", "there is no such owner or repository"),
        ("create", "page", "the Hub was not understood"),
        ("create", "500", "the Hub is out of order (HTTP 500: so it is), after"),
        ("create", "cut", "the Hub was not reached"),
        ("preupload", "403", "may not write there"),
        ("preupload", "404", "there is no such owner or repository"),
        ("store", "403", "may not write there"),
        ("store", "cut", "the Hub was not reached"),
        ("commit", "401", "does not accept the token"),
        ("commit", "500", "the Hub is out of order (HTTP 500: so it is), after"),
    ],
)
def test_what_the_hub_refuses_is_said_and_nothing_is_there_in_part(san, hub, step, fault, says):
    hub.faults[step] = [fault] * 40
    done = san("export", "--push", "ann/birds")
    assert done.code == 4
    assert says in done.stderr
    assert "ann/birds was not published." in done.stderr
    assert "Published" not in done.stderr
    assert len(done.stderr[done.stderr.index("Error:") :].splitlines()) <= 6
    assert TOKEN not in done.stderr
    assert hub.files_of("ann/birds") == {}


@pytest.mark.parametrize(
    ("step", "hurried"),
    [("create", True), ("preupload", True), ("store", True), ("commit", True), ("commit", False)],
)
def test_a_hub_that_stays_out_of_order_is_given_up_after_half_a_minute(san, hub, monkeypatch, step, hurried):
    slept, monotonic = [], time.monotonic
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + sum(slept))
    monkeypatch.setattr(retries, "PAUSES", PAUSES)
    hub.faults[step], hub.hurried = ["500"] * 40, hurried
    done = san("export", "--push", "ann/birds")
    assert done.code == 4
    assert 10 < sum(slept) < 35
    assert re.search(r"\(HTTP 500: so it is\), after (1|2|3)\d s of trying", done.stderr), done.stderr
    assert hub.steps.count(step) >= 5


def test_a_namespace_of_others_is_refused_in_the_hubs_words(san, hub):
    done = san("export", "--push", "bob/birds")
    assert done.code == 4
    assert "You don't have the rights to create a model under this namespace" in done.stderr


def test_a_wrong_token_is_told_from_a_missing_one(san, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert "does not accept the token" in san("export", "--push", "ann/birds").stderr
    asked = len(hub.tokens)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "nothing")
    done = san("export", "--push", "ann/birds")
    assert done.code == 4
    assert "there is no token" in done.stderr
    assert "hf auth login" in done.stderr
    assert len(hub.tokens) == asked


def test_the_token_of_the_clients_own_store_is_taken(san, hub, monkeypatch, place):
    monkeypatch.delenv("HF_TOKEN")
    (place / "token").write_text(TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(place / "token"))
    assert san("export", "--push", "ann/birds").code == 0
    assert TOKEN not in repr(Publisher.ready("ann/birds", private=False))


def test_offline_and_without_push_the_network_is_not_touched(san, hub, monkeypatch):
    assert san("export", "--format", "hub").code == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = san("export", "--push", "ann/birds")
    assert done.code == 4
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert not hub.tokens


def test_no_connection_is_said(san, monkeypatch):
    for endpoint, says in (
        ("http://127.0.0.1:9", "the connection is refused"),
        ("http://nowhere.invalid", "its host was not found"),
    ):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        done = san("export", "--push", "ann/birds")
        assert done.code == 4
        assert says in done.stderr


def test_a_model_that_is_not_there_is_an_error_before_the_hub_is_asked(san, hub):
    assert san("export", "--model", "nothing", "--push", "ann/birds").code == 4
    assert not hub.tokens
    assert not weights.cached_repositories()
