"""Gates by hand: intervals within, beyond and across a limit; losses as differences; limits a person may set."""

import math
from dataclasses import replace

import pytest

from razor.errors import InputError
from razor.gates import (
    FAIL,
    OPEN,
    PASS,
    judge,
    least,
    limits_from,
    lost,
    overall,
    strictest,
    usual,
    verdicts,
    with_limits,
)
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
    found = lost(of(56, 70), of(48, 80))  # not the same cases
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=2e-4)
    same = lost(of(50, 50), of(50, 50))
    assert same.value == 0 and same.low < 0 < same.high


def test_a_loss_over_the_same_cases_counts_those_that_changed():
    # Of 100, 10 lost and 5 won. By hand: Wilson 0.0552 to 0.1744 and 0.0215 to 0.1118, r = -sqrt(.1 .05 / (.9 .95))
    before, after = share([1] * 85 + [0] * 15), share([1] * 75 + [0] * 10 + [1] * 5 + [0] * 10)
    r = -math.sqrt(0.1 * 0.05 / (0.9 * 0.95))
    a, b = 0.1 - 0.05523, 0.11175 - 0.05
    c, d = 0.17437 - 0.1, 0.05 - 0.02154
    found = lost(before, after)
    assert (found.value, found.n) == (pytest.approx(0.05), 100)
    assert found.low == pytest.approx(0.05 - math.sqrt(a * a - 2 * r * a * b + b * b), abs=1e-4)
    assert found.high == pytest.approx(0.05 + math.sqrt(c * c - 2 * r * c * d + d * d), abs=1e-4)


def test_nothing_lost_is_narrower_over_the_same_cases_and_never_of_no_width():
    kept = of(80, 96)
    unknown = Measure.from_json(kept.to_json())
    assert "hits" not in kept.to_json() and unknown.hits == b""
    assert lost(kept, kept).high == pytest.approx(of(0, 96).high)
    assert lost(kept, kept).high < lost(unknown, unknown).high / 2
    assert lost(kept, kept).low == pytest.approx(-of(0, 96).high)
    assert lost(of(96, 96), of(0, 96)).value == 1


@pytest.mark.parametrize("n", [5, 24, 83, 96, 600])
def test_the_strictest_limit_that_cases_can_pass_and_the_fewest_a_limit_takes_agree(n):
    assert judge(of(0, n), 1.001 * strictest(n)) == PASS and judge(of(0, n), 0.999 * strictest(n)) == OPEN
    for limit in (0.02, 0.10, 0.5):
        assert judge(of(0, max(5, least(limit))), limit) == PASS
        assert least(limit) == 1 or judge(of(0, least(limit) - 1), limit) == OPEN
    assert (least(0.10), least(0.02)) == (35, 189)


def test_it_is_said_why_a_gate_says_nothing():
    def why(forget, limit=0.10, missed=None):
        gates = [replace(usual(0.05)[0], limit=limit), usual(0.05)[-1]]
        retain = of(600, 600)
        found = verdicts(gates, answers(of(9, 9), retain), answers(forget, retain), [], missed or {})
        assert {v.said for v in found} == {OPEN}
        return [v.why for v in found]

    assert why(of(0, 0))[0] == "No pictures are held out for this."
    assert why(of(0, 4))[0].endswith("the limit is 10 %; of fewer than 5 cases nothing is said.")
    assert why(of(0, 24))[0].endswith(
        "the limit is 10 %; so few cases can pass no limit under 13.8 %, and this one takes 35 of them."
    )
    assert why(of(5, 96))[0].endswith("; it is too near the limit for so many cases to say.")
    key = "relearn/5 pictures, 5 steps"
    assert why(of(0, 24))[1] == "Not tried."
    assert why(of(0, 24), missed={"relearn": "Out of memory."})[1] == "Not tried: Out of memory."
    assert why(of(0, 24), missed={key: "Too few pictures."})[1] == "Not tried: Too few pictures."


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
    assert said["quantise/4 bits"] == OPEN and found["quantise/4 bits"].why == "Not tried."
    assert found["forget"].why == (
        "0.0 % of its pictures still recognised (n = 96, 95 % interval 0.0 to 3.8 %); the limit is 10 %."
    )
    assert "points of other answers lost (n = 600, " in found["retain"].why
    assert overall(list(found.values())) == FAIL


def test_limits_are_typed_in_percent():
    typed = ["forget=10", "relearn/5 pictures, 5 steps = 62.5 %", "forget=5"]
    assert limits_from(typed) == {"forget": 0.05, "relearn/5 pictures, 5 steps": 0.625}
    for text in ("forget", "10", "forget=", "forget=ten", "forget=nan", "forget=1.2.3"):
        with pytest.raises(
            InputError, match=rf"^'{text}' is no limit of a gate; write KEY=PERCENT, such as forget=10\.$"
        ):
            limits_from([text])
    with pytest.raises(InputError, match="is -5 %; it must be above 0"):
        with_limits(usual(0.05), limits_from(["forget=-5"]))


def test_a_task_without_neighbours_has_no_verdict_on_them():
    found = verdicts(usual(0.05), answers(of(9, 9), of(9, 9)), answers(of(0, 9), of(9, 9)), [])
    near = next(v for v in found if v.gate.key == "neighbours")
    assert (near.said, near.why) == (OPEN, "No pictures are held out for this.")


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


@pytest.mark.parametrize("limit", [-0.1, 0, 0.0, 1.1, None, True, "a", math.nan])
def test_an_impossible_limit_is_one_sentence(limit):
    with pytest.raises(
        InputError, match=r"^The limit of 'Is the rest kept\?' is .*; it must be above 0 and at most 100 %, as "
    ):
        with_limits(usual(0.05), {"retain": limit})
    with pytest.raises(InputError, match=r"^There is no gate 'x'; there are "):
        with_limits(usual(0.05), {"x": 0.1})
