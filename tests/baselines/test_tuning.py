"""The one rule, the one budget and the one account: worked out by hand on numbers that need no model."""

import math
from types import SimpleNamespace

import pytest
import torch

from razor.baselines import tuning as module
from razor.baselines.tuning import DRAWN, KEPT, Budget, Diverged, OutOfTime, Stopped, Tuning, preference, worth_drawing
from razor.errors import InputError, ModelError
from razor.metrics import Evaluation, Measure
from razor.patches import Patch
from razor.units import Slice

TARGET = 0.05


def answers(forget, retain, sure=0.0):
    """An evaluation of which only these numbers matter."""
    measure = lambda value: Measure(value, 100, 0.0, 1.0)  # noqa: E731
    return Evaluation(measure(forget), measure(sure), measure(retain), None, None, None)


class Bench:
    """Confirms what it is told to; carries nothing beneath."""

    beneath, task = Patch(), None

    def __init__(self, confirmed=()):
        self.confirmed = list(confirmed)

    def confirm(self, stop):
        found = self.confirmed.pop(0) if self.confirmed else True
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def tuned(monkeypatch):
    """(forget, retain) pairs -> a tuning that measured them in this order, one setting each."""

    def start(measured, *, bench=None, **options):
        found = iter([answers(*pair) for pair in measured])
        monkeypatch.setattr(module, "evaluate", lambda *_: next(found))
        adapter = SimpleNamespace(model=torch.nn.Linear(1, 1, bias=False).requires_grad_(False))
        tuning = Tuning(adapter, bench or Bench(), options.pop("budget", Budget()), TARGET, **options)
        for setting in tuning.settings([{"number": i} for i in range(len(measured))]):
            tuning.check(setting, change(1.0 + setting["number"]))
        return tuning

    return start


def change(by):
    return Patch({Slice("weight"): torch.tensor([[by]])})


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    "measured, chosen",
    [
        ([(0.0, 0.90), (0.04, 0.95), (0.06, 0.99)], 1),  # of those at the target, the one that retains most
        ([(0.05, 0.90), (0.0, 0.80)], 0),  # at the target is met
        ([(0.5, 0.99), (0.2, 0.10), (0.3, 0.90)], 1),  # none meets it: the one that forgets most
        ([(0.02, 0.9), (0.01, 0.9)], 1),  # as much retained: the one that forgets more
        ([(0.2, 0.7), (0.2, 0.8)], 1),  # as much forgotten: the one that retains more
        ([(0.02, 0.9), (0.02, 0.9)], 0),  # equal: the first
    ],
)
def test_the_setting_that_retains_most_at_the_target_is_chosen_else_the_one_that_forgets_most(tuned, measured, chosen):
    trial, patch, reached = tuned(measured).choose()
    assert trial.setting == {"number": chosen}
    assert patch.deltas[Slice("weight")].item() == 1.0 + chosen
    assert reached == (measured[chosen][0] <= TARGET)


def test_the_order_of_many_settings_is_the_rule_applied_again_and_again():
    pairs = [(0.0, 0.5), (0.3, 1.0), (0.05, 0.9), (0.06, 0.9), (0.01, 0.9)]
    order = sorted(range(5), key=lambda i: preference(answers(*pairs[i]), TARGET))
    assert order == [4, 2, 0, 3, 1]


def test_only_the_best_edits_are_kept(tuned):
    tuning = tuned([(0.0, 0.1 * i) for i in range(8)])
    assert list(tuning._best) == [7, 6, 5][:KEPT] and len(tuning.trials) == 8


def test_a_setting_a_closer_look_turns_down_gives_way_to_the_next_one(tuned):
    tuning = tuned([(0.0, 0.90), (0.0, 0.95), (0.0, 0.92)], bench=Bench([False, True]))
    trial, _, reached = tuning.choose()
    assert trial.setting == {"number": 2} and reached
    assert [t.note for t in tuning.trials] == ["", "a closer look still finds the concept", ""]


def test_where_no_setting_stands_up_to_it_the_one_that_forgets_most_is_reported_as_not_there(tuned):
    trial, _, reached = tuned([(0.03, 0.9), (0.01, 0.8)], bench=Bench([False, False])).choose()
    assert trial.setting == {"number": 1} and not reached


@pytest.mark.parametrize("sees, chosen", [([True, False, False], 1), ([False] * 3, 0), ([True] * 3, None)])
def test_short_of_the_target_the_judge_looks_at_pictures_from_the_edit_that_retains_most_on(tuned, sees, chosen):
    """0 retains most, 1 less, 2 least; what remains of the concept falls in the same order."""
    bench = Bench([not seen for seen in sees])
    bench.judge, bench.measure = "looks at pictures", 0.1
    tuning = tuned([(1.0, 0.9, 0.8), (1.0, 0.8, 0.6), (1.0, 0.7, 0.5), (1.0, 0.6, 0.9)], bench=bench)
    trial, patch, reached = tuning.choose()
    if all(sees):
        assert not reached and trial.evaluation.forget_accuracy.value == 1.0
        return
    assert reached and trial.setting == {"number": chosen} and patch.deltas[Slice("weight")].item() == 1.0 + chosen
    assert trial.note == "pictures show nothing of the concept, though predictions lean to it"
    assert bench.measure == 0.1  # what counts as forgotten is the same for the next


