"""Rounds on a tiny CLIP that knows six colours: it forgets one, keeps the others, and every round can be undone."""

import copy
from dataclasses import replace
from itertools import count, pairwise

import pytest
import torch

from razor import growth as growth_module
from razor.config import RazorConfig
from razor.edit_set import EditSet
from razor.errors import InputError, UnusableGradientError
from razor.growth import Growth
from razor.metrics import Measure
from razor.patches import Patch
from razor.run import finish
from razor.step import evaluate

SHORT = {"inner_steps": 2, "step_size": 0.02, "start_units": 2, "granularity": ("head", "mlp")}


def same(a, b):
    """Two patches are bit for bit the same."""
    return a.deltas.keys() == b.deltas.keys() and all(torch.equal(d, b.deltas[w]) for w, d in a.deltas.items())


@pytest.fixture
def grow(trained, task):
    """settings -> a fresh growth on the shared model."""
    return lambda **settings: Growth(trained, task, RazorConfig(**settings))


@pytest.fixture
def improving(grow):
    """settings -> a growth whose every step measures a little better than the last, so that no round is rejected."""

    def start(**settings):
        growth, calls = grow(**SHORT | settings), count()
        better = lambda: Measure(0.9 - 0.001 * next(calls), 10, 0.0, 1.0)  # noqa: E731
        growth.bench.evaluate = lambda *_, **__: replace(growth.base, forget_accuracy=better())
        return growth

    return start


@pytest.fixture
def stuck(grow):
    """settings -> a growth whose steps all measure the same, so that every round is rejected."""

    def start(**settings):
        growth = grow(**SHORT | settings)
        growth.bench.evaluate = lambda *_, **__: growth.base
        return growth

    return start


# ---------------------------------------------------------------- it forgets


def test_the_model_knows_its_colours_before_the_edit(trained, task):
    pictures = task.forget.test + task.retain.test
    guess = trained.classify([e.image for e in pictures], task.axes[0]).argmax(1)
    right = [e.labels["colour"] == task.axes[0].classes[i] for e, i in zip(pictures, guess, strict=True)]
    assert sum(right) / len(right) > 0.95


@pytest.mark.parametrize("inner_steps", [16, 1])
def test_growing_forgets_the_concept_and_keeps_the_rest_on_unseen_pictures(grow, inner_steps):
    growth = grow(inner_steps=inner_steps)
    rounds = list(growth.run())
    run = finish(growth)
    assert growth.reached and rounds[-1].accepted and "The target is met." in rounds[-1].reason
    assert run.before.forget_accuracy.value > 0.95
    assert run.after.forget_accuracy.value <= 0.3
    assert run.after.retain_accuracy.value > run.before.retain_accuracy.value - 0.05
    assert run.before.retrieval_stability.value == 1.0


def test_a_round_reports_what_its_patch_does(grow):
    growth = grow()
    done = growth.next_round()
    assert evaluate(growth.adapter, growth.bench, growth.patch, "search") == done.after == growth.now
    assert done.after.forget_accuracy.value < done.before.forget_accuracy.value == 1.0


def test_a_round_edits_only_its_members(grow):
    growth = grow()
    done = growth.next_round()
    slices = {where for unit in growth.units if unit.name in done.members for where in unit.slices}
    assert set(growth.patch.deltas) <= slices


def test_the_same_seed_gives_the_same_patch(grow):
    first, second = grow(**SHORT), grow(**SHORT)
    for growth in (first, second):
        growth.next_round()
    assert same(first.patch, second.patch)


# ---------------------------------------------------------------- it leaves the model alone


@pytest.mark.parametrize("settings", [{}, {"inner_steps": 1}, SHORT])
def test_a_round_leaves_the_base_model_bit_equal(grow, trained, weights_of, same_weights, settings):
    before = weights_of(trained.model)
    growth = grow(**settings)
    growth.next_round()
    finish(growth)
    assert same_weights(trained.model, before)
    assert not any(p.requires_grad or p.grad is not None for p in trained.model.parameters())


def test_nan_weights_end_in_an_unusable_gradient(trained, wrap, task):
    broken = wrap(copy.deepcopy(trained.model))
    with torch.no_grad():
        broken.model.visual.transformer.resblocks[0].mlp.c_fc.weight[0, 0] = float("nan")
    with pytest.raises(UnusableGradientError, match=r"^The forget loss is nan"):
        Growth(broken, task, RazorConfig()).next_round()


# ---------------------------------------------------------------- the edit set


