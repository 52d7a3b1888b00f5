"""Who comes later to a task finds what is known of the unedited model, and nothing of what others do."""

from dataclasses import replace

import pytest
import tiny_vlms
import torch

from razor import sharing
from razor.adapters.answering import LEAD
from razor.adapters.vlm import VlmAdapter
from razor.config import RazorConfig
from razor.growth import Growth
from razor.patches import Patch
from razor.sharing import KEPT, bench_for
from razor.step import evaluate

CONFIG = RazorConfig(tau=0.0, inner_steps=3, rounds=1)


@pytest.fixture(autouse=True)
def all_bundled(monkeypatch):
    """Tiny models and tasks count as bundled, and none of them outlives its test."""
    monkeypatch.setattr(sharing, "_benches", {})
    for place in (sharing.models, sharing.tasks):
        monkeypatch.setattr(place, "stays", lambda _: True)


@pytest.fixture
def mine(task):
    """The task as an object of its own, which no other test has asked about."""
    return replace(task)


@pytest.fixture
def runs(trained):
    """How often either tower of the CLIP ran since, [n]."""
    count = [0]
    tick = lambda *_: count.__setitem__(0, count[0] + 1)  # noqa: E731
    handles = [m.register_forward_hook(tick) for m in (trained.model.visual, trained.model.transformer)]
    yield count
    for handle in handles:
        handle.remove()


def numbers(growth):
    return [(s.unit.name, s.phi) for s in growth.scores()]


def test_whoever_comes_second_begins_without_running_the_model(trained, mine, runs):
    first = Growth(trained, mine, CONFIG)
    scores, known = numbers(first), first.known
    assert runs[0] > 0
    runs[0] = 0
    second = Growth(trained, mine, CONFIG)
    assert second.known is known and second.base == first.base and numbers(second) == scores and runs[0] == 0
    second.rescore()  # somebody asked for it
    assert runs[0] > 0 and dict(numbers(second)) == pytest.approx(dict(scores))


def test_second_growths_go_the_way_of_the_first_bit_for_bit_and_apart(trained, mine):
    first = Growth(trained, mine, CONFIG)
    first.next_round()
    second = Growth(trained, mine, CONFIG)
    assert second.rounds == [] and second.bench is not first.bench and second.bench._recent is not first.bench._recent
    second.next_round()
    assert [d.trials for d in first.rounds] == [d.trials for d in second.rounds]
    assert all(second.patch.deltas[where].equal(delta) for where, delta in first.patch.deltas.items())


def test_scores_of_an_edited_model_are_never_taken_for_the_unedited_ones(trained, mine):
    growth = Growth(trained, mine, CONFIG)
    before = numbers(growth)
    growth.next_round()
    assert numbers(growth) != before and numbers(Growth(trained, mine, CONFIG)) == before


def test_other_settings_other_edits_beneath_and_equal_tasks_are_not_mixed_up(trained, mine, runs):
    base = bench_for(trained, mine)
    runs[0] = 0
    assert bench_for(trained, mine, batch=trained.batch).unedited is base.unedited and runs[0] == 0
    for others in ({"batch": 7}, {"seed": 3}, {"mismatch_weight": 0.0}):
        assert bench_for(trained, mine, **others).unedited is not base.unedited
    assert bench_for(trained, replace(mine)).unedited is not base.unedited
    parameters = dict(trained.model.named_parameters())
    where = trained.units(("head",), ("text",))[0].slices[0]
    beneath = Patch({where: torch.ones_like(where.view(parameters[where.parameter]))})
    assert bench_for(trained, mine, beneath=beneath).unedited is not base.unedited


def test_what_does_not_stay_loaded_is_not_kept(trained, mine, monkeypatch):
    for place in (sharing.models, sharing.tasks):
        with monkeypatch.context() as patched:
            patched.setattr(place, "stays", lambda _: False)
            assert bench_for(trained, mine).unedited is not bench_for(trained, mine).unedited
    assert not sharing._benches


def test_scores_under_other_settings_replace_those_kept(trained, mine):
    first, other = Growth(trained, mine, CONFIG), Growth(trained, mine, replace(CONFIG, rho=0.5))
    assert numbers(first) and len(first.bench.unedited) == 1
    name = first.units[0].name
    weaker, stronger = first.trial_of(name), (other.scores(), other.trial_of(name))[1]
    assert any(not stronger.deltas[where].equal(delta) for where, delta in weaker.deltas.items())
    assert len(first.bench.unedited) == 1


def test_scores_of_one_forget_loss_are_never_taken_for_those_of_another(make_task):
    adapter, task = VlmAdapter(*tiny_vlms.tiny("llava"), name="tiny"), make_task(each=2)
    answer, alignment = (Growth(adapter, task, replace(CONFIG, forget_loss=name)) for name in ("answer", "alignment"))
    found = [numbers(growth) for growth in (answer, alignment)]
    assert found[0] != found[1] and answer.bench.unedited is alignment.bench.unedited
    again = Growth(adapter, task, CONFIG)
    assert numbers(again) == found[0] and numbers(answer) == found[0] and numbers(alignment) == found[1]
    assert [g.bench.forget_loss for g in (answer, alignment, again)] == ["answer", "alignment", "answer"]


def test_only_the_benches_asked_for_last_are_kept(trained, make_task):
    tasks = [make_task(each=3) for _ in range(KEPT + 1)]
    first = bench_for(trained, tasks[0])
    for other in tasks[1:]:
        bench_for(trained, other)
    assert len(sharing._benches[trained]) == KEPT and bench_for(trained, tasks[0]).unedited is not first.unedited


def test_a_model_that_answers_is_asked_once_and_is_no_stricter_for_the_next_one(make_task):
    adapter, task = VlmAdapter(*tiny_vlms.tiny("llava"), name="tiny"), make_task(each=2)
    asked = []
    adapter.model.register_forward_pre_hook(lambda *_: asked.append(1))
    first = bench_for(adapter, task)
    found = {split: evaluate(adapter, first, Patch(), split) for split in ("search", "test")}
    first.measure, first.answers["edited"] = LEAD + 3, {}
    asked.clear()
    second = bench_for(adapter, task)
    assert {split: evaluate(adapter, second, Patch(), split) for split in found} == found and not asked
    assert second.measure == LEAD and second.answers == {"original": first.answers["original"]}
