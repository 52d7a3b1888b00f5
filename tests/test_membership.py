"""Whether an edit gives away what it was made from: the area by hand, and edits that do and do not."""

import math

import pytest
import torch

from razor.membership import Membership, auc, membership
from razor.metrics import Measure
from razor.patches import Patch
from razor.telling import membership_text


def test_the_area_by_hand():
    # of 2 x 3 pairs: 3 over 1, 2 and 3 is two wins and a tie, 1 over them a tie and two losses
    found = auc(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert found.value == pytest.approx((2.5 + 0.5) / 6) and found.n == 5
    # Hanley and McNeil at 0.5: q1 = q2 = 1 / 3, so (0.25 + 9 / 12 + 19 / 12) / 200 for 10 and 20 that are all alike
    half, alike = 1.959964 * math.sqrt((0.25 + 9 / 12 + 19 / 12) / 200), auc(torch.zeros(10), torch.zeros(20))
    assert (alike.low, alike.value, alike.high) == pytest.approx((0.5 - half, 0.5, 0.5 + half))
    apart = auc(torch.tensor([2.0, 2.0]), torch.tensor([1.0]))
    assert (apart.value, apart.low, apart.high) == (1.0, 1.0, 1.0)
    assert math.isnan(auc(torch.tensor([]), torch.tensor([1.0])).value)


def test_an_unedited_model_tells_nothing_more_than_itself(trained, task, weights_of, same_weights):
    bench, before = trained.bench(task, seed=0), weights_of(trained.model)
    found = membership(trained, bench, Patch())
    assert found.edited == found.original
    assert (found.members, found.unseen) == (len(task.forget.gradient), len(task.forget.test))
    assert found.to_json()["edited"] == found.original.to_json() and same_weights(trained.model, before)


def test_a_model_that_embeds_nothing_is_not_asked(trained, task, monkeypatch):
    monkeypatch.setattr(trained, "embeds", False)
    assert membership(trained, trained.bench(task, seed=0), Patch()) is None


def test_what_can_be_told_is_said_either_way():
    guess, original = Measure(0.52, 20, 0.4, 0.64), Measure(0.5, 20, 0.4, 0.6)
    said = membership_text(Membership(guess, original, 8, 12), "cat")
    assert "no better than by guessing: area under the curve 0.52, 0.40 to 0.64 (8 used, 12 unseen" in said
    lower = membership_text(Membership(Measure(0.2, 20, 0.1, 0.3), original, 8, 12), "cat")
    assert "can be told from unseen ones" in lower and "0.20, 0.10 to 0.30" in lower
