"""Rounds on a tiny CLIP that knows six colours: it forgets one, keeps the others, and every round can be undone."""

import copy
from dataclasses import replace
from itertools import count, pairwise

import pytest
import torch

from razor.config import RazorConfig
from razor.edit_set import EditSet
from razor.errors import InputError, UnusableGradientError
from razor.growth import Growth
from razor.metrics import Measure
from razor.patches import Patch
from razor.run import finish
from razor.step import evaluate

SHORT = {"inner_steps": 2, "step_size": 0.02, "start_units": 2, "granularity": ("head", "mlp")}


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
        growth.bench.evaluate = lambda split, edited: replace(growth.base, forget_accuracy=better())
        return growth

    return start


@pytest.fixture
def stuck(grow):
    """settings -> a growth whose steps all measure the same, so that every round is rejected."""

    def start(**settings):
        growth = grow(**SHORT | settings)
        growth.bench.evaluate = lambda split, edited: growth.base
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
    assert evaluate(growth.adapter, growth.bench, done.patch, "search") == done.after == growth.now
    assert done.after.forget_accuracy.value < done.before.forget_accuracy.value == 1.0


def test_a_round_edits_only_its_members(grow):
    growth = grow()
    done = growth.next_round()
    slices = {where for unit in growth.units if unit.name in done.members for where in unit.slices}
    assert set(done.patch.deltas) <= slices


def test_the_same_seed_gives_the_same_patch(grow):
    first, second = (grow(**SHORT).next_round().patch for _ in range(2))
    assert first.deltas.keys() == second.deltas.keys()
    assert all(torch.equal(delta, second.deltas[where]) for where, delta in first.deltas.items())


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


def test_wanted_units_join_first_and_banned_ones_never(improving):
    growth = improving(rounds=9, tau=0.0)
    ranking = sorted(growth.scores(), key=lambda s: s.rank)
    best, last = ranking[0].unit.name, ranking[-1].unit.name
    growth.edit_set = growth.edit_set.want([last]).ban([best])
    added = [s.unit.name for r in growth.run() for s in r.added]
    assert added[0] == last and best not in added
    assert len(added) == 10 and growth.edit_set.wanted == frozenset()


def test_a_rejected_round_changes_nothing_and_says_so(stuck):
    growth = stuck()
    done = growth.next_round()
    assert not done.accepted and done.chosen == 0
    assert done.reason == "Rejected: no step brought the goal nearer, so nothing was changed."
    assert done.patch.deltas == growth.patch.deltas == {} and done.members == growth.edit_set.members == ()
    assert growth.edit_set.rejected == {s.unit.name for s in done.added}
    assert growth.now == growth.base


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
    kept = growth.edit_set
    growth.next_round()
    growth.undo()
    assert growth.scores() != scores
    assert growth.patch is first.patch and growth.edit_set == kept and growth.now == first.after
    growth.undo()
    assert growth.patch == Patch() and growth.edit_set == EditSet() and growth.now == growth.base
    assert growth.scores() == scores
    with pytest.raises(InputError, match=r"^There is no round to undo.$"):
        growth.undo()


def test_undoing_a_rejected_round_lets_its_units_be_tried_again(stuck):
    growth = stuck()
    first = growth.next_round()
    growth.undo()
    assert growth.edit_set.rejected == frozenset()
    assert [s.unit for s in growth.next_round().added] == [s.unit for s in first.added]


def test_reset_forgets_rounds_picks_and_bans(improving):
    growth = improving()
    growth.edit_set = growth.edit_set.want(["image.0.mlp"]).ban(["text.0.mlp"])
    growth.next_round()
    growth.reset()
    assert growth.rounds == [] and growth.edit_set == EditSet() and growth.patch == Patch()


def test_stopping_between_inner_steps_keeps_the_best_so_far(grow):
    settings = {"inner_steps": 8, "step_size": 0.002}
    whole = grow(**settings).next_round()
    asked = iter([False] * 3 + [True] * 9)
    growth = grow(**settings)
    cut = growth.next_round(stop=lambda: next(asked))
    assert len(cut.trials) == 3 < len(whole.trials) and cut.trials == whole.trials[:3]
    assert cut.chosen > 0
    measured = evaluate(growth.adapter, growth.bench, cut.patch, "search")
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
    monkeypatch.setattr("razor.growth.collect", lambda *_: pytest.fail("the model ran"))
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
    growth.edit_set = growth.edit_set.want(["image.0.head.1"])
    added = [s.unit.name for _ in range(2) for s in growth.next_round().added]
    assert added[0] == "image.0.head.1" and set(added[1:]) == {"text.0.mlp", "text.1.mlp"}


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
