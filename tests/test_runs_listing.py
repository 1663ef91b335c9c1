"""`san runs`: what was trained here, newest first."""

import json
import os
import re

from sancli.data.preprocessing import Preprocessing
from sancli.files import locked, write_json
from sancli.runs import ModelInfo, Run


def make_run(folder, *, age, **changes):
    known = {
        "name": folder.name,
        "classes": ("a", "b"),
        "arch": "san10",
        "attention": "patchwise",
        "relation": None,
        "preprocessing": Preprocessing(image_size=96),
        "metrics": {"top1": 0.8125},
        "epoch": 7,
        "data": {"name": "scenes"},
    }
    folder.mkdir(parents=True)
    write_json(Run(folder).info, ModelInfo(**known | changes).to_dict())
    os.utime(Run(folder).info, (1.7e9 - age, 1.7e9 - age))
    return Run(folder)


def test_runs_are_listed_with_their_figures_newest_first(san, tmp_path):
    make_run(tmp_path / "old-001", age=100, arch="resnet26")
    stopped = make_run(tmp_path / "new-001", age=10, finished=False)
    stopped.metrics.write_text("epoch,val_top1\n" + "".join(f"{epoch},0.5\n" for epoch in range(1, 10)))
    outcome = san("runs", "--runs-dir", tmp_path)
    assert outcome.code == 0
    first, second = outcome.stdout.splitlines()[1:]
    for expected in ("new-001", "san10 patchwise", "81.2 %", "9, stopped"):
        assert expected in first
    for expected in ("old-001", "resnet26 ", " 7 "):
        assert expected in second
    assert outcome.stderr.splitlines()[-1] == f"Next: san eval --model {tmp_path / 'new-001'}"


def test_a_line_fits_into_80_columns(san, tmp_path):
    run = make_run(tmp_path / "intel-scenes-san15-001", age=0, arch="san15", finished=False, epoch=45)
    os.utime(run.info)
    assert max(map(len, san("runs", "--runs-dir", tmp_path).stdout.splitlines())) <= 80


def test_a_run_that_goes_on_is_told_from_one_that_stopped(san, tmp_path):
    run = make_run(tmp_path / "a-001", age=0, finished=False)
    with locked(run.folder):
        assert "7, training" in san("runs", "--runs-dir", tmp_path).stdout
    assert "7, stopped" in san("runs", "--runs-dir", tmp_path).stdout


def test_dates_tell_the_hour_within_a_year_and_the_year_after_it(san, tmp_path):
    os.utime(make_run(tmp_path / "new-001", age=0).info)
    make_run(tmp_path / "old-001", age=0)
    new, old = san("runs", "--runs-dir", tmp_path).stdout.splitlines()[1:]
    assert re.search(r"\d\d [A-Z][a-z]{2} \d\d:\d\d$", new)
    assert re.search(r"1[45] Nov 2023 *$", old)


def test_runs_as_json(san, tmp_path):
    make_run(tmp_path / "a-001", age=0)
    (one,) = json.loads(san("runs", "--runs-dir", tmp_path, "--json").stdout)["runs"]
    assert one["folder"] == str(tmp_path / "a-001")
    assert (one["metrics"], one["best_epoch"], one["state"]) == ({"top1": 0.8125}, 7, "finished")


def test_a_damaged_run_is_named_and_hides_no_other(san, tmp_path):
    make_run(tmp_path / "good-001", age=10)
    make_run(tmp_path / "bad-001", age=0).info.write_text("{")
    outcome = san("runs", "--runs-dir", tmp_path)
    assert outcome.code == 0
    assert "damaged" in outcome.stdout
    assert "good-001" in outcome.stdout


def test_no_runs_is_no_fault(san, tmp_path):
    outcome = san("runs", "--runs-dir", tmp_path / "none")
    assert outcome.code == 0
    assert outcome.stdout == ""
    assert outcome.stderr.splitlines()[-1] == "Next: san prepare PATH"
    assert json.loads(san("runs", "--runs-dir", tmp_path / "none", "--json").stdout) == {"runs": []}


def test_a_run_that_stopped_before_its_first_model_is_listed_with_the_way_on(san, tmp_path):
    make_run(tmp_path / "a-001", age=9)
    (tmp_path / "my run-001").mkdir()
    (tmp_path / "my run-001" / "last.ckpt").write_bytes(b"x")
    outcome = san("runs", "--runs-dir", tmp_path)
    assert re.search(r"my run-001 .*0, stopped", outcome.stdout)
    assert outcome.stderr.rstrip().endswith(f"san train --resume-from '{tmp_path}/my run-001'")
    assert san("runs", "--runs-dir", tmp_path, "--json").code == 0
