"""The figures, against cases worked out by hand and against torchmetrics."""

import math

import pytest
import torch

from sancli.engine import metrics


@pytest.fixture(scope="module")
def theirs():
    """Imported by the process that runs these tests alone: it takes five seconds."""
    from torchmetrics.functional import classification

    return classification


# 4 of class 0, 3 of class 1, 1 of class 2; class 3 has no image and is predicted once
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
PREDICTIONS = torch.tensor([0, 0, 0, 1, 1, 1, 3, 0])


def logits_of(predictions, num_classes, margin=2.0):
    return margin * torch.nn.functional.one_hot(predictions, num_classes).float()


def random_case(seed, images=200, num_classes=7):
    rand = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, num_classes, generator=rand)
    return logits, torch.randint(num_classes, (images,), generator=rand)


def test_the_figures_of_a_case_worked_by_hand():
    figures = metrics.summary(logits_of(PREDICTIONS, 4), LABELS)
    assert figures["top1"] == pytest.approx(5 / 8)
    assert figures["balanced"] == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)  # class 3 has no image
    assert figures["macro_f1"] == pytest.approx((3 / 4 + 2 / 3 + 0 + 0) / 4)  # class 3 was predicted
    confidence = math.exp(2) / (math.exp(2) + 3)
    assert figures["loss"] == pytest.approx(-math.log(confidence) + 3 / 8 * 2)
    assert figures["ece"] == pytest.approx(abs(confidence - 5 / 8))  # all answers are equally sure
    assert list(figures) == ["loss", "top1", "balanced", "macro_f1", "ece"]


def test_the_confusion_matrix_has_the_truth_in_its_rows():
    matrix = metrics.confusion(PREDICTIONS, LABELS, 4)
    assert matrix.tolist() == [[3, 1, 0, 0], [0, 2, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_the_confusion_matrix_is_that_of_torchmetrics(theirs):
    logits, labels = random_case(5)
    expected = theirs.multiclass_confusion_matrix(logits, labels, 7)
    assert torch.equal(metrics.confusion(logits.argmax(1), labels, 7), expected)


def test_precision_recall_and_f1_are_those_of_torchmetrics(theirs):
    logits, labels = random_case(0)
    table = metrics.per_class(metrics.confusion(logits.argmax(1), labels, 7), metrics.support_of(labels, 7))
    for ours, function in (
        (table.precision, theirs.multiclass_precision),
        (table.recall, theirs.multiclass_recall),
        (table.f1, theirs.multiclass_f1_score),
    ):
        torch.testing.assert_close(ours.float(), function(logits, labels, 7, average="none"))
    assert table.support.tolist() == labels.bincount(minlength=7).tolist()


def test_macro_f1_and_balanced_are_those_of_torchmetrics_where_every_class_has_images(theirs):
    logits, labels = random_case(1)
    figures = metrics.summary(logits, labels)
    assert figures["macro_f1"] == pytest.approx(
        float(theirs.multiclass_f1_score(logits, labels, 7, average="macro"))
    )
    assert figures["balanced"] == pytest.approx(
        float(theirs.multiclass_recall(logits, labels, 7, average="macro"))
    )


@pytest.mark.parametrize(("num_classes", "has_top5"), [(2, False), (5, False), (6, True)])
def test_top5_is_left_out_with_five_classes_or_fewer(num_classes, has_top5):
    logits, labels = random_case(2, num_classes=num_classes)
    assert ("top5" in metrics.summary(logits, labels)) == has_top5


def test_top5_counts_the_label_among_the_five_highest():
    logits = torch.arange(8.0).repeat(4, 1)  # class 7 first, then 6, 5, 4, 3
    assert metrics.summary(logits, torch.tensor([7, 3, 2, 0]))["top5"] == 0.5


def test_half_precision_logits_are_measured_as_floats():
    logits, labels = random_case(3)
    rounded = logits.bfloat16()
    assert metrics.summary(rounded, labels) == metrics.summary(rounded.float(), labels)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(right, total, low, high):
    assert metrics.wilson(right, total) == pytest.approx((low, high), abs=5e-5)


def test_the_most_confused_pairs_come_first_and_right_answers_never():
    matrix = torch.tensor([[9, 1, 0], [4, 9, 0], [1, 0, 9]])
    assert metrics.most_confused(matrix) == [(1, 0, 4), (0, 1, 1), (2, 0, 1)]
    assert metrics.most_confused(torch.eye(3, dtype=torch.long)) == []


def test_the_bins_of_confidence_give_the_calibration_error_of_torchmetrics(theirs):
    logits, labels = random_case(4)
    expected = theirs.multiclass_calibration_error(logits, labels, 7, n_bins=metrics.BINS)
    assert metrics.summary(logits, labels)["ece"] == pytest.approx(float(expected), abs=1e-6)
    assert sum(one.count for one in metrics.reliability(logits.softmax(1), labels)) == len(labels)


def test_a_confidence_of_exactly_one_falls_into_the_last_bin():
    bins = metrics.reliability(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    assert bins == [metrics.Bin(low=14 / 15, high=1.0, count=2, confidence=1.0, accuracy=0.5)]


def test_an_image_without_an_answer_is_never_right_and_belongs_to_its_class():
    logits = torch.tensor([[0.0, 0.0], [2.0, 1.0], [0.0, 3.0]])
    labels = torch.tensor([0, 0, 1])
    figures = metrics.summary(logits, labels)
    assert figures["top1"] == pytest.approx(2 / 3)
    assert figures["balanced"] == pytest.approx((1 / 2 + 1) / 2)
    assert metrics.answers(logits).tolist() == [-1, 0, 1]
    assert metrics.confusion(metrics.answers(logits), labels, 2).tolist() == [[1, 0], [0, 1]]
