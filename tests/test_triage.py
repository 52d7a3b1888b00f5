"""What became of each case: by hand, and over what a CLIP, a pipeline and a model that answers are asked."""

from dataclasses import replace

import pytest
import tiny_adapters
import tiny_vlms

from components.triage import triage_html
from razor.adapters.vlm import VlmAdapter
from razor.config import RazorConfig
from razor.growth import Growth
from razor.metrics import Evaluation, Measure, share
from razor.patches import Patch
from razor.step import evaluate
from razor.triage import CORRECTLY, KEPT, NEVER, NOT, OVERLY, asked, triage


def of(*hits):
    measure = share(hits)
    return Evaluation(measure, measure, measure, None, None, None)


def test_every_case_has_a_verdict_by_what_was_and_is():
    found = triage(of(1, 1, 0, 0), of(0, 1, 0, 1))
    assert found["forget"].verdicts == (CORRECTLY, NOT, NEVER, NOT)
    assert found["retain"].verdicts == (OVERLY, KEPT, NEVER, NEVER)
    counted = found["forget"].count(NOT)
    assert (counted.value, counted.n, counted.low) == (0.5, 4, share([1, 1, 0, 0]).low)


def test_neighbours_are_counted_by_themselves_and_cases_nobody_told_of_are_left_out():
    near = replace(of(1, 0), neighbor_accuracy=share([1, 1]))
    assert triage(near, near)["neighbours"].count(KEPT).value == 1
    read = Evaluation.from_json(near.to_json())
    assert triage(read, near) == triage(near, of(1, 0, 1)) == {}


def test_cases_of_a_clip_stand_in_the_order_they_are_counted_in(trained, task):
    growth = Growth(trained, task, RazorConfig())
    before = evaluate(trained, growth.bench, Patch(), "test")
    shown = asked(growth)
    assert [len(shown["forget"]), len(shown["retain"])] == [before.forget_accuracy.n, before.retain_accuracy.n]
    last = Measure(0.0, before.forget_accuracy.n, 0.0, 0.3, bytes(before.forget_accuracy.n - 1) + b"\x01")
    page = triage_html(growth, before, replace(before, forget_accuracy=last))
    caption = task.forget.test[-1].caption
    assert "Not forgotten: 1</summary>" in page and f'alt="{caption}"' in page and "Overly forgotten:" not in page
    assert "test pictures" in page and page.count("<tr>") == 1 + 2 + (before.neighbor_accuracy is not None)
    assert triage_html(growth, Evaluation.from_json(before.to_json()), before) == ""


class Sees:
    name, guesses = "a stand-in", False

    def reads(self, axes):
        return True

    def __call__(self, pictures, axes):
        return [{axis.name: axis.classes[0] for axis in axes} for _ in pictures]


def test_cases_of_a_pipeline_are_the_pictures_drawn_with_the_edit(weights_of):
    adapter, made = tiny_adapters.fresh("sd", judge=Sees()), tiny_adapters.make_task()
    growth = Growth(adapter, made, RazorConfig())
    unit = adapter.units(("head",), adapter.growing)[0]
    parameters = dict(adapter.model.named_parameters())
    patch = Patch({s: 0.1 * s.view(parameters[s.parameter]).detach().sign() for s in unit.slices})
    before, after = (evaluate(adapter, growth.bench, edit, "test") for edit in (Patch(), patch))
    shown = asked(growth)
    assert [len(shown["forget"]), len(shown["retain"])] == [after.forget_accuracy.n, after.retain_accuracy.n]
    assert shown["forget"][0][0] is growth.bench.pictures["edited"]["forget"][0]
    assert "drawn pictures" in triage_html(growth, before, after)


def test_cases_of_a_model_that_answers_are_its_questions(make_task):
    adapter, made = VlmAdapter(*tiny_vlms.tiny("llava", 0), name="tiny-vlm"), make_task(each=1)
    growth = Growth(adapter, made, RazorConfig())
    before = evaluate(adapter, growth.bench, Patch(), "test")
    shown = asked(growth)
    assert [len(shown["forget"]), len(shown["retain"])] == [before.forget_accuracy.n, before.retain_accuracy.n]
    assert triage_html(growth, before, before).count("<tr>") >= 3


@pytest.mark.parametrize("words", ['"><script>'])
def test_captions_reach_the_page_as_text(trained, task, words):
    few = replace(task, forget=replace(task.forget, test=tuple(replace(e, caption=words) for e in task.forget.test)))
    growth = Growth(trained, few, RazorConfig())
    before = evaluate(trained, growth.bench, Patch(), "test")
    assert "<script>" not in triage_html(growth, before, before)
