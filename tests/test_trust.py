"""Spreads over bootstrap batches, scores side by side, single edits measured, and how well they agree."""

import math
from dataclasses import replace

import pytest
import torch

from razor.gradients import UnitStats, collect
from razor.metrics import Measure
from razor.patches import Patch
from razor.scoring import score
from razor.step import edited, evaluate
from razor.trust import (
    AloneEffect,
    Correlation,
    UnitSpread,
    agreement,
    alone,
    bootstrap,
    choices,
    quantile,
    ranks,
    slug_pareto,
    spearman,
)
from razor.units import Unit


@pytest.fixture(scope="module")
def bench(trained, task):
    return trained.bench(task, batch=24)


def stats_of(name, forget, retain=1.0, weight=1.0, cosine=0.0, tower="image"):
    return UnitStats(Unit(name, "head", tower, 0, 0, ()), forget, retain, weight, cosine * forget * retain, 1)


def noise(adapter, name, scale=0.3):
    unit = next(u for u in adapter.units() if u.name == name)
    parameters = dict(adapter.model.named_parameters())
    generator = torch.Generator().manual_seed(0)
    shapes = {s: s.view(parameters[s.parameter]).shape for s in unit.slices}
    return Patch({s: scale * torch.randn(shape, generator=generator) for s, shape in shapes.items()})


# ---------------------------------------------------------------- bootstrap


def test_draw_zero_is_the_fixed_batch_and_others_are_their_own(trained, bench):
    with torch.no_grad():
        for side in ("forget", "retain"):
            costs = [bench.scoring_terms(draw)[side]().item() for draw in (0, 1, 2, 1)]
            assert costs[0] == bench.scoring_terms()[side]().item()
            assert costs[1] == costs[3] and len(set(costs)) == 3


def test_a_draw_takes_as_many_examples_with_repeats(bench):
    for n, size in ((10, 24), (60, 24)):
        fixed, drawn = bench._draw(n, size, "k").tolist(), bench._redraw(1, n, size, "k").tolist()
        assert len(fixed) == len(set(fixed)) == len(drawn) > len(set(drawn))
        assert set(drawn) <= set(range(n))


def test_spreads_hold_the_stats_of_each_draw_of_the_patched_model(trained, bench, weights_of, same_weights):
    units, patch, log = trained.units(("head",)), noise(trained, "image.0.head.0"), []
    before = weights_of(trained.model)
    spreads = bootstrap(trained, bench, units, patch, draws=3, progress=lambda *now: log.append(now))
    assert log == [(1, 3), (2, 3), (3, 3)] and [s.unit for s in spreads] == units
    with edited(trained, bench, patch):
        second = collect(trained.model, units, bench.scoring_terms(2))
    assert [s.draws[1] for s in spreads] == second
    assert len({s.draws[i].forget_norm for s in spreads[:1] for i in range(3)}) == 3
    assert same_weights(trained.model, before)


def test_a_stopped_bootstrap_keeps_the_draws_it_made(trained, bench):
    units, answers = trained.units(("head",)), iter([False, True])
    assert [len(s.draws) for s in bootstrap(trained, bench, units, Patch(), stop=lambda: next(answers))] == [1] * 8
    assert bootstrap(trained, bench, units, Patch(), stop=lambda: True) == []


def test_phi_of_a_spread_worked_out_by_hand():
    spread = UnitSpread(stats_of("u", 1).unit, tuple(stats_of("u", f, weight=2, cosine=0.5) for f in (2, 4, 6, 8, 12)))
    assert spread.phis(0) == pytest.approx((1, 2, 3, 4, 6))
    assert spread.phis(1) == pytest.approx((0.5, 1, 1.5, 2, 3))
    assert spread.phis(2) == pytest.approx((0.25, 0.5, 0.75, 1, 1.5))
    assert (spread.mean(1), spread.low(1), spread.high(1)) == pytest.approx((1.6, 0.6, 2.8))