def test_the_edit_set_never_shrinks_over_accepted_rounds(improving):
    rounds = list(improving(rounds=5).run())
    assert all(r.accepted for r in rounds)
    assert [len(r.members) for r in rounds] == [2, 3, 4, 5, 6]
    assert all(later.members[: len(r.members)] == r.members for r, later in pairwise(rounds))


def test_locked_units_are_in_from_the_first_round_and_banned_ones_never(improving):
    growth = improving(rounds=9, tau=0.0)
    ranking = sorted(growth.scores(), key=lambda s: s.rank)
    best, last = ranking[0].unit.name, ranking[-1].unit.name
    growth.act("lock", [last])
    growth.act("ban", [best])
    rounds = list(growth.run())
    assert rounds[0].members[0] == last and rounds[0].by_hand == f"with {last}"
    assert best not in rounds[-1].members and len(rounds[-1].members) == 10


def test_banning_every_unit_is_one_sentence(improving):
    growth = improving()
    growth.act("ban", [u.name for u in growth.units])
    with pytest.raises(InputError, match=r"^All 12 units open to growth are banned; lift a ban"):
        growth.next_round()


def test_the_price_of_a_ban_names_the_units_passed_over(improving):
    growth = improving(tau=0.0)
    best = next(s.unit.name for s in growth.scores() if s.rank == 1)
    assert growth.passed_over() == []
    growth.act("ban", [best])
    assert [s.unit.name for s in growth.passed_over()] == [best]


def test_a_rejected_round_changes_nothing_and_says_so(stuck):
    growth = stuck()
    done = growth.next_round()
    assert not done.accepted and done.chosen == 0
    assert done.reason == "Rejected: no step brought the goal nearer, so nothing was changed."
    assert growth.patch.deltas == {} and done.members == growth.edit_set.members == ()
    assert growth.edit_set.rejected == {s.unit.name for s in done.added}
    assert growth.now == growth.base


def test_every_round_turned_down_in_a_row_halves_the_pull_of_what_is_kept_in_the_next(stuck, improving, monkeypatch):
    weights, take = [], growth_module.take_steps
    spied = lambda *given, **more: weights.append(given[5].retain_weight) or take(*given, **more)  # noqa: E731
    monkeypatch.setattr(growth_module, "take_steps", spied)
    growth = stuck()
    for _ in range(3):
        growth.next_round()
    growth = stuck(retain_weight=3.0)
    for _ in range(2):
        growth.next_round()
    growth = improving()
    for _ in range(2):
        growth.next_round()
    growth = stuck(inner_steps=1)
    for _ in range(2):
        growth.next_round()
    assert weights == [None, 0.5, 0.25, 3.0, 1.5, None, None, None, None]  # a CLIP's own weight is 1


def test_rejected_units_are_not_tried_again_until_nothing_is_left(stuck):
    growth = stuck(start_units=5, tau=0.0)
    tried = [s.unit.name for _ in range(3) for s in growth.next_round().added]
    assert len(set(tried)) == len(tried) == len(growth.units) == 12
    with pytest.raises(InputError, match=r"^No unit is left to take in: lower tau, lift a ban"):
        growth.next_round()


# ---------------------------------------------------------------- undo, reset, stop


def test_undo_takes_back_patch_edit_set_and_scores(improving):
    growth = improving()
    scores = growth.scores()
    first = growth.next_round()
    kept, patch = growth.edit_set, growth.patch
    growth.next_round()
    growth.undo()
    assert growth.scores() != scores
    assert same(growth.patch, patch) and growth.edit_set == kept and growth.now == first.after
    growth.undo()
    assert growth.patch == Patch() and growth.edit_set == EditSet() and growth.now == growth.base
    assert growth.scores() == scores
    with pytest.raises(InputError, match=r"^There is nothing to undo.$"):
        growth.undo()


def test_undoing_a_rejected_round_lets_its_units_be_tried_again(stuck):
    growth = stuck()
    first = growth.next_round()
    growth.undo()
    assert growth.edit_set.rejected == frozenset()
    assert [s.unit for s in growth.next_round().added] == [s.unit for s in first.added]


def test_reset_goes_back_to_the_unedited_model_and_can_itself_be_undone(improving):
    growth = improving()
    growth.scores()
    growth.act("lock", ["image.0.mlp"])
    growth.act("ban", ["text.0.mlp"])
    growth.next_round()
    patch = growth.patch
    growth.reset()
    assert growth.rounds == [] and growth.edit_set == EditSet() and growth.patch == Patch()
    growth.undo()
    assert same(growth.patch, patch) and growth.edit_set.banned == {"text.0.mlp"}


