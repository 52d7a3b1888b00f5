"""Gates by hand: intervals within, beyond and across a limit; losses as differences; limits a person may set."""

import math

import pytest

from razor.errors import InputError
from razor.gates import FAIL, OPEN, PASS, judge, lost, overall, usual, verdicts, with_limits
from razor.metrics import Evaluation, Measure, share
from razor.robustness import Finding


def of(hits, n):
    return share([True] * hits + [False] * (n - hits))


def answers(forget, retain, near=None):
    return Evaluation(forget, forget, retain, near, None, None)


@pytest.mark.parametrize(
    "hits, n, said",
    [(0, 96, PASS), (1, 96, PASS), (5, 96, OPEN), (30, 96, FAIL), (0, 4, OPEN), (4, 4, OPEN), (0, 20, OPEN)],
)
def test_a_gate_is_passed_when_its_whole_interval_is_within_the_limit(hits, n, said):
    assert judge(of(hits, n), 0.10) == said


def test_nothing_to_count_is_inconclusive():
    assert judge(Measure(math.nan, 96, 0.0, 1.0), 0.5) == OPEN


def test_a_loss_has_newcombes_interval():
    # Newcombe 1998, method 10, example (a): 56/70 - 48/80 = 0.2, 95 % interval 0.0524 to 0.3339
    found = lost(of(56, 70), of(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=2e-4)
    same = lost(of(50, 50), of(50, 50))
    assert same.value == 0 and same.low < 0 < same.high


def test_verdicts_rest_on_the_evidence_of_their_gate():
    gates = usual(1 / 20)
    before, after = answers(of(96, 96), of(598, 600), of(48, 48)), answers(of(0, 96), of(596, 600), of(47, 48))
    findings = [
        Finding("quantise", "8 bits", of(0, 96), of(1, 96), of(96, 96)),
        Finding("relearn", "5 pictures, 5 steps", of(0, 96), of(90, 96), of(96, 96)),
    ]
    found = {v.gate.key: v for v in verdicts(gates, before, after, findings)}
    assert list(found) == [gate.key for gate in gates]
    said = {key: v.said for key, v in found.items()}
    assert said["forget"] == said["retain"] == said["quantise/8 bits"] == PASS
    assert said["relearn/5 pictures, 5 steps"] == FAIL
    assert said["quantise/4 bits"] == OPEN and found["quantise/4 bits"].why == "There is nothing to count here."
    assert found["forget"].why == (
        "0.0 % of its pictures still recognised (n = 96, 95 % interval 0.0 to 3.8 %); the limit is 10 %."
    )
    assert "points of other answers lost (n = 600, " in found["retain"].why
    assert overall(list(found.values())) == FAIL


def test_a_task_without_neighbours_has_no_verdict_on_them():
    found = verdicts(usual(0.05), answers(of(9, 9), of(9, 9)), answers(of(0, 9), of(9, 9)), [])
    assert next(v for v in found if v.gate.key == "neighbours").said == OPEN


def test_overall_is_the_worst():
    gates = usual(0.05)[:2]
    good = verdicts(gates, answers(of(96, 96), of(600, 600)), answers(of(0, 96), of(600, 600)), [])
    assert overall(good) == PASS and overall([]) == OPEN
    few = verdicts(gates, answers(of(4, 4), of(600, 600)), answers(of(0, 4), of(600, 600)), [])
    assert overall(few) == OPEN


def test_gates_name_the_attack_they_need():
    assert {gate.attack for gate in usual(0.05)} == {"", "quantise", "benign", "relearn"}


def test_limits_are_set_by_key_and_the_usual_ones_allow_little_more_than_guessing():
    gates = usual(1 / 12)
    assert gates[0].limit == pytest.approx(1 / 6) and usual(0.01)[0].limit == 0.10
    assert usual(0.25)[0].limit == pytest.approx(0.35) and usual(0.05)[-1].limit == 0.50
    assert with_limits(gates, {"retain": 0.05})[1].limit == 0.05
    assert with_limits(gates, {}) == gates


@pytest.mark.parametrize("chance", [1 / 2, 1 / 3, 1 / 4, 1 / 20])
def test_a_model_that_forgot_nothing_fails_however_few_classes_there_are_and_one_that_guesses_can_pass(chance):
    known, many = answers(of(92, 96), of(600, 600)), 2000
    findings = [
        Finding(gate.attack, gate.key.partition("/")[2], known.forget_accuracy, of(92, 96), of(92, 96))
        for gate in usual(chance)
        if gate.attack
    ]
    said = {v.gate.key: v.said for v in verdicts(usual(chance), known, known, findings)}
    assert said.pop("retain") == PASS and said.pop("neighbours") == OPEN and set(said.values()) == {FAIL}
    assert all(judge(of(round(chance * many), many), g.limit) == PASS for g in usual(chance) if "lost" not in g.about)


@pytest.mark.parametrize("limit", [-0.1, 1.1, None, True, "a", math.nan])
def test_an_impossible_limit_is_one_sentence(limit):
    with pytest.raises(InputError, match=r"^The limit of 'Is the rest kept\?' is .*; it must be from 0 to 100 %\.$"):
        with_limits(usual(0.05), {"retain": limit})
    with pytest.raises(InputError, match=r"^There is no gate 'x'; there are "):
        with_limits(usual(0.05), {"x": 0.1})