@pytest.mark.parametrize("forgets, unstable", [((1, 1), False), ((1, 2), False), ((1, 3), True), ((0, 1), True)])
def test_a_unit_is_unstable_when_its_interval_spans_more_than_a_factor_of_two(forgets, unstable):
    assert UnitSpread(stats_of("u", 1).unit, tuple(stats_of("u", f) for f in forgets)).unstable() is unstable


def test_alpha_can_make_a_unit_unstable():
    spread = UnitSpread(stats_of("u", 1).unit, (stats_of("u", 1, cosine=0.9), stats_of("u", 1, cosine=-0.9)))
    assert not spread.unstable(0) and spread.unstable(1)


@pytest.mark.parametrize("q, value", [(0, 1), (0.5, 3), (0.25, 1.5), (1, 9), (0.75, 6)])
def test_quantiles_lie_on_straight_lines(q, value):
    assert quantile([3, 1, 9], q) == pytest.approx({0.25: 2}.get(q, value))


# ---------------------------------------------------------------- choices


def test_every_choice_scores_every_unit_by_its_formula(trained, bench):
    stats = collect(trained.model, trained.units(), bench.scoring_terms())
    found = choices(stats, alpha=2.0)
    assert list(found) == [
        "phi",
        "phi, alpha 0",
        "phi, alpha 0.5",
        "forget only",
        "forget / retain",
        "SLUG Pareto",
        "random",
    ]
    for s, by_alpha in zip(stats, zip(*(score(stats, alpha=a) for a in (2.0, 0.0, 0.5)), strict=True), strict=True):
        for name, expected in zip(list(found)[:3], by_alpha, strict=True):
            assert found[name][s.unit.name] == expected.phi
        assert found["forget only"][s.unit.name] == s.forget_norm
        assert found["forget / retain"][s.unit.name] == pytest.approx(s.forget_norm / s.retain_norm, rel=1e-4)
    assert {len(values) for values in found.values()} == {len(stats)}


def test_random_scores_depend_on_the_seed_alone():
    stats = [stats_of(str(i), 1) for i in range(20)]
    assert choices(stats)["random"] == choices(stats)["random"] != choices(stats, seed=1)["random"]


def test_slugs_fronts_worked_out_by_hand():
    """Importance and conflict: a and b are beaten by none, c by a alone, d by c."""
    stats = [
        stats_of("d", 1, cosine=0.9),
        stats_of("a", 4, cosine=-0.3),
        stats_of("b", 2, cosine=0.1),
        stats_of("c", 3, cosine=0.5),
    ]
    assert slug_pareto(stats) == [0, 3, 2, 1]


def test_slugs_fronts_are_each_towers_own():
    """The text unit is worse in both, yet first of its tower; within the first front, importance decides."""
    stats = [
        stats_of("a", 4, cosine=0.1),
        stats_of("b", 3, cosine=0.2),
        stats_of("t", 1, cosine=0.9, tower="text"),
    ]
    assert slug_pareto(stats) == [2, 0, 1]


def test_equal_units_are_on_one_front_in_their_order():
    assert slug_pareto([stats_of(n, 2, cosine=0.5) for n in "abc"]) == [2, 1, 0]


# ---------------------------------------------------------------- alone


def test_alone_measures_each_unit_on_top_of_the_patch(trained, bench, weights_of, same_weights):
    units = [u for u in trained.units(("head",)) if u.layer == 1]
    steps = {u.name: noise(trained, u.name, 0.5) for u in units}
    patch, weights, log = noise(trained, "image.0.head.0"), weights_of(trained.model), []
    start = evaluate(trained, bench, Patch(), "search")
    for at, before in ((Patch(), start), (patch, evaluate(trained, bench, patch, "search"))):
        found = list(alone(trained, bench, units, steps.get, patch=at, progress=lambda *now: log.append(now)))
        assert [e.name for e in found] == [u.name for u in units]
        for e in found:
            assert e.after == evaluate(trained, bench, at + steps[e.name], "search")
            assert e.gain == before.forget_probability.value - e.after.forget_probability.value
            assert e.cost == max(0, before.retain_probability.value - e.after.retain_probability.value)
            assert e.value == e.gain / (e.cost + 0.001)
        assert len({e.gain for e in found}) == 4
    assert log == [(i, 4) for i in (1, 2, 3, 4)] * 2
    assert same_weights(trained.model, weights)


