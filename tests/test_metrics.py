"""Shares with Wilson intervals and paired stability, against values worked out by hand."""

import math

import pytest
import torch

from razor.adapters.answering import divergence
from razor.metrics import Evaluation, Measure, kernel_distance, mean, share, stability


# n = 10, z^2 = 3.841459: centre (p + z^2/2n) / (1 + z^2/n), half-width z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)
@pytest.mark.parametrize(
    "hits, n, low, high",
    [(0, 10, 0.0, 0.277533), (5, 10, 0.236593, 0.763407), (10, 10, 0.722467, 1.0), (1, 1, 0.206549, 1.0)],
)
def test_share_has_the_wilson_interval(hits, n, low, high):
    measure = share([True] * hits + [False] * (n - hits))
    assert (measure.value, measure.n) == (hits / n, n)
    assert (measure.low, measure.high) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize("n", [1, 3, 7, 50, 997])
def test_interval_holds_its_value_and_stays_in_range(n):
    for hits in {0, 1, n // 2, n}:
        measure = share(torch.arange(n) < hits)
        assert 0 <= measure.low <= measure.value <= measure.high <= 1


def test_share_of_nothing_is_nan_with_the_widest_interval():
    measure = share([])
    assert math.isnan(measure.value) and (measure.n, measure.low, measure.high) == (0, 0.0, 1.0)


def test_mean_has_the_normal_interval():
    measure = mean(torch.tensor([0.2, 0.4, 0.6, 0.8]))  # standard deviation sqrt(0.2 / 3), over sqrt(4)
    half = 1.959964 * math.sqrt(0.2 / 3) / 2
    assert (measure.value, measure.low, measure.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=1e-6)


@pytest.mark.parametrize("values", [[0.3], [0.0, 0.0], [1.0, 1.0, 0.9], [0.0, 1.0]])
def test_interval_of_a_mean_holds_its_value_and_stays_in_range(values):
    measure = mean(torch.tensor(values))
    assert 0 <= measure.low <= measure.value <= measure.high <= 1 and measure.n == len(values)
    assert math.isnan(mean(torch.tensor([])).value)


def test_stability_is_recall_after_over_recall_before():
    before = torch.tensor([True] * 80 + [False] * 20)
    after = torch.tensor([True] * 60 + [False] * 40)
    measure = stability(before, after)
    assert (measure.value, measure.n) == (0.75, 100)
    assert 0.6 < measure.low < 0.75 < measure.high < 0.9


def test_unchanged_recall_is_one_and_as_sure_as_the_queries_are_many():
    # By hand: 8 of 8 found ones stay found, from 8 / (8 + z^2); of 2 missed ones at most z^2 / (2 + z^2) are found now,
    # each worth 1 / 8
    found = torch.arange(10) < 8
    same = stability(found, found)
    assert (same.value, same.n) == (1.0, 10)
    assert (same.low, same.high) == pytest.approx((8 / 11.841459, 1 + 2 * (3.841459 / 5.841459) / 8))
    all_found = torch.ones(50) > 0
    assert stability(all_found, all_found) == Measure(1.0, 50, pytest.approx(50 / 53.841459), 1.0)


def test_recall_that_is_all_gone_is_as_sure_as_the_queries_are_many():
    gone = stability(torch.ones(10) > 0, torch.zeros(10) > 0)
    assert (gone.value, gone.low, gone.high) == pytest.approx((0, 0, 0.277533), abs=1e-5)


def test_recall_that_changed_has_the_interval_of_its_paired_draws():
    # All 100 were found, 75 still are: every draw of 100 gives a share of it, whose deviation is sqrt(.75 .25 / 100)
    found = stability(torch.ones(100) > 0, torch.arange(100) < 75)
    half = 1.959964 * math.sqrt(0.75 * 0.25 / 100)
    assert (found.low, found.high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.015)


def test_values_that_are_all_alike_have_the_interval_of_a_share():
    # z^2 / (n + z^2) of the highest value for zeros; 2 of 4 is the share 0.5 of 4: 0.1500 to 0.8500
    assert mean(torch.zeros(96)).high == pytest.approx(3.841459 / 99.841459)
    assert mean(torch.ones(96)).low == pytest.approx(96 / 99.841459) and mean(torch.ones(96)).high == 1
    half = mean(torch.full((4,), 2.0), highest=4)
    assert (half.value, half.low, half.high) == pytest.approx((2, 4 * 0.15004, 4 * 0.84996), abs=1e-4)
    unbounded = mean(torch.zeros(96), highest=math.inf)
    assert (unbounded.low, unbounded.high) == (0, 0)


def test_drift_on_neutral_questions_by_hand():
    # KL of the unedited (1/2, 1/2) from (1/4, 3/4) now: ln(2) / 2 + ln(2/3) / 2 nats; of equal ones nothing
    now, frozen = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log(), torch.full((2, 2), 0.5).log()
    assert divergence(now, frozen).tolist() == pytest.approx([math.log(4 / 3) / 2, 0.0], abs=1e-6)


def test_kernel_distance_by_hand():
    # One number each, d = 1: (1 + 1)^3 + (4 + 1)^3 - 2 (2 + 1)^3 = 8 + 125 - 54
    assert kernel_distance(torch.tensor([[1.0]]), torch.tensor([[2.0]])) == pytest.approx(79)
    # Two to a side, d = 2, all at right angles or alike: means of ((1/2 + 1)^3, 1, 1, 27/8) twice, less those across
    eye = torch.eye(2)
    assert kernel_distance(eye, eye) == 0
    assert kernel_distance(eye, torch.zeros(2, 2)) == pytest.approx((3.375 + 1) / 2 + 1 - 2)


@pytest.mark.parametrize("kept", [0, 1, 5, 19])
def test_stability_interval_holds_its_value(kept):
    measure = stability(torch.arange(20) < 10, torch.arange(20) < kept)
    assert measure.low <= measure.value <= measure.high


@pytest.mark.parametrize("before", [torch.zeros(0), torch.zeros(5)])
def test_stability_without_recall_before_is_nan(before):
    assert math.isnan(stability(before > 0, before > 0).value)


def test_stability_is_the_same_every_time():
    before, after = torch.arange(30) % 2 > 0, torch.arange(30) % 3 > 0
    assert stability(before, after) == stability(before, after)
    assert stability(before, after, seed=1) != stability(before, after)


def test_evaluation_as_json_rounds_and_keeps_none():
    half = Measure(0.5, 2, 0.0945312, 0.9054688)
    evaluation = Evaluation(
        forget_accuracy=half,
        forget_probability=half,
        retain_accuracy=half,
        neighbor_accuracy=None,
        cross_accuracy=None,
        retrieval_stability=half,
        association=-0.25,
        by_neighbor={"dog": half},
    )
    found = evaluation.to_json()
    assert Evaluation.from_json(found).association == -0.25
    assert Evaluation.from_json(found).to_json() == found
    assert found["forget_accuracy"] == {"value": 0.5, "n": 2, "low": 0.09453, "high": 0.90547}
    assert found["neighbor_accuracy"] is None and found["cross_accuracy"] is None
