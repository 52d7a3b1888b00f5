"""Training against Adam itself on a copy of the model, and what holds for every training: the model stays as it was."""

import copy
import math

import pytest
import torch

from razor.baselines import training as module
from razor.baselines.ascent import ascent
from razor.baselines.ascent_retain import ascent_retain, both
from razor.baselines.fine_tune import fine_tune
from razor.baselines.salun import salun
from razor.baselines.training import RATE, train, trained_tensors
from razor.baselines.tuning import Budget, Stopped, Tuning
from razor.patches import Patch
from razor.step import evaluate
from razor.units import Slice

FAST = 1e-2


@pytest.fixture(scope="module")
def bench(trained, task):
    bench = trained.bench(task, batch=8)
    evaluate(trained, bench, Patch(), "search")
    return bench


@pytest.fixture
def start(trained, bench):
    """options -> a fresh tuning of two steps on the shared tiny CLIP."""
    return lambda steps=2, checks=1, **options: Tuning(trained, bench, Budget(steps, checks), 1 / 12, **options)


@pytest.fixture
def edits(monkeypatch):
    """Every patch that is measured, in order."""
    seen = []
    check = Tuning.check

    def record(self, setting, patch):
        seen.append(patch)
        return check(self, setting, patch)

    monkeypatch.setattr(Tuning, "check", record)
    return seen


def gradient(adapter, loss):
    """By autograd alone, name -> gradient; the model is put back."""
    parameters = dict(adapter.model.named_parameters())
    names = trained_tensors(adapter)
    for name in names:
        parameters[name].requires_grad_(True)
    grads = torch.autograd.grad(loss(), [parameters[name] for name in names])
    for name in names:
        parameters[name].requires_grad_(False)
    return dict(zip(names, grads, strict=True))


def test_training_moves_everything_but_the_temperature(trained):
    parameters = dict(trained.model.named_parameters())
    assert set(parameters) - set(trained_tensors(trained)) == {"logit_scale"}


@pytest.mark.parametrize("method, sign, side", [(ascent, 1, "forget"), (fine_tune, -1, "retain")])
def test_one_step_is_the_update_worked_out_by_hand(trained, bench, start, edits, method, sign, side):
    # Adam's first step: m / (1 - b1) = g and v / (1 - b2) = g^2, so every weight moves by rate * g / (|g| + 1e-8)
    grads = gradient(trained, bench.scoring_terms(1)[side])
    method(start(steps=1))
    for number, setting in enumerate(module.RATES):
        for name, grad in grads.items():
            expected = sign * setting[RATE] * grad / (grad.abs() + 1e-8)
            assert torch.allclose(edits[number].deltas[Slice(name)], expected, rtol=1e-3, atol=1e-3 * setting[RATE])


def test_three_steps_are_those_adam_takes_on_a_copy_of_the_model(trained, wrap, task, start, edits):
    tuning = start(steps=3)
    # Where a gradient is zero but for rounding, as of an attention's key bias, Adam follows the rounding.
    names = [name for name in trained_tensors(trained) if name.endswith(("proj", "fc.weight"))]
    train(tuning, {RATE: FAST}, names, lambda step: both(tuning, step))
    twin = wrap(copy.deepcopy(trained.model))
    own = twin.bench(task, batch=8)
    before = {name: p.clone() for name, p in twin.model.named_parameters()}
    moving = [p.requires_grad_(True) for name, p in twin.model.named_parameters() if name in names]
    optimizer = torch.optim.Adam(moving, lr=FAST)
    for step in range(1, 4):
        terms = own.scoring_terms(step)
        optimizer.zero_grad()
        (terms["retain"]() - terms["forget"]()).backward()
        optimizer.step()
    for name, p in twin.model.named_parameters():
        if name in names:
            assert torch.allclose(edits[0].deltas[Slice(name)], p.detach() - before[name], atol=FAST / 10)


