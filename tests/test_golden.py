"""The networks give the numbers of the authors' own code, in float64."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))

import check  # noqa: E402

FILE = GOLDEN / "san_reference.npz"

pytestmark = pytest.mark.usefixtures("implementation")


@pytest.fixture(scope="module")
def expected():
    with np.load(FILE) as file:
        return check.cases(file)


@pytest.mark.parametrize(
    "case",
    [
        "san15:patchwise:150x150:2:eval",
        "san19:pairwise:128x128:1:eval",
        "san10:patchwise:128x128:2:train",
        "san10:pairwise:128x128:2:train",
        pytest.param("san15:pairwise:128x160:1:eval", marks=pytest.mark.slow),
        pytest.param("san19:patchwise:128x128:1:eval", marks=pytest.mark.slow),
        pytest.param("san10:patchwise:224x224:1:eval", marks=pytest.mark.slow),
        pytest.param("san10:pairwise:224x224:1:eval", marks=pytest.mark.slow),
    ],
)
def test_our_numbers_are_the_authors(case, expected):
    assert check.differences(case, expected[case]) == []


@pytest.mark.parametrize(
    "name", ["logits", "loss", "grad_probes", "grad_norms", "running_var_norms", "image_grad"]
)
def test_a_number_that_is_off_is_found(name, expected, monkeypatch):
    """With our own numbers taken from the file, one of them moved a little."""
    case = "san10:patchwise:128x128:2:train"
    got = {key: torch.from_numpy(value) for key, value in expected[case].items() if key != "grad_names"}
    monkeypatch.setattr(
        check, "run", lambda case: got | {"grad_names": expected[case]["grad_names"].tolist()}
    )
    assert check.differences(case, expected[case]) == []
    largest = np.unravel_index(np.abs(expected[case][name]).argmax(), expected[case][name].shape)
    moved = expected[case][name].copy()
    moved[largest] *= 1 + 1e-5
    (line,) = check.differences(case, expected[case] | {name: moved})
    assert name in line
    assert "expected" in line
    assert "allowed" in line


def test_the_program_exits_with_1_and_says_what_differs(tmp_path, capsys):
    case = "san10:patchwise:32x32:2:eval"
    np.savez(tmp_path / "wrong.npz", **{f"{case}/logits": np.zeros((2, 1000))})
    assert check.main(tmp_path / "wrong.npz") == 1
    assert f"{case} logits[0, 0]: got " in capsys.readouterr().out