def test_where_nobody_looks_at_pictures_an_edit_short_of_the_target_is_never_there(tuned):
    assert not tuned([(1.0, 0.9, 0.8)], bench=Bench([True])).choose()[2]


def test_edits_that_another_beats_are_not_drawn_and_of_the_rest_so_many():
    found = {
        i: answers(1.0, retain, left)
        for i, (left, retain) in enumerate([(0.5, 0.9), (0.6, 0.9), (0.4, 0.8), (0.5, 0.9)])
    }
    assert worth_drawing(found) == [2, 0, 3]  # 1 has more left than 0 and retains no more
    many = {i: answers(1.0, 0.01 * i, 0.01 * i) for i in range(30)}
    assert worth_drawing(many) == list(range(DRAWN))


def test_a_setting_that_draws_nan_counts_as_diverged(tuned):
    tuning = tuned([(0.03, 0.9)], bench=Bench([ModelError("The pictures came out as NaN.")]))
    assert tuning.choose() == (None, Patch(), False)
    assert tuning.trials[0].note == "diverged: The pictures came out as NaN."


# ---------------------------------------------------------------- divergence


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_edit_that_is_not_finite_is_noted_and_never_measured(tuned, bad):
    tuning = tuned([])
    assert tuning.check({"rate": 1}, change(bad)) is None
    assert tuning.trials[0].note == "diverged: its weights are not finite" and tuning.trials[0].evaluation is None
    assert tuning.choose() == (None, Patch(), False)


def test_answers_that_are_nan_are_noted_and_never_chosen(tuned):
    tuning = tuned([(0.0, 1.0, math.nan), (0.9, 0.5)])
    assert tuning.trials[0].note == "diverged: its answers are not finite"
    assert tuning.choose()[0].setting == {"number": 1}


def test_a_loss_that_is_nan_is_a_divergence_and_the_model_is_as_found(tuned):
    tuning = tuned([])
    weight = tuning.adapter.model.weight
    before = weight.clone()
    with pytest.raises(Diverged):
        tuning.gradient(["weight"], lambda: (weight * math.nan).sum(), change(1.0))
    assert torch.equal(weight, before) and not weight.requires_grad and weight.grad is None


# ---------------------------------------------------------------- the account


def test_what_all_settings_share_counts_for_each_of_them_and_evaluations_for_none(tuned, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    tuning = tuned([])

    def slow(*_):
        clock[0] += 100
        return answers(0.0, 1.0)

    monkeypatch.setattr(module, "evaluate", slow)
    weight = tuning.adapter.model.weight
    loss = lambda: weight.square().sum()  # noqa: E731
    tuning.gradient(["weight"], loss)
    clock[0] += 5  # before the first setting
    for setting in tuning.settings([{"n": 1}, {"n": 2}]):
        for _ in range(setting["n"]):
            tuning.gradient(["weight"], loss)
            clock[0] += 2
        tuning.check(setting, change(1.0))
    assert [t.passes for t in tuning.trials] == [1 + 1, 1 + 2] and tuning.passes == 4
    assert [t.seconds for t in tuning.trials] == [5 + 2, 5 + 4]


def test_progress_goes_from_nothing_to_everything(tuned):
    seen = []
    tuned([(0.0, 1.0)] * 4, progress=seen.append)
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_gradient_is_taken_at_the_patched_weights(tuned):
    tuning = tuned([])
    weight = tuning.adapter.model.weight
    start = weight.item()
    grads = tuning.gradient(["weight"], lambda: weight.square().sum(), change(3.0))
    assert grads["weight"].item() == pytest.approx(2 * (start + 3.0)) and weight.item() == start


def test_batches_follow_from_seed_and_key(tuned):
    first, same, other = (tuned([], seed=seed).draw(100, 9, "points/3").tolist() for seed in (0, 0, 1))
    assert first == same != other and len(set(first)) == 9
    assert sorted(tuned([]).draw(4, 9, "points/3").tolist()) == [0, 1, 2, 3]


# ---------------------------------------------------------------- ending early


def test_stopping_ends_between_two_steps(tuned):
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        tuned([(0.0, 1.0)] * 3, stop=lambda: next(asked))


def test_time_used_up_ends_it_with_what_there_is(tuned, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    tuning = tuned([(0.0, 1.0)], budget=Budget(seconds=10))
    assert not tuning.over()
    clock[0] = 11
    assert tuning.over()
    with pytest.raises(OutOfTime):
        tuning.check({}, change(1.0))
    assert tuning.choose()[0].setting == {"number": 0}


@pytest.mark.parametrize(
    "steps, checks, measured", [(48, 6, [8, 16, 24, 32, 40, 48]), (10, 3, [3, 7, 10]), (2, 6, [1, 2]), (5, 1, [5])]
)
def test_a_training_is_measured_evenly_and_at_its_end(steps, checks, measured):
    assert sorted(Budget(steps, checks).measured) == measured


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1.5}, {"checks": True}, {"seconds": 0.0}])
def test_a_budget_of_nothing_is_one_sentence(wrong):
    with pytest.raises(InputError, match=rf"^{next(iter(wrong))} is .*; "):
        Budget(**wrong)