def test_stopping_between_inner_steps_keeps_the_best_so_far(grow):
    settings = {"inner_steps": 8, "step_size": 0.002}
    whole = grow(**settings).next_round()
    asked = iter([False] * 3 + [True] * 9)
    growth = grow(**settings)
    cut = growth.next_round(stop=lambda: next(asked))
    assert len(cut.trials) == 3 < len(whole.trials) and cut.trials == whole.trials[:3]
    assert cut.chosen > 0
    measured = evaluate(growth.adapter, growth.bench, growth.patch, "search")
    assert measured == cut.after
    assert growth.goal.key(cut.after) < growth.goal.key(cut.before)


def test_a_round_stopped_before_its_first_step_turns_no_unit_down(grow):
    growth = grow()
    done = growth.next_round(stop=lambda: True)
    assert not done.accepted and done.trials == ()
    assert growth.edit_set.rejected == frozenset()


def test_a_run_that_has_tried_every_unit_ends_with_what_it_has(stuck):
    growth = stuck(start_units=6, rounds=20)
    rounds = list(growth.run())
    assert rounds == growth.rounds != []


def test_a_run_that_is_told_to_stop_runs_no_round(grow):
    assert list(grow().run(stop=lambda: True)) == []


# ---------------------------------------------------------------- scores


def test_moving_alpha_scores_again_without_running_the_model(grow, monkeypatch):
    growth = grow()
    before = growth.scores()
    monkeypatch.setattr("razor.growth.collect", lambda *_, **__: pytest.fail("the model ran"))
    growth.configure(RazorConfig(alpha=0.0))
    assert growth.scored
    assert [s.phi for s in growth.scores()] == pytest.approx([s.pressure for s in before])


@pytest.mark.parametrize("rescore", [True, False])
def test_scores_are_computed_afresh_on_the_edited_model_unless_told_not_to(improving, rescore):
    growth = improving(rescore=rescore)
    before = growth.scores()
    growth.next_round()
    assert (growth.scores() != before) == rescore


def test_only_the_chosen_towers_and_kinds_are_taken_in_unless_a_person_wants_another(improving):
    growth = improving(towers=("text",), granularity=("mlp",), tau=0.0)
    growth.act("in", ["image.0.head.1"])
    growth.next_round()
    members = growth.next_round().members
    assert members[0] == "image.0.head.1" and set(members[1:]) == {"text.0.mlp", "text.1.mlp"}


@pytest.mark.parametrize("granularity, count", [(("head",), 12), (("mlp",), 12), (("head", "layer"), 16)])
def test_heads_and_mlps_of_both_towers_are_always_scored_and_layers_when_asked_for(grow, granularity, count):
    units = grow(granularity=granularity, towers=("text",)).units
    assert len({unit.name for unit in units}) == count


def test_the_target_is_half_of_chance_unless_given(grow):
    assert grow().goal.target == pytest.approx(1 / 12)
    assert grow(forget_target=0.4).goal.target == 0.4


def test_a_layer_taken_in_can_still_be_moved_after_layers_are_switched_off(grow):
    growth = grow(**SHORT | {"granularity": ("layer",), "tau": 0.0})
    growth.next_round()
    layers = set(growth.edit_set.members) | set(growth.edit_set.rejected)
    assert layers and all(name.endswith(".layer") for name in layers)
    growth.configure(replace(growth.config, granularity=("head",)))
    growth.next_round()
    growth.undo()
    growth.undo()
    assert not growth.rounds and {s.unit.kind for s in growth.scores()} == {"head", "mlp"}


# ---------------------------------------------------------------- by hand


def test_a_unit_taken_out_and_put_back_gives_bit_equal_weights(grow, trained, weights_of):
    growth = grow(**SHORT | {"start_units": 3})
    growth.next_round()
    with growth.patch.applied(trained.model):
        before = weights_of(trained.model)
    middle = growth.edit_set.members[1]
    growth.act("out", [middle])
    assert middle not in growth.edit_set.members
    assert not {s for s in growth.every[middle].slices} & set(growth.patch.deltas)
    growth.act("in", [middle])
    with growth.patch.applied(trained.model):
        after = weights_of(trained.model)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_taking_every_unit_out_is_the_unedited_model(grow):
    growth = grow(**SHORT)
    growth.next_round()
    growth.act("out", growth.edit_set.members)
    assert growth.patch == Patch() and growth.now == growth.base


