"""Sums per unit equal plain autograd, and the model is left as it was found."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from razor.errors import UnusableGradientError
from razor.gradients import UnitStats, collect, gradient_fits, gradient_of, trainable
from razor.units import Slice, Unit, find_units

TOWERS = {"image": "visual.", "text": ""}


def unit(*slices, name="u"):
    return Unit(name, "head", "image", 0, 0, slices)


def image_terms(model):
    """Two losses that differ in direction, both through the image tower alone."""
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    aim = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    return {
        "forget": lambda: (model.encode_image(pixels) * aim).mean(),
        "retain": lambda: model.encode_image(pixels).square().mean(),
    }


def state_of(model):
    """Everything a careless gradient pass could leave behind."""
    return [
        (p.requires_grad, p.grad, bool(p._post_accumulate_grad_hooks), bool(p._backward_hooks))
        for p in model.parameters()
    ]


def same_state(model, before):
    pairs = zip(state_of(model), before, strict=True)
    return all(now[0] == was[0] and now[1] is was[1] and now[2:] == was[2:] == (False, False) for now, was in pairs)


@pytest.fixture
def used(clip):
    """A model somebody is using: mixed flags, one gradient of its own."""
    for i, p in enumerate(clip.parameters()):
        p.requires_grad_(i % 2 == 0)
    clip.visual.proj.grad = torch.ones_like(clip.visual.proj)
    return clip


# ---------------------------------------------------------------- the numbers


def test_stats_equal_plain_autograd(clip):
    units, terms = find_units(clip, TOWERS, ("head", "mlp", "layer")), image_terms(clip)
    parameters = {name: p.requires_grad_() for name, p in clip.named_parameters()}
    grads = []
    for side in ("forget", "retain"):
        found = torch.autograd.grad(terms[side](), list(parameters.values()), allow_unused=True)
        pairs = zip(parameters.items(), found, strict=True)
        grads.append({name: torch.zeros_like(p) if grad is None else grad for (name, p), grad in pairs})
    for stats in collect(clip, units, terms):
        g_f, g_r = (stats.unit.read(side).detach() for side in grads)
        theta = stats.unit.read(parameters).detach()
        assert stats.forget_norm == pytest.approx(g_f.norm().item(), rel=1e-4)
        assert stats.retain_norm == pytest.approx(g_r.norm().item(), rel=1e-4)
        assert stats.weight_norm == pytest.approx(theta.norm().item(), rel=1e-4)
        assert stats.dot == pytest.approx((g_f @ g_r).item(), rel=1e-3, abs=1e-9)
        assert stats.size == theta.numel()


def test_gradients_too_small_for_float16_are_not_lost():
    model, tiny = nn.Linear(4, 1, bias=False).half(), 1e-8  # float16 ends at 6e-8
    mine = unit(Slice("weight", 0, 0, 1))
    terms = {side: lambda f=f: f * tiny * model.weight.float().sum() for side, f in (("forget", 3), ("retain", 2))}
    kept = {}
    for more in ({}, {"kept": kept}):
        (stats,) = collect(model, [mine], terms, **more)
        assert stats.forget_norm == pytest.approx(6e-8, rel=1e-2) and stats.retain_norm == pytest.approx(4e-8, rel=1e-2)
        assert stats.cosine == pytest.approx(1)
    for grad, f in zip(kept["weight"], (3e-8, 2e-8), strict=True):
        assert grad.dtype == torch.float32 and grad.flatten().tolist() == pytest.approx([f] * 4, rel=1e-2)
    _, ((grad,),) = gradient_of(model, [mine], terms["forget"], "forget")
    assert grad.flatten().tolist() == pytest.approx([3e-8] * 4, rel=1e-2)


def test_a_gradient_that_waits_in_the_computers_memory_gives_the_same_sums(clip, monkeypatch):
    units = find_units(clip, TOWERS, ("head",))
    moved = []
    monkeypatch.setattr("razor.gradients.put_aside", lambda grad: moved.append(grad) or grad.clone())
    fits = collect(clip, units, image_terms(clip))
    assert not moved
    assert collect(clip, units, image_terms(clip), sparing=True) == fits and moved
    moved.clear()
    monkeypatch.setattr("razor.gradients.gradient_fits", lambda parameters: False)
    assert collect(clip, units, image_terms(clip)) == fits and moved


def test_a_gradient_fits_in_a_third_of_what_is_free_on_each_card(monkeypatch):
    def halves_on(place, numbers):
        return SimpleNamespace(device=torch.device(place), numel=lambda: numbers, element_size=lambda: 2)

    free = {"cuda:0": 1500, "cuda:1": 150}
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda place: (free[str(place)] - 40, 1500))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda place: 100)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda place: 60)  # 40 more are held and unused
    halves = {"a": halves_on("cuda:0", 200), "b": halves_on("cuda:0", 50)}
    assert gradient_fits(halves)
    assert not gradient_fits(halves | {"c": halves_on("cuda:0", 1)})
    assert not gradient_fits(halves | {"c": halves_on("cuda:1", 26)})
    assert gradient_fits({"a": halves_on("cpu", 10**12)})


def test_units_the_losses_do_not_reach_have_zero_gradients(clip):
    stats = collect(clip, find_units(clip, TOWERS), image_terms(clip))
    assert all((s.forget_norm > 0) == (s.unit.tower == "image") for s in stats)
    assert all(s.cosine == 0 and s.weight_norm > 0 for s in stats if s.unit.tower == "text")


def test_stats_come_in_the_order_of_the_units(clip):
    units = find_units(clip, TOWERS)[::-1]
    assert [s.unit for s in collect(clip, units, image_terms(clip))] == units


def test_sums_of_a_linear_layer_worked_out_by_hand():
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    terms = {
        "forget": lambda: (model.weight * torch.tensor([[1.0, 2.0], [9.0, 9.0]])).sum(),
        "retain": lambda: (model.weight * torch.tensor([[-3.0, 4.0], [9.0, 9.0]])).sum(),
    }
    (stats,) = collect(model, [unit(Slice("weight", 0, 0, 1))], terms)
    assert (stats.forget_norm, stats.retain_norm) == pytest.approx((5**0.5, 5.0))
    assert (stats.weight_norm, stats.dot, stats.size) == pytest.approx((5.0, 5.0, 2))
    assert stats.cosine == pytest.approx(5 / (5**0.5 * 5))


@pytest.mark.parametrize("dot, cosine", [(2.0000001, 1.0), (-2.0000001, -1.0), (0.0, 0.0)])
def test_cosine_never_leaves_its_range(dot, cosine):
    assert UnitStats(unit(), 1.0, 2.0, 1.0, dot, 1).cosine == cosine


def test_gradient_of_gives_the_loss_and_one_tensor_per_slice(clip):
    units, terms = find_units(clip, TOWERS)[:2], image_terms(clip)
    value, grads = gradient_of(clip, units, terms["forget"], "forget")
    parameters = {name: p.requires_grad_() for name, p in clip.named_parameters()}
    loss = terms["forget"]()
    assert value == loss.item()
    for one, parts in zip(units, grads, strict=True):
        for where, part in zip(one.slices, parts, strict=True):
            (expected,) = torch.autograd.grad(loss, parameters[where.parameter], retain_graph=True)
            assert torch.allclose(part, where.view(expected), atol=1e-7)


# ---------------------------------------------------------------- the model is left as found


def test_collect_leaves_flags_gradients_and_hooks_as_found(used, weights_of, same_weights):
    before, weights = state_of(used), weights_of(used)
    collect(used, find_units(used, TOWERS), image_terms(used))
    assert same_state(used, before)
    assert same_weights(used, weights)


def test_collect_leaves_the_model_as_found_when_a_loss_raises(used):
    def broken():
        raise ZeroDivisionError("the loss's own error")

    before, terms = state_of(used), image_terms(used)
    for side in ("forget", "retain"):
        with pytest.raises(ZeroDivisionError, match="the loss's own error"):
            collect(used, find_units(used, TOWERS), terms | {side: broken})
        assert same_state(used, before)


def test_gradient_of_leaves_the_model_as_found(used):
    before = state_of(used)
    gradient_of(used, find_units(used, TOWERS)[:1], image_terms(used)["forget"], "forget")
    assert same_state(used, before)


def test_trainable_lets_gradients_flow_to_the_named_parameters_only(used):
    before = state_of(used)
    with trainable(used, ["visual.proj"]) as chosen:
        assert [name for name, p in used.named_parameters() if p.requires_grad] == ["visual.proj"]
        assert chosen["visual.proj"].grad is None
    assert same_state(used, before)


def test_gradients_flow_even_under_no_grad(clip):
    with torch.no_grad():
        stats = collect(clip, find_units(clip, TOWERS)[:1], image_terms(clip))
    assert stats[0].forget_norm > 0


# ---------------------------------------------------------------- NaN and infinity


@pytest.mark.parametrize("side", ["forget", "retain"])
def test_nan_loss_is_an_error_that_names_its_side(used, side):
    terms, before = image_terms(used), state_of(used)
    plain = terms[side]
    with pytest.raises(UnusableGradientError, match=f"^The {side} loss is nan; scores need a finite one"):
        collect(used, find_units(used, TOWERS), terms | {side: lambda: plain() * float("nan")})
    assert same_state(used, before)


@pytest.mark.parametrize("side", ["forget", "retain"])
def test_infinite_gradient_of_a_finite_loss_names_side_and_unit(side):
    model = nn.Linear(2, 1, bias=False)
    terms = {"forget": lambda: model.weight.sum(), "retain": lambda: model.weight.sum()}
    terms[side] = lambda: (0 * model.weight).sum().sqrt()
    with pytest.raises(UnusableGradientError, match=f"^The {side} gradient of 'image.0' has NaN or infinite values"):
        collect(model, [unit(Slice("weight"), name="image.0")], terms)
    with pytest.raises(UnusableGradientError, match=f"^The {side} gradient has NaN or infinite values"):
        gradient_of(model, [unit(Slice("weight"))], terms[side], side)
