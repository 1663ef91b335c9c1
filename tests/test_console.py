import io
import json
import re

import pytest

from sancli import console


def test_results_go_to_stdout_and_words_about_the_work_to_stderr(capsys):
    console.say("working")
    console.result("forest 97 %")
    assert capsys.readouterr() == ("forest 97 %\n", "working\n")


def test_with_json_stdout_holds_one_object_and_nothing_else(capsys):
    console.settings.json = True
    console.result("forest 97 %")
    console.say("working")
    console.emit({"label": "forest"})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"label": "forest"}
    assert err == "forest 97 %\nworking\n"


def test_quiet_keeps_results_warnings_and_errors(capsys):
    console.settings.quiet = True
    console.say("working")
    console.warn("odd")
    console.error("bad")
    console.result("forest")
    assert capsys.readouterr() == ("forest\n", "Warning: odd\nbad\n")


def test_markup_and_escapes_in_names_are_shown_as_they_are(capsys):
    console.say("[red]\x1b[31m.jpg")
    console.result(console.table(["name"], [["[red]\x1b.jpg"]]))
    out, err = capsys.readouterr()
    assert err == "[red]\\x1b[31m.jpg\n"
    assert "[red]\\x1b.jpg" in out


def test_a_log_file_gets_a_line_for_each_tenth_and_no_bar(capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_INTERVAL", 0)
    assert list(console.track(range(50), "Reading", total=50, unit="images")) == list(range(50))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("Reading 50/50 ")


def test_the_time_left_is_of_the_items_and_not_of_what_was_started_before_them(capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_INTERVAL", 0)
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress("Reading", total=10, unit="files") as bar:
        for seconds in (10, 1, 1, 1):  # ten until the first
            now[0] += seconds
            bar.advance()
    left = [line.partition(", ")[2] for line in capsys.readouterr().err.splitlines()]
    assert left == ["90 s left", "8.0 s left", "7.0 s left", "6.0 s left"]


def test_a_bar_leaves_room_for_the_sign_of_an_interruption(monkeypatch):
    screen = console.Console(file=io.StringIO(), force_terminal=True, width=60, height=10)
    monkeypatch.setattr(console, "people", screen)
    with console.progress("training", total=2, unit="image") as bar:
        bar.advance()
        bar.rich_bar.refresh()
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.file.getvalue()).replace("\r", "\n").splitlines()
    assert 40 < max(map(len, lines)) <= 60 - len("^C")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2.34, "2.3 s"), (45, "45 s"), (720, "12 min"), (3900, "1 h 05 min"), (3599, "1 h 00 min")],
)
def test_a_duration_is_said_in_words(seconds, words):
    assert console.duration(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(512, "512 B"), (3_600_000, "3.4 MiB"), (2**31, "2.0 GiB")])
def test_a_size_is_said_in_words(count, words):
    assert console.size(count) == words


def test_what_keeps_busy_turns_on_a_terminal_alone(capsys, monkeypatch):
    with console.busy("compiling"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(console, "people", console.Console(file=io.StringIO(), force_terminal=True))
    with console.progress("training", total=2, unit="image") as bar, console.busy("compiling"):
        bar.advance()  # beside a bar too it does no harm
    with console.busy("compiling"):
        pass
    assert "compiling" in console.people.file.getvalue()


def test_a_log_gets_a_line_a_tenth_with_the_rate_and_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_INTERVAL", 0)
    with console.progress("Reading", total=20, unit="files") as bar:
        for _ in range(20):
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert re.fullmatch(r"Reading 2/20 [\d.]+ files/s, [\d.]+ s left", lines[0])
    assert re.fullmatch(r"Reading 20/20 [\d.]+ files/s", lines[-1])