def test_alone_gives_units_one_by_one_and_can_be_left_or_stopped(trained, bench, weights_of, same_weights):
    units, weights = trained.units(("head",)), weights_of(trained.model)
    runs = alone(trained, bench, units, lambda name: noise(trained, name))
    assert next(runs).name == units[0].name
    runs.close()
    answers = iter([False, False, True])
    stopped = list(alone(trained, bench, units, lambda name: noise(trained, name), stop=lambda: next(answers)))
    assert [e.name for e in stopped] == [u.name for u in units[:2]]
    assert same_weights(trained.model, weights)


def test_an_edit_that_changes_nothing_gains_and_costs_nothing(trained, bench):
    (effect,) = alone(trained, bench, trained.units()[:1], lambda name: Patch())
    assert (effect.gain, effect.cost, effect.value) == (0, 0, 0)


# ---------------------------------------------------------------- agreement


@pytest.mark.parametrize(
    "values, expected",
    [([], []), ([5], [1]), ([3, 1, 2], [3, 1, 2]), ([2, 1, 2, 5], [2.5, 1, 2.5, 4]), ([7, 7, 7], [2, 2, 2])],
)
def test_ranks_of_equal_values_are_their_mean(values, expected):
    assert ranks(values) == expected


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ([1, 2, 3], [10, 20, 300], 1),
        ([1, 2, 3], [3, 2, 1], -1),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 - 6 * 4 / (5 * 24)
        ([1, 2, 2, 4], [1, 3, 2, 4], 0.948683),  # ranks 1, 2.5, 2.5, 4 with 1, 3, 2, 4: 4.5 / sqrt(4.5 * 5)
        ([1, 1, 2, 2], [1, 2, 1, 2], 0),
    ],
)
def test_spearman_worked_out_by_hand(a, b, expected):
    assert spearman(a, b) == pytest.approx(expected, abs=1e-6)


def test_spearman_of_a_side_that_never_varies_is_not_a_number():
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def effects_of(gains, costs):
    return [
        AloneEffect(str(i), g, c, g / (c + 0.001), None, None)
        for i, (g, c) in enumerate(zip(gains, costs, strict=True))
    ]


def test_agreement_is_with_gain_per_cost_and_with_gain():
    effects = effects_of([0.1, 0.2, 0.3, 0.4], [0.0, 0.1, 0.2, 0.4])
    by_unit = {"rising": {str(i): i for i in range(4)}, "flat": dict.fromkeys("0123", 1.0)}
    found = agreement(by_unit, effects)
    assert found["rising"].gain.value == pytest.approx(1) and found["rising"].n == 4
    # Values 100, 1.98, 1.49, 0.998: the order turns round.
    assert found["rising"].value.value == pytest.approx(-1)
    assert all(math.isnan(x) for x in vars(found["flat"].gain).values())


def test_the_interval_contains_the_value_and_narrows_with_more_units():
    widths = []
    for n in (10, 80):
        effects = effects_of([((7 * i) % n) / n for i in range(n)], [0.0] * n)
        scores = {"s": {e.name: e.gain + 0.3 * ((11 * i) % n) / n for i, e in enumerate(effects)}}
        found = agreement(scores, effects)["s"].gain
        assert -1 <= found.low <= found.value <= found.high <= 1
        widths.append(found.high - found.low)
    assert widths[1] < widths[0]


def test_agreement_is_the_same_every_time_for_one_seed():
    effects = effects_of([0.3, 0.1, 0.2, 0.5], [0.0] * 4)
    scores = {"s": {"0": 1.0, "1": 3.0, "2": 2.0, "3": 4.0}}
    first = agreement(scores, effects)
    assert first == agreement(scores, effects)
    assert isinstance(first["s"].gain, Correlation) and replace(first["s"], n=4) == first["s"]


def test_retain_probability_is_measured(trained, bench):
    assert isinstance(evaluate(trained, bench, Patch(), "search").retain_probability, Measure)
