"""The three terms against values worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from razor import losses

HALF = 0.5**0.5


def unit_vectors(n, d, seed=0):
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


# ---------------------------------------------------------------- alignment


def test_alignment_is_the_mean_of_one_minus_cosine():
    v = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-2.0, 0.0], [1.0, 1.0]])  # cosines 1, 0, -1, 0.707
    assert losses.alignment(v, torch.tensor([3.0, 0.0])).item() == pytest.approx((0 + 1 + 2 + 1 - HALF) / 4)


def test_alignment_with_one_text_per_picture():
    v, t = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert losses.alignment(v, t).item() == pytest.approx(0.5)


def test_below_the_floor_a_picture_adds_one_minus_floor_and_no_gradient():
    v = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], requires_grad=True)  # cosines 0.707, -0.707
    loss = losses.alignment(v, torch.tensor([1.0, 0.0]), floor=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(((1 - HALF) + (1 - 0.2)) / 2)
    assert v.grad[0].norm() > 0 and v.grad[1].norm() == 0


def test_every_picture_may_have_a_floor_of_its_own():
    v = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)  # both cosines 1/sqrt(2)
    loss = losses.alignment(v, torch.tensor([1.0, 1.0]), floor=torch.tensor([0.9, 0.1]))
    loss.backward()
    assert loss.item() == pytest.approx((0.1 + 1 - HALF) / 2)
    assert v.grad[0].norm() == 0 and v.grad[1].norm() > 0


def test_ascending_alignment_lowers_the_cosine():
    v, t = unit_vectors(5, 4).requires_grad_(), unit_vectors(1, 4, seed=1)[0]
    losses.alignment(v, t).backward()
    before, after = (F.cosine_similarity(x, t[None], dim=-1) for x in (v.detach(), (v + 0.1 * v.grad).detach()))
    assert (after < before).all()


# ---------------------------------------------------------------- contrastive


def test_with_no_shared_captions_it_is_the_textbook_symmetric_infonce():
    v, t = unit_vectors(6, 8), unit_vectors(6, 8, seed=1)
    logits, truth = 10 * v @ t.T, torch.arange(6)
    expected = (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2
    assert losses.contrastive(v, t, torch.eye(6) > 0, 10.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_equal_captions_share_the_positive():
    # Pictures 0 and 1 have the same caption. With scale ln 2 the logits are ln2, ln2, 0 / ln2, ln2, 0 / 0, 0, ln2,
    # so the rows' probabilities are 2/5, 2/5, 1/5 / 2/5, 2/5, 1/5 / 1/4, 1/4, 2/4, and the columns' the same.
    v = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]) > 0
    expected = (2 * -math.log(2 / 5) - math.log(2 / 4)) / 3
    assert losses.contrastive(v, v, same, math.log(2)).item() == pytest.approx(expected, rel=1e-6)


def test_perfect_pairs_at_a_low_temperature_cost_nothing():
    v = torch.eye(4)
    assert losses.contrastive(v, v, torch.eye(4) > 0, 100.0).item() == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------- drift


def test_drift_is_zero_with_zero_gradient_at_the_frozen_similarities_and_positive_elsewhere():
    term = lambda similarity, reference: losses.drift(similarity, reference, 20.0)  # noqa: E731
    reference = unit_vectors(5, 8) @ unit_vectors(7, 8, seed=1).T
    similarity = reference.clone().requires_grad_()
    still = term(similarity, reference)
    still.backward()
    assert still.item() == pytest.approx(0, abs=1e-6)
    assert similarity.grad.abs().max() < 1e-6
    assert term(reference + 0.1 * torch.randn(5, 7, generator=torch.Generator().manual_seed(2)), reference) > 1e-3


def test_drift_worked_out_by_hand():
    # reference (1/2, 1/2), similarity (2/3, 1/3): KL = 1/2 ln(3/4) + 1/2 ln(3/2)
    similarity = torch.tensor([[math.log(2), 0.0]])
    expected = 0.5 * math.log(3 / 4) + 0.5 * math.log(3 / 2)
    assert losses.drift(similarity, torch.zeros(1, 2), 1.0).item() == pytest.approx(expected, rel=1e-5)


def test_drift_is_a_mean_over_pictures():
    one, reference = torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2)
    expected = losses.drift(one, reference, 3.0).item()
    assert losses.drift(one.repeat(4, 1), reference.repeat(4, 1), 3.0).item() == pytest.approx(expected)