def test_a_toggle_is_measured_without_scoring_again(grow, monkeypatch):
    growth = grow(**SHORT)
    growth.next_round()
    growth.scores()
    monkeypatch.setattr("razor.growth.collect", lambda *_, **__: pytest.fail("scored again"))
    monkeypatch.setattr("razor.growth.trial_step", lambda *_: pytest.fail("gradients again"))
    growth.act("out", growth.edit_set.members[:1])
    growth.act("in", [next(u.name for u in growth.units if u.name not in growth.edit_set.members)])
    assert growth.known_evaluation(growth.edit_set) is None
    assert growth.now == evaluate(growth.adapter, growth.bench, growth.patch, "search")
    assert growth.known_evaluation(growth.edit_set) == growth.now


def test_putting_a_unit_in_gives_it_one_trial_step_of_a_tenth_of_its_weights(grow, trained):
    growth = grow(**SHORT)
    unit = growth.units[0]
    growth.scores()
    growth.act("in", [unit.name])
    step = torch.cat([growth.patch.deltas[where].flatten() for where in unit.slices])
    assert step.norm().item() == pytest.approx(0.1 * unit.read(dict(trained.model.named_parameters())).norm().item())


def test_a_trial_step_from_its_own_gradients_points_where_the_kept_one_does(grow):
    growth = grow(**SHORT)
    growth.scores()
    kept = growth.change_of("text.0.head.0")
    growth._by_hand.clear()
    growth._trials = (0, {})
    own = growth.change_of("text.0.head.0")
    a, b = (torch.cat([p.deltas[s].flatten() for s in growth.every["text.0.head.0"].slices]) for p in (kept, own))
    assert torch.cosine_similarity(a, b, dim=0) > 0.5  # other batches, and M beside R


def test_strength_scales_the_change_and_full_strength_is_the_change_itself(grow):
    growth = grow(**SHORT)
    growth.next_round()
    full, name = growth.patch, growth.edit_set.members[0]
    growth.set_strength(0.5, name)
    growth.set_strength(0.5)
    where = growth.every[name].slices[0]
    assert torch.equal(growth.patch.deltas[where], full.deltas[where] * 0.25)
    growth.set_strength(1.0, name)
    growth.set_strength(1.0)
    assert same(growth.patch, full)


def test_the_overshoot_guard_stops_at_the_last_strength_within_the_budgets(grow, monkeypatch):
    growth = grow(**SHORT)
    growth.next_round()
    lossy = lambda s: replace(growth.base, retain_accuracy=Measure(0.95 if s.strength > 1.3 else 1.0, 9, 0.0, 1.0))  # noqa: E731
    monkeypatch.setattr(growth, "evaluation", lossy)
    assert growth.guarded(1.8) == 1.3
    assert growth.guarded(1.2) == 1.2
    assert growth.guarded(0.4) == 0.4


def test_growth_goes_on_from_what_a_person_made_of_the_edit(improving):
    growth = improving(start_units=2)
    growth.next_round()
    first, second = growth.edit_set.members
    growth.act("out", [first])
    growth.set_strength(0.8, second)
    done = growth.next_round()
    assert done.by_hand == f"without {first}; {second} at 80%"
    assert first not in done.members and second in done.members
    assert growth.edit_set.off == {first} and growth.edit_set.strengths == ()
    growth.act("in", [first])
    assert {s for s in growth.every[first].slices} <= set(growth.patch.deltas)


def test_a_layer_and_a_head_inside_it_cannot_both_be_in(grow):
    growth = grow(**SHORT)
    growth.scores()
    growth.act("in", ["image.0.head.0"])
    said = growth.act("in", ["image.0.layer"])
    assert "overlaps" in said and growth.edit_set.members == ("image.0.head.0",)


def test_a_click_during_a_round_holds_after_it(improving):
    growth = improving()
    growth.scores()
    outside = growth.units[-1].name

    def click():
        growth.act("ban", [outside])
        with pytest.raises(InputError, match=r"^A round is under way"):
            growth.undo()
        return False

    growth.next_round(stop=click)
    assert growth.edit_set.banned == {outside}
    growth.undo()
    assert growth.edit_set.banned == frozenset()


# ---------------------------------------------------------------- going back and branching


def test_scrubbing_to_round_k_equals_a_fresh_run_stopped_at_k(improving):
    long, short = improving(rounds=3), improving(rounds=2)
    list(long.run()), list(short.run())
    long.go(2)
    assert same(long.patch, short.patch)
    assert long.edit_set == short.edit_set and [r.members for r in long.rounds] == [r.members for r in short.rounds]
    assert long.now == long.rounds[-1].after


