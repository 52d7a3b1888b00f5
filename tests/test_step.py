"""The fused step against numbers worked out by hand, on a model of two weights and a bench that says what it likes."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from razor.adapters.base import GLANCE
from razor.config import RazorConfig
from razor.errors import ModelError, Stopped
from razor.metrics import Evaluation, Measure
from razor.patches import Patch
from razor.step import GLANCE_FROM, Goal, take_steps
from razor.units import Slice, Unit

UNIT = Unit("image.0.head.0", "head", "image", 0, 0, (Slice("weight"),))


def found(forget, retain=1.0, neighbour=None, *, cross=None, sure=None, right=None, stable=None):
    """An evaluation with these values; `sure`, the probability of the forgotten class, defaults to its accuracy."""
    sure = forget if sure is None else sure
    one = lambda value: None if value is None else Measure(value, 100, 0.0, 1.0)  # noqa: E731
    return Evaluation(
        forget_accuracy=one(forget),
        forget_probability=one(sure),
        retain_accuracy=one(retain),
        neighbor_accuracy=one(neighbour),
        cross_accuracy=one(cross),
        retrieval_stability=one(1.0),
        retain_probability=one(right),
        prediction_stability=one(stable),
    )


class Bench:
    """Losses linear in the weights, with these gradients; metrics as a function of the weights."""

    retain_weight, measure, slow_towers = 1.0, 0.0, ()

    def __init__(self, model, g_f=(0.0, 7.0), g_k=(0.5, 0.0), metrics=lambda w: found(1 - w[1])):
        self.model, self.g_f, self.g_k, self.metrics = model, torch.tensor(g_f), torch.tensor(g_k), metrics
        self.batches, self.beneath = [], Patch()

    def step_terms(self, step, edited):
        self.batches.append(step)
        return {"forget": lambda: self.model.weight[0] @ self.g_f, "keep": lambda: self.model.weight[0] @ self.g_k}

    def evaluate(self, split, edited, *_):
        assert split == "search"
        return self.metrics(self.model.weight[0].tolist())

    def confirm(self, stop=None):
        return True

    def relent(self, stop=None):
        return False


@pytest.fixture
def model():
    """theta = (3, 0)."""
    model = nn.Linear(2, 1, bias=False).requires_grad_(False)
    model.weight.copy_(torch.tensor([[3.0, 0.0]]))
    return model


def steps(model, bench, start=None, goal=None, stop=lambda: False, first_batch=0, **settings):
    adapter = SimpleNamespace(
        model=model, tower_of=lambda name: "image", towers={"image": ""}, units=lambda kinds, towers: []
    )
    goal = goal or Goal(0.0, 1.0, found(1.0))
    config = RazorConfig(**settings)
    return take_steps(adapter, bench, [UNIT], start or Patch(), goal, config, first_batch=first_batch, stop=stop)


def delta(result):
    return result.patch.deltas[Slice("weight")][0].tolist()


def test_steps_go_on_while_closer_inspection_does_not_bear_out_the_target(model):
    class Doubting(Bench):
        looks = 0

        def confirm(self, stop=None):  # the first look finds something left, and measures more strictly from then on
            self.looks += 1
            if self.looks == 1:
                self.metrics = lambda w: found(0.0 if w[1] > 0.5 else 0.5)
            return self.looks > 1

    bench = Doubting(model, g_k=(0.0, 0.0), metrics=lambda w: found(0.0 if w[1] > 0.2 else 1.0))
    result = steps(model, bench, inner_steps=8, step_size=0.1)
    assert bench.looks == 2
    assert delta(result)[1] > 0.5 and result.evaluation.forget_accuracy.value == 0.0


def test_a_point_that_was_borne_out_goes_before_a_better_one_that_was_not(model):
    class Doubting(Bench):
        looks = 0

        def confirm(self, stop=None):  # by the metrics nothing is left anywhere, and the first point costs less
            self.looks += 1
            return self.looks > 1

    bench = Doubting(model, g_k=(0.0, 0.0), metrics=lambda w: found(0.0, retain=1.0 - w[1] / 100))
    result = steps(model, bench, inner_steps=8, step_size=0.1)
    assert bench.looks == result.chosen == 2


@pytest.mark.parametrize("inner_steps", [1, 4])
def test_a_target_that_is_never_borne_out_is_not_met_in_the_end(model, inner_steps):
    class Doubting(Bench):
        looks = 0

        def confirm(self, stop=None):  # the fourth time it is strict enough to see what is left
            self.looks += 1
            if self.looks == inner_steps + 3:
                self.metrics = lambda w: found(0.4)
            return False

    bench = Doubting(model, g_k=(0.0, 0.0), metrics=lambda w: found(0.0 if w[1] > 0 else 1.0))
    result = steps(model, bench, inner_steps=inner_steps, step_size=0.1)
    assert result.chosen > 0 and result.evaluation.forget_accuracy.value == 0.4 and bench.looks == inner_steps + 3


@pytest.mark.parametrize("inner_steps", [1, 4])
def test_a_target_that_was_not_looked_at_to_the_end_is_not_met(model, inner_steps):
    class Stopping(Bench):
        def confirm(self, stop=None):
            raise Stopped("Stopped.")

    metrics = lambda w: found(0.0 if w[1] > 0 else 1.0)  # noqa: E731
    result = steps(model, Stopping(model, g_k=(0.0, 0.0), metrics=metrics), inner_steps=inner_steps, step_size=0.1)
    assert (result.patch.deltas, result.chosen, result.trials) == ({}, 0, ())
    assert result.evaluation.forget_accuracy.value == 1.0  # as it was, with nothing turned down


def test_where_closer_inspection_is_stopped_the_best_point_before_it_stays(model):
    class Stopping(Bench):
        def confirm(self, stop=None):
            raise Stopped("Stopped.")

    metrics = lambda w: found(0.0 if w[1] > 0.6 else 0.5 if w[1] > 0.2 else 1.0)  # noqa: E731
    result = steps(model, Stopping(model, g_k=(0.0, 0.0), metrics=metrics), inner_steps=8, step_size=0.1)
    assert result.evaluation.forget_accuracy.value == 0.5 and 0 < result.chosen < len(result.trials)


def test_a_search_that_ends_short_of_the_target_asks_for_a_closer_look(model):
    class Strict(Bench):
        looks = 0

        def relent(self, stop=None):
            self.looks += 1
            self.metrics = lambda w: found(0.0 if w[1] > 0.5 else 1.0)
            return True

    bench = Strict(model, g_k=(0.0, 0.0), metrics=lambda w: found(1.0 - w[1] / 9))
    result = steps(model, bench, inner_steps=4, step_size=0.1)
    assert bench.looks == 1 and result.chosen == 4 and result.evaluation.forget_accuracy.value == 0.0
    bench = Strict(model, g_k=(0.0, 0.0), metrics=lambda w: found(max(0.5, 1.0 - w[1] / 9)))
    result = steps(model, bench, inner_steps=1, step_size=0.1)
    assert bench.looks == 1 and result.evaluation.forget_accuracy.value == 0.0
    for bench in (Strict(model, metrics=lambda w: found(0.0)), Strict(model, metrics=lambda w: found(1.0))):
        steps(model, bench, inner_steps=2)
        assert bench.looks == 0  # the target was met, or no step was better than none


# ---------------------------------------------------------------- mending


def mended(model, metrics, stop=lambda: False, **settings):
    """A search whose first step meets the target: with s = 0.1 and |theta| = 3 it ends at 0.3 * (-0.6, 0.8)."""
    bench, goal = Bench(model, metrics=metrics), Goal(0.0, 1.0, found(1.0, right=1.0))
    settings = {"step_size": 0.1, "inner_steps": 4, "retain_weight": 0.75} | settings
    return bench, steps(model, bench, goal=goal, stop=stop, **settings)


def test_what_the_way_to_the_target_cost_is_mended_by_gentler_steps(model):
    # each step that follows, d = (-0.75, 0.3 * 1), goes further left and less far up than the first
    costly = lambda w: found(0.0 if w[1] > 0 else 1.0, right=1 - w[0] / 6)  # noqa: E731
    bench, result = mended(model, costly)
    assert (result.chosen, len(result.trials), bench.batches) == (7, 7, [1, 2, 3, 4, 5, 6, 7])
    x, y = -0.18, 0.24
    for _ in range(6):  # the weights' norm is that of the moment
        size = 0.1 * math.hypot(3 + x, y) / math.hypot(0.75, 0.3)
        x, y = x - 0.75 * size, y + 0.3 * size
    assert delta(result) == pytest.approx([x, y], rel=1e-5)
    assert [t.length for t in result.trials] == pytest.approx([0.1 * n for n in range(1, 8)])


def test_mending_forgets_in_full_where_the_target_is_lost(model):
    fragile = lambda w: found(0.0 if w[1] > 0.2 else 1.0, right=0.5 if w[0] > 2.7 else 1.0)  # noqa: E731

    class Relapsing(Bench):  # the first mending step loses the target, wherever it goes
        def evaluate(self, *args):
            now = super().evaluate(*args)
            return found(1.0, right=1.0) if len(self.batches) == 2 else now

    bench = Relapsing(model, metrics=fragile)
    result = steps(
        model, bench, goal=Goal(0.0, 1.0, found(1.0, right=1.0)), step_size=0.1, inner_steps=4, retain_weight=0.75
    )
    x, y = -0.18, 0.24
    for rho in (0.3, 1.0):
        size = 0.1 * math.hypot(3 + x, y) / math.hypot(0.75, rho)
        x, y = x - 0.75 * size, y + rho * size
    assert result.chosen == 3 and delta(result) == pytest.approx([x, y], rel=1e-5)


def test_a_step_that_cost_nothing_or_too_little_is_not_mended(model):
    for right in (None, 1.0, 0.95):  # a tenth of the budget would be 0.9
        _, result = mended(model, lambda w, right=right: found(0.0 if w[1] > 0 else 1.0, right=right))
        assert (result.chosen, len(result.trials)) == (1, 1)


def test_where_no_answer_has_a_probability_moved_predictions_are_what_was_lost(model):
    goal = Goal(0.0, 0.01, found(1.0))
    assert goal.lost(found(0.0, stable=0.97)) == pytest.approx(0.03) and goal.lost(found(0.0)) == 0
    answered = Goal(0.0, 0.01, found(1.0, right=0.9))
    assert answered.lost(found(0.0, right=0.8, stable=0.5)) == pytest.approx(0.1)
    costly = lambda w: found(0.0 if w[1] > 0 else 1.0, stable=w[0] / 6)  # noqa: E731
    _, result = mended(model, costly)
    assert (result.chosen, len(result.trials)) == (1, 4)  # further left predictions move more
    goal = Goal(0.0, 0.02, found(1.0))  # predictions may move by five budgets, and a tenth of that is mended
    assert not goal.worth_mending(found(0.0, stable=0.991)) and goal.worth_mending(found(0.0, stable=0.989))
    answered = Goal(0.0, 0.02, found(1.0, right=0.9))
    assert not answered.worth_mending(found(0.0, right=0.899)) and answered.worth_mending(found(0.0, right=0.897))
    assert replace(answered, mends=True).worth_mending(found(0.0, right=0.95))


def test_a_stopped_second_look_leaves_the_point_that_was_borne_out(model):
    class Stopping(Bench):
        looks = 0

        def confirm(self, stop=None):
            self.looks += 1
            if self.looks > 1:
                raise Stopped("Stopped.")
            return True

    costly = lambda w: found(0.0 if w[1] > 0 else 1.0, right=1 - w[0] / 6)  # noqa: E731
    bench, goal = Stopping(model, metrics=costly), Goal(0.0, 1.0, found(1.0, right=1.0))
    result = steps(model, bench, goal=goal, step_size=0.1, inner_steps=4, retain_weight=0.75)
    assert (result.chosen, bench.looks) == (1, 2) and delta(result) == pytest.approx([-0.18, 0.24])


def test_mending_that_helps_nothing_leaves_the_point_and_can_be_stopped(model):
    worse = lambda w: found(0.0 if w[1] > 0 else 1.0, right=0.5 if w[0] > 2.8 else 0.2)  # noqa: E731
    _, result = mended(model, worse)
    assert (result.chosen, len(result.trials)) == (1, 4) and delta(result) == pytest.approx([-0.18, 0.24])
    once = lambda w: found(0.0 if w[1] > 0 else 1.0, right=0.9 if 2.4 < w[0] < 2.8 else 0.2)  # noqa: E731
    _, result = mended(model, once)
    assert (result.chosen, len(result.trials)) == (2, 5)  # three steps in a row were no better
    asked = iter([False, False, False, True])
    costly = lambda w: found(0.0 if w[1] > 0 else 1.0, right=1 - w[0] / 6)  # noqa: E731
    _, result = mended(model, costly, stop=lambda: next(asked))
    assert result.chosen == 3


def test_mending_ends_where_numbers_grow_too_large_and_the_target_stays_met(model):
    def metrics(w):
        if w[0] < 2.7:
            raise ModelError("NaN")
        return found(0.0 if w[1] > 0 else 1.0, right=1 - w[0] / 6)

    _, result = mended(model, metrics)
    assert (result.chosen, len(result.trials)) == (1, 1) and delta(result) == pytest.approx([-0.18, 0.24])


def test_a_mended_point_that_is_not_borne_out_leaves_the_one_that_was_and_its_measure(model):
    class Doubting(Bench):
        looks, measure = 0, 2.0

        def confirm(self, stop=None):
            self.looks += 1
            self.measure += self.looks > 1
            return self.looks == 1

    costly = lambda w: found(0.0 if w[1] > 0 else 1.0, right=1 - w[0] / 6)  # noqa: E731
    bench, goal = Doubting(model, metrics=costly), Goal(0.0, 1.0, found(1.0, right=1.0))
    result = steps(model, bench, goal=goal, step_size=0.1, inner_steps=4, retain_weight=0.75)
    assert (result.chosen, len(result.trials), bench.looks, bench.measure) == (1, 7, 2, 2.0)
    assert delta(result) == pytest.approx([-0.18, 0.24])


# ---------------------------------------------------------------- glances


class Slow(Bench):
    """One whose whole search split takes long to measure; a glance may see something else."""

    slow_towers, task = ("image",), SimpleNamespace(retain=SimpleNamespace(search=range(GLANCE_FROM)))

    def __init__(self, model, metrics, glances=None):
        super().__init__(model, g_k=(0.0, 0.0), metrics=metrics)
        self.glances, self.looked = glances or metrics, []

    def evaluate(self, split, *_):
        self.looked.append("glance" if split == GLANCE else split)
        return (self.glances if split == GLANCE else self.metrics)(self.model.weight[0].tolist())


def test_far_from_the_target_a_glance_does_and_the_point_that_meets_it_is_measured(model):
    reach = lambda w: found(0.0 if w[1] > 0.9 else 1.0)  # noqa: E731
    bench, plain = Slow(model, reach), Bench(model, g_k=(0.0, 0.0), metrics=reach)
    result, same = (steps(model, b, inner_steps=50, step_size=0.1) for b in (bench, plain))
    glances = ["glance"] * (1 + len(result.trials))  # of the unedited model and after every step
    assert bench.looked == ["search", *glances, "search"]
    assert delta(result) == delta(same) and result.evaluation == same.evaluation


def test_a_small_split_or_a_quick_tower_is_measured_whole(model):
    far = lambda w: found(1.0)  # noqa: E731
    small, quick = Slow(model, far), Slow(model, far)
    small.task, quick.slow_towers = SimpleNamespace(retain=SimpleNamespace(search=range(GLANCE_FROM - 1))), ("text",)
    for bench in (small, quick):
        steps(model, bench, inner_steps=3)
        assert set(bench.looked) == {"search"}


def test_where_a_glance_sees_harm_the_whole_split_decides(model):
    slow, goal = lambda w: found(1 - w[1] / 100), Goal(0.0, 0.1, found(1.0))
    worried = lambda w: found(1 - w[1] / 100, retain=0.5 if w[1] else 1.0)  # noqa: E731
    bench = Slow(model, slow, worried)
    result = steps(model, bench, goal=goal, inner_steps=3, step_size=0.1)
    assert bench.looked == ["search", "glance", *["glance", "search"] * 3]
    assert [t.length for t in result.trials] == pytest.approx([0.1, 0.225, 0.38125]) and result.chosen == 3


def test_harm_that_glances_missed_is_not_laid_to_the_step_that_shows_it(model):
    harmed = lambda w: found(0.5, retain=0.5 if w[1] > 0.2 else 1.0)  # noqa: E731
    worried = lambda w: found(0.5, retain=0.5 if w[1] > 0.9 else 1.0)  # noqa: E731
    bench, goal = Slow(model, harmed, worried), Goal(0.0, 0.1, found(1.0))
    result = steps(model, bench, goal=goal, inner_steps=4, step_size=0.1)
    # the third step's glance breaks the budget; where it began, the whole split was broken already
    assert bench.looked[2:] == ["glance", "glance", "glance", "search", "search", "glance", "search"]
    assert [t.length for t in result.trials[:3]] == pytest.approx([0.1, 0.225, 0.38125])
    assert result.trials[3].length > result.trials[2].length  # so it was not taken back


def test_a_walk_that_ends_on_a_glance_is_measured(model):
    slow = lambda w: found(1 - w[1] / 100)  # noqa: E731
    for stop in (lambda: False, iter([False] * 3 + [True] * 9).__next__):
        bench = Slow(model, slow)
        result = steps(model, bench, inner_steps=3, stop=stop)
        assert bench.looked == ["search", *["glance"] * 4, "search"] and result.chosen == 3
        assert result.evaluation == slow([3.0, delta(result)[1]])


# ---------------------------------------------------------------- one step


def test_a_step_moves_along_forget_minus_retain_by_a_share_of_the_weights(model):
    # g_f/|g_f| = (0, 1), g_k/|g_k| = (1, 0), d = (-w, rho) = (-0.75, 1): d/|d| = (-0.6, 0.8); |theta| = 3, s = 0.1
    end = lambda w: found(0.0 if w[1] > 0 else 1.0)  # noqa: E731
    result = steps(model, Bench(model, metrics=end), step_size=0.1, inner_steps=2, retain_weight=0.75)
    assert delta(result) == pytest.approx([0.1 * 3 * -0.6, 0.1 * 3 * 0.8])
    assert (result.chosen, len(result.trials), result.trials[0].length) == (1, 1, 0.1)


def test_the_family_weighs_retention_where_the_settings_leave_it_open(model):
    bench = Bench(model, metrics=lambda w: found(0.0 if w[1] > 0 else 1.0))
    bench.retain_weight = 0.75
    assert delta(steps(model, bench, step_size=0.1, inner_steps=2)) == pytest.approx([0.3 * -0.6, 0.3 * 0.8])


def test_a_family_that_weighs_retention_heavily_does_so_by_what_was_lost(model):
    goal, metrics = Goal(0.0, 0.02, found(1.0, right=1.0)), lambda w: found(1 - w[1] / 9, right=0.99 if w[1] else 1.0)
    bench = Bench(model, metrics=metrics)
    bench.retain_weight = 3.0
    result = steps(model, bench, goal=goal, step_size=0.1, inner_steps=2)
    x, y = 0.0, 0.0
    for weight, s in ((1.0, 0.1), (2.0, 0.125)):  # nothing lost, then half the budget
        size = s * math.hypot(3 + x, y) / math.hypot(weight, 1)
        x, y = x - weight * size, y + size
    assert delta(result) == pytest.approx([x, y], rel=1e-5)
    said = steps(model, bench, goal=goal, step_size=0.1, inner_steps=2, retain_weight=3.0)  # is meant from the start
    assert delta(said)[0] < 3 * -delta(said)[1] + 1e-5


def test_what_is_spent_of_a_budget_is_counted_in_answers_and_in_how_sure_they_are():
    goal = Goal(0.0, 0.02, found(1.0, right=1.0))
    assert [goal.spent(found(0.0, right=right)) for right in (1.0, 0.99, 0.9)] == pytest.approx([0, 0.5, 1])
    assert goal.spent(found(0.0, retain=0.995, right=0.999)) == pytest.approx(0.25)
    nothing = replace(goal, budget=0.0)
    assert (nothing.spent(found(0.0, right=1.0)), nothing.spent(found(0.0, right=0.99))) == (0, 1)


def test_a_round_that_starts_with_a_loss_pulls_for_what_is_kept_from_its_first_step(model):
    bench = Bench(model, metrics=lambda w: found(0.5 - w[1] / 9, right=0.99))
    bench.retain_weight = 3.0
    goal = Goal(0.0, 0.02, found(1.0, right=1.0))
    x, y = delta(steps(model, bench, goal=goal, step_size=0.01, inner_steps=2, stop=iter([False, True, True]).__next__))
    assert x == pytest.approx(-2 * y, rel=1e-5)  # half the budget is spent: half way from 1 to 3


def test_rho_weakens_forgetting(model):
    end = lambda w: found(0.0 if w[1] > 0 else 1.0)  # noqa: E731
    result = steps(model, Bench(model, metrics=end), step_size=0.1, inner_steps=2, rho=0.5, retain_weight=0.5)
    assert delta(result) == pytest.approx([-0.3 * math.sqrt(0.5), 0.3 * math.sqrt(0.5)])


def test_the_forget_loss_is_ascended_and_the_retain_loss_descended(model):
    result = steps(model, Bench(model), inner_steps=4)
    x, y = delta(result)
    assert y > 0 and x < 0


def test_zero_gradients_move_nothing(model):
    result = steps(model, Bench(model, g_f=(0.0, 0.0), g_k=(0.0, 0.0)), inner_steps=3)
    assert result.chosen == 0 and result.patch == Patch()


def test_a_zero_forget_gradient_leaves_the_retain_direction(model):
    end = lambda w: found(1.0 if w[0] == 3 else 0.5)  # noqa: E731
    result = steps(model, Bench(model, g_f=(0.0, 0.0), metrics=end), inner_steps=2, step_size=0.1)
    assert delta(result)[0] < 0 and delta(result)[1] == 0


# ---------------------------------------------------------------- many steps


def test_each_step_starts_from_the_last_and_draws_a_fresh_batch(model):
    bench = Bench(model, g_k=(0.0, 0.0), metrics=lambda w: found(1 - w[1] / 100))
    result = steps(model, bench, inner_steps=3, step_size=0.01, first_batch=1000)
    y, length = 0.0, 0.0
    for trial in result.trials:  # only the second weight moves, each time by the trial's length times |theta|
        y += (trial.length - length) * math.hypot(3.0, y)
        length = trial.length
    assert delta(result) == pytest.approx([0.0, y]) and y > 0.08
    assert bench.batches == [1001, 1002, 1003]


def test_the_best_point_is_returned_not_the_last(model):
    dip = lambda w: found(abs(w[1] - 0.6) / 10 + 0.1)  # noqa: E731
    result = steps(model, Bench(model, g_k=(0.0, 0.0), metrics=dip), inner_steps=6, step_size=0.1)
    assert 0 < result.chosen < len(result.trials) == 6
    assert result.trials[result.chosen - 1].cost == min(t.cost for t in result.trials)
    assert result.evaluation.forget_accuracy.value == result.trials[result.chosen - 1].forget


def test_search_ends_when_the_goal_is_reached(model):
    reach = lambda w: found(0.0 if w[1] > 0.5 else 1.0)  # noqa: E731
    result = steps(model, Bench(model, metrics=reach), inner_steps=50, step_size=0.1)
    assert result.chosen == len(result.trials) < 10


def test_a_step_that_breaks_the_budget_is_taken_back_and_the_next_is_half_as_long(model):
    edge = lambda w: found(1 - w[1] / 10, retain=1.0 if w[1] < 0.29 else 0.5)  # noqa: E731
    goal = Goal(0.0, 0.1, found(1.0))
    result = steps(model, Bench(model, g_k=(0.0, 0.0), metrics=edge), goal=goal, inner_steps=12, step_size=0.11)
    assert [t.length for t in result.trials[:2]] == pytest.approx([0.11, 0.055])
    assert result.evaluation.retain_accuracy.value == 1.0
    assert 0.25 < delta(result)[1] < 0.29


def test_a_walk_ends_when_its_steps_have_become_too_short(model):
    wall = lambda w: found(1.0, retain=1.0 if w[1] < 1e-6 else 0.5)  # noqa: E731
    result = steps(model, Bench(model, metrics=wall), goal=Goal(0.0, 0.1, found(1.0)), inner_steps=12, step_size=0.1)
    assert [t.length for t in result.trials] == pytest.approx([0.1, 0.05, 0.025])
    assert result.chosen == 0


def test_of_equal_answers_the_less_sure_one_is_better(model):
    unsure = lambda w: found(1.0, sure=1 - w[1])  # noqa: E731
    result = steps(model, Bench(model, metrics=unsure), inner_steps=3)
    assert result.chosen == len(result.trials) == 3


def test_nothing_better_returns_the_start(model):
    start = Patch({Slice("weight"): torch.tensor([[0.0, 1.0]])})
    result = steps(model, Bench(model, metrics=lambda w: found(0.5)), start=start, inner_steps=3)
    assert result.patch is start and result.chosen == 0 and len(result.trials) == 3


def test_stop_keeps_the_best_so_far(model):
    asked = iter([False, False, True])
    result = steps(model, Bench(model), inner_steps=9, stop=lambda: next(asked, True))
    assert len(result.trials) == 2 and result.chosen == 2


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_the_model_is_left_bit_equal(model, inner_steps):
    before = model.weight.clone()
    steps(model, Bench(model), inner_steps=inner_steps)
    assert torch.equal(model.weight, before) and not model.weight.requires_grad


# ---------------------------------------------------------------- one-step mode


def test_one_step_brackets_and_bisects_to_the_shortest_step_that_forgets(model):
    # forgets once the second weight passes 0.9; retain falls with every bit beyond; |theta| = 3, d = (0, 1)
    metrics = lambda w: found(float(w[1] < 0.9), retain=1 - w[1] / 10)  # noqa: E731
    bench = Bench(model, g_k=(0.0, 0.0), metrics=metrics)
    result = steps(model, bench, inner_steps=1, step_size=0.05)
    lengths = [t.length for t in result.trials]
    assert lengths[:5] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.3])
    assert delta(result)[1] == pytest.approx(0.9, abs=0.02) and delta(result)[1] >= 0.9
    assert bench.batches == [1]


def test_one_step_never_forgetting_ends_after_its_doublings(model):
    result = steps(model, Bench(model, metrics=lambda w: found(1.0)), inner_steps=1, step_size=0.01)
    assert [t.length for t in result.trials] == pytest.approx([0.01 * 2**i for i in range(8)])
    assert result.chosen == 0


# ---------------------------------------------------------------- the goal


@pytest.mark.parametrize(
    "now, cost",
    [
        (found(0.1, 0.9, 0.8), 0.0),
        (found(0.3, 0.9, 0.8), 0.2),
        (found(0.1, 0.8, 0.8), 5 * 0.08),
        (found(0.1, 0.9, 0.5), 0.3 - 3 * 0.02),
        (found(0.1, 0.9, 0.8, cross=0.3), 0.4 - 3 * 0.02),
        (found(0.3, 0.8, 0.5), 0.2 + 5 * 0.08 + 0.3 - 3 * 0.02),
        (found(0.1, 0.9, None), 0.0),
    ],
)
def test_goal_cost_worked_out_by_hand(now, cost):
    goal = Goal(target=0.1, budget=0.02, base=found(1.0, 0.9, 0.8, cross=0.7))
    assert goal.cost(now) == pytest.approx(cost)
    assert goal.reached(now) == (cost == 0)


def test_a_neighbour_of_few_may_be_spared_where_the_budget_is_less_than_one():
    beside = lambda share: replace(found(0.0, 0.9), neighbor_accuracy=Measure(share, 20, 0.0, 1.0))  # noqa: E731
    assert Goal(0.1, 0.01, beside(1.0)).damage(beside(0.95)) == pytest.approx(0.05 - 0.03)
    assert Goal(0.1, 0.01, beside(1.0), spared=1).damage(beside(0.95)) == pytest.approx(0.0, abs=1e-9)
    assert Goal(0.1, 0.01, beside(1.0), spared=1).damage(beside(0.9)) == pytest.approx(0.05)


def test_equal_costs_are_decided_by_what_keeps_most():
    goal = Goal(0.1, 0.02, found(1.0, 0.9))
    assert goal.key(found(0.0, 0.95)) < goal.key(found(0.0, 0.9))
