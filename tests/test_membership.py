"""Whether an edit gives away what it was made from: the area by hand, and edits that do and do not."""

import math

import pytest
import tiny_adapters
import torch

from razor.adapters import denoising
from razor.errors import Stopped
from razor.membership import Membership, auc, membership, moved
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
    assert apart.value == apart.high == 1.0 and apart.low < 0.5  # three scores fall so by chance one time in three
    assert math.isnan(auc(torch.tensor([]), torch.tensor([1.0])).value)


def test_an_unedited_model_tells_nothing_more_than_itself(trained, task, weights_of, same_weights):
    bench, before = trained.bench(task, seed=0), weights_of(trained.model)
    found = membership(trained, bench, Patch())
    assert found.edited == found.original and not found.told and found.by == f"how close they are to {task.concept}"
    assert (found.moved.value, found.moved.low, found.moved.high) == (0.0, 0.0, 0.0)
    assert (found.members, found.unseen) == (len(task.forget.gradient), len(task.forget.test))
    assert found.gold is None and found.to_json()["gold"] is None
    assert found.to_json()["edited"] == found.original.to_json() and same_weights(trained.model, before)


def test_a_model_that_never_saw_the_concept_is_asked_about_the_same_pictures(trained, task, wrap, make_clip):
    never = wrap(make_clip(), "gold")
    bench, other = trained.bench(task, seed=0), never.bench(task, seed=0)
    found = membership(trained, bench, Patch(), gold=(never, other))
    assert found.gold == membership(never, other, Patch()).original and found.gold.n == found.edited.n
    assert found.to_json()["gold"] == found.gold.to_json()
    gold = f"{found.gold.value:.2f} ({found.gold.low:.2f} to {found.gold.high:.2f})"
    assert f"In a model that never saw it, it is {gold}." in membership_text(found, task.concept)


def test_it_ends_where_it_is_stopped(trained, task):
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        membership(trained, trained.bench(task, seed=0), Patch(), stop=lambda: next(asked))


@pytest.mark.parametrize("kind", tiny_adapters.KINDS)
def test_a_pipeline_recalls_a_picture_by_how_well_it_predicts_its_noise(kind, monkeypatch):
    adapter, made = tiny_adapters.shared(kind), tiny_adapters.make_task(each=2)
    bench, told = adapter.bench(made, seed=0), []
    found = membership(adapter, bench, Patch())
    assert found.edited == found.original and (found.members, found.unseen) == (4, 4)
    assert "predicts their noise when asked for cat" in membership_text(found, "cat")
    exact = adapter.noised
    monkeypatch.setattr(adapter, "noised", lambda *given: told.append(exact(*given)) or told[-1])
    off = torch.arange(4.0).repeat_interleave(len(denoising.RECALLED))  # the first picture is predicted best
    monkeypatch.setattr(bench, "_predicted", lambda *_: told[-1][2] + off.reshape(-1, 1, 1, 1))
    assert bench.recall("test").tolist() == pytest.approx([0.0, -1.0, -4.0, -9.0], abs=1e-4)


def test_what_the_edit_moved_is_measured_over_the_same_pictures():
    before = [torch.arange(40.0), torch.arange(40.0) + 0.5]
    same = moved(before, before)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    hidden = moved([torch.arange(40.0) - 100, torch.arange(40.0)], before)  # the edit pushed its own examples further
    assert hidden.value == pytest.approx(-auc(*before).value) and hidden.high < -0.2


def test_only_what_the_edit_did_counts_against_it():
    def found(edited, original, way):
        return Membership(
            *(Measure(value, 20, low, high) for value, low, high in (edited, original, way)),
            8,
            12,
            "how close they are to cat",
        )

    guess = found((0.52, 0.4, 0.64), (0.5, 0.4, 0.6), (0.02, -0.1, 0.1))
    said = membership_text(guess, "cat")
    assert not guess.told and "does not give away" in said and "Counted on 8 used and 12 unseen pictures" in said
    assert "0.52 (0.40 to 0.64); 0.5 is a guess" in said and "moved it by +0.02, -0.10 to +0.10." in said
    assert "In the unedited model it is 0.50 (0.40 to 0.60)" in said and "never saw it" not in said
    apart = found((0.7, 0.6, 0.8), (0.68, 0.58, 0.78), (0.02, -0.05, 0.09))  # no matched sets to begin with
    assert not apart.told
    acted = found((0.7, 0.6, 0.8), (0.9, 0.8, 1.0), (-0.2, -0.3, -0.1))  # on what the sets differ in, or on members
    assert acted.told is None and "cannot be said, as the unedited model tells them" in membership_text(acted, "cat")
    gone = found((0.2, 0.1, 0.3), (0.5, 0.4, 0.6), (-0.3, -0.4, -0.2))
    assert gone.told and "The edit gives away which pictures of cat" in membership_text(gone, "cat")
