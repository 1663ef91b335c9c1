import json

import pytest

from sancli.errors import DataError, UsageError, check_choice, closest, command, folded, printable


def test_a_user_error_says_what_why_and_fix():
    error = DataError("no images in x.", why="looked there.", fix="add some.")
    assert str(error) == "Error: no images in x.\n  why: looked there.\n  fix: add some."
    assert error.exit_code == 3


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("caf\u00e9.jpg", "caf\u00e9.jpg"),
        ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        ("\udcff.jpg", r"\udcff.jpg"),
        ("a\u202egpj", r"a\u202egpj"),  # writes backwards
    ],
)
def test_a_hostile_name_is_shown_on_one_line(name, shown):
    assert printable(name) == shown


def test_a_hostile_name_in_an_error_cannot_reach_the_terminal():
    assert "\x1b" not in str(DataError("\x1b[2J", why="\x07", fix="\x00"))


@pytest.mark.parametrize(
    ("typed", "meant"), [("san51", "san15"), ("SAN10", "san10"), ("resnet5", "resnet50"), ("sann19", "san19")]
)
def test_a_typo_gets_did_you_mean(typed, meant):
    known = ("san10", "san15", "san19", "resnet26", "resnet38", "resnet50")
    assert closest(typed, known) == f"did you mean {meant}?"
    with pytest.raises(UsageError, match=f"did you mean {meant}"):
        check_choice("--arch", typed, known)


def test_a_word_that_is_like_nothing_gets_the_whole_list():
    assert closest("zzz", ("cat", "dog")) == "use one of: cat, dog."
    assert closest("flat", ("auto", "csv")) == "use one of: auto, csv."  # two letters in common are few


def test_a_long_why_is_folded_and_ends():
    error = DataError("no.", why=folded(", ".join(map(str, range(500)))), fix="yes.")
    lines = str(error).splitlines()
    assert (len(lines), lines[1][:12], lines[4][-4:]) == (6, "  why: 0, 1,", " ...")
    assert max(map(len, lines)) <= 100
    assert folded("a\x1b") == "a\\x1b"


def test_a_command_to_paste_is_quoted_where_a_shell_would_take_it_apart(san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my scenes" / "cat").mkdir(parents=True)
    assert san("train", "my scenes").stderr.rstrip().endswith("fix: san prepare 'my scenes'")
    assert command("san", "train", "--resume-from", "runs/a-001") == "san train --resume-from runs/a-001"


def test_with_json_an_error_is_the_one_object(san):
    outcome = san("eval", "--model", "nope", "--json")
    told = json.loads(outcome.stdout)
    assert told["exit_code"] == outcome.code == 4
    assert told["error"]["what"] == "there is no model nope."
    assert set(told["error"]) == {"what", "why", "fix"}