def test_growing_from_an_earlier_round_starts_a_branch_and_keeps_the_other(improving):
    growth = improving()
    for _ in range(2):
        growth.next_round()
    end = growth.patch
    growth.go(1)
    growth.act("ban", [growth.proposal()[0].unit.name])
    growth.next_round()
    assert growth.history.branches == {"Main": 2, "Branch 2": 3}
    growth.history.switch("Main")
    assert same(growth.patch, end)


def test_replanning_starts_over_around_the_locks_and_bans(improving):
    growth = improving()
    growth.next_round()
    locked, banned = growth.units[-1].name, growth.edit_set.members[0]
    growth.act("lock", [locked])
    growth.act("ban", [banned])
    growth.replan("Around")
    done = growth.next_round()
    assert growth.history.position.branch == "Around" and len(growth.rounds) == 1
    assert locked in done.members and banned not in done.members


def test_a_lock_that_breaks_the_budgets_is_named(grow, monkeypatch):
    growth = grow(**SHORT)
    growth.scores()
    growth.act("lock", ["image.0.mlp"])
    harm = replace(growth.base, retain_accuracy=Measure(0.9, 9, 0.0, 1.0))
    monkeypatch.setattr(growth, "evaluation", lambda s, *_: harm if "image.0.mlp" in s.members else growth.base)
    assert growth.lock_price().startswith("image.0.mlp locked in: that alone breaks the budgets by 45.0 points")


def test_edits_beneath_are_where_the_run_starts(grow, trained, task):
    first = grow(**SHORT)
    first.next_round()
    second = Growth(trained, task, RazorConfig(**SHORT), beneath=first.patch)
    assert second.base == evaluate(trained, first.bench, first.patch, "search") or (
        second.base.forget_accuracy == first.now.forget_accuracy
    )
    assert second.patch == Patch()


# ---------------------------------------------------------------- what a person does while a round scores


def test_a_ban_made_while_a_round_scores_holds_and_nothing_can_be_undone_meanwhile(improving, monkeypatch):
    growth = improving()
    best = next(s.unit.name for s in growth.scores() if s.rank == 1)
    growth._stats.clear()
    growth.bench.unedited.clear()
    real = growth._collect

    def collect(state):
        growth.act("ban", [best])
        with pytest.raises(InputError, match=r"^A round is under way"):
            growth.still()
        return real(state)

    monkeypatch.setattr(growth, "_collect", collect)
    growth.next_round()
    assert growth.edit_set.banned == {best} and best not in growth.edit_set.members
    growth.still()


def test_a_deleted_rounds_number_and_scores_are_never_used_again(improving):
    growth = improving()
    growth.next_round()
    growth.history.branch_from("Other", 0)
    gone = growth.next_round()
    growth.scores()
    growth.history.delete("Other")
    growth.forget_lost()
    growth.next_round()
    assert sorted(growth.history.states) == [0, 1, 3] and not growth.scored
    assert gone not in growth.rounds


def test_a_unit_switched_off_at_half_strength_comes_back_at_half_strength_after_a_round(improving):
    growth = improving()
    growth.next_round()
    name = growth.edit_set.members[0]
    where, full = growth.every[name].slices[0], growth.patch
    growth.set_strength(0.5, name)
    growth.act("out", [name])
    growth.next_round()
    growth.act("in", [name])
    assert torch.equal(growth.patch.deltas[where], full.deltas[where] * 0.5)


def test_a_trial_step_belongs_to_the_scores_shown(improving):
    growth = improving()
    growth.scores()
    first = growth.trial_of("text.0.mlp")
    growth.next_round()
    assert same(growth.trial_of("text.0.mlp"), first)  # the map still shows those scores
    growth.scores()
    second = growth.trial_of("text.0.mlp")
    growth.go(0)
    assert not same(growth.trial_of("text.0.mlp"), second)


def test_a_first_look_measures_a_third_of_the_search_pictures_where_the_image_tower_is_edited(grow, monkeypatch):
    monkeypatch.setattr("razor.step.GLANCE_FROM", 10)
    growth = grow(**SHORT)
    growth.scores()
    growth.act("in", ["text.0.mlp"])
    assert growth.first_look() is None
    growth.act("in", ["image.0.mlp"])
    look, whole = growth.first_look(), growth.now
    assert 3 * look.forget_accuracy.n - whole.forget_accuracy.n in (0, 1, 2)
    assert 2 < whole.retain_accuracy.n / look.retain_accuracy.n < 4
    growth.act("out", growth.edit_set.members)
    assert growth.first_look() is None