def test_ascent_forgets_and_ascent_with_retain_keeps_more(start, bench):
    assert bench.evaluate("search", ()).forget_accuracy.value == 1.0
    kept = {}
    for method in (ascent, ascent_retain):
        tuning = start(steps=16, checks=4)
        names = trained_tensors(tuning.adapter)
        terms = tuning.bench.scoring_terms
        objective = {
            ascent: lambda step, terms=terms: lambda: -terms(step)["forget"](),
            ascent_retain: lambda step, tuning=tuning: both(tuning, step),
        }[method]
        train(tuning, {RATE: 2e-3}, names, objective)
        chosen, _, reached = tuning.choose()
        assert reached, method.__name__
        kept[method] = chosen.evaluation.retain_accuracy.value
    assert kept[ascent_retain] > kept[ascent]


def test_past_the_target_a_setting_goes_on_only_while_it_retains_more(start, monkeypatch):
    from test_tuning import answers

    measured = iter([answers(0.5, 0.9), answers(0.0, 0.5), answers(0.0, 0.6), answers(0.0, 0.6), answers(0.0, 0.9)])
    monkeypatch.setattr("razor.baselines.tuning.evaluate", lambda *_: next(measured))
    tuning = start(steps=5, checks=5)
    train(tuning, {RATE: 1e-5}, ["visual.proj"], lambda step: tuning.bench.scoring_terms(step)["forget"])
    assert [t.setting["steps"] for t in tuning.trials] == [1, 2, 3, 4]


def test_a_training_that_diverges_ends_with_a_note_and_the_next_setting_goes_on(
    start, trained, weights_of, same_weights
):
    before = weights_of(trained.model)
    tuning = start(steps=4, checks=4)
    forget = tuning.bench.scoring_terms(1)["forget"]
    wild = lambda step: lambda: forget() * (math.nan if step == 3 else 1)  # noqa: E731
    for setting, objective in zip(
        tuning.settings([{RATE: 1e-3}, {RATE: 1e-5}]), (wild, lambda step: forget), strict=True
    ):
        train(tuning, setting, ["visual.proj"], objective)
    assert [(t.setting[RATE], t.setting["steps"], t.note) for t in tuning.trials[:4]] == [
        (1e-3, 1, ""),
        (1e-3, 2, ""),
        (1e-3, 3, "diverged: the loss or its gradient is not finite"),
        (1e-5, 1, ""),
    ]
    assert tuning.trials[2].evaluation is None
    assert same_weights(trained.model, before)


def test_a_masked_weight_never_moves(trained, start, edits):
    tuning = start(steps=3)
    names = ["visual.proj", "text_projection"]
    mask = {name: torch.rand(32, 32, generator=torch.Generator().manual_seed(i)) > 0.5 for i, name in enumerate(names)}
    train(tuning, {RATE: FAST}, names, lambda step: both(tuning, step), masks=mask)
    for name in names:
        delta = edits[0].deltas[Slice(name)]
        assert (delta[~mask[name]] == 0).all() and (delta[mask[name]] != 0).all()


def test_salun_moves_half_of_the_weights_those_the_forget_loss_depends_on_most(trained, bench, start, edits):
    grads = gradient(trained, bench.scoring_terms()["forget"])
    salun(start(steps=1))
    flat = torch.cat([g.abs().flatten() for g in grads.values()])
    moved = torch.cat([(edits[-1].deltas[Slice(name)] != 0).flatten() for name in grads])
    assert moved.sum().item() == pytest.approx(len(flat) / 2, rel=0.01)
    assert flat[moved].min() >= flat[~moved].max() * 0.999


@pytest.mark.parametrize("ending", ["stop", "raise", "whole"])
def test_the_model_is_bit_equal_and_untouched_however_a_training_ends(
    start, trained, bench, weights_of, same_weights, ending
):
    before = weights_of(trained.model)
    asked = iter([False] * 3 + [True] * 99)
    tuning = start(steps=4, stop=(lambda: next(asked)) if ending == "stop" else lambda: False)

    def objective(step):
        if ending == "raise" and step == 3:
            return lambda: 1 / 0
        return lambda: -bench.scoring_terms(step)["forget"]()

    expected = {"stop": Stopped, "raise": ZeroDivisionError, "whole": ()}[ending]
    try:
        train(tuning, {RATE: FAST}, trained_tensors(trained), objective)
    except expected:
        assert ending != "whole"
    else:
        assert ending == "whole" and tuning.trials[0].evaluation != bench.evaluate("search", ())
    assert same_weights(trained.model, before)
    assert not any(p.requires_grad or p.grad is not None for p in trained.model.parameters())
