"""On a CUDA device what the other tests show on a CPU: one real edit of each family. Skips where there is none."""

import pytest
import tiny_adapters
import tiny_vlms
import torch
from tiny_adapters import KINDS
from tiny_adapters import make_task as make_drawing_task

from razor import baselines, models, run, sources
from razor.adapters.diffusion import DiffusionAdapter
from razor.adapters.questions import Questions
from razor.adapters.vlm import VlmAdapter
from razor.attribution import head_gates, pixel_attribution
from razor.config import RazorConfig
from razor.cross_attention import before_after
from razor.gradients import collect
from razor.growth import Growth
from razor.patches import Patch
from razor.robustness import Case, attack
from razor.step import evaluate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TARGETS = {"mini-clip": "object:cat", "mini-sd": "style:mosaic", "mini-vlm": "style:mosaic"}


@pytest.fixture(scope="module", params=TARGETS)
def forgotten(request):
    """A bundled model on the card, its task, and a finished run of it."""
    adapter = models.load(request.param, device="cuda")
    before = {name: p.detach().cpu().clone() for name, p in adapter.model.named_parameters()}
    task, _ = sources.resolve(TARGETS[request.param])
    done = run.unlearn(adapter, task, RazorConfig())
    assert all(torch.equal(p.cpu(), before[name]) for name, p in adapter.model.named_parameters())
    return adapter, task, done


def bench_of(adapter, task):
    return adapter.bench(task, batch=None, mismatch_weight=1.0, seed=0)


def test_a_bundled_model_forgets_on_the_card(forgotten):
    adapter, _task, done = forgotten
    assert next(adapter.model.parameters()).is_cuda
    assert adapter.fingerprint() == models.load(adapter.name, device="cpu").fingerprint()
    assert done.before.forget_accuracy.value > 0.95 and done.reached
    assert done.after.forget_accuracy.value <= 0.1
    assert done.after.retain_accuracy.value > done.before.retain_accuracy.value - 0.05


def test_an_edit_made_on_the_card_does_the_same_on_a_cpu(forgotten, tmp_path):
    adapter, task, done = forgotten
    done.save(tmp_path)
    patch, off = Patch.load(tmp_path / "patch.safetensors"), models.load(adapter.name, device="cpu")
    bench = bench_of(off, task)
    before, there = (evaluate(off, bench, edit, "test") for edit in (Patch(), patch))
    assert before.forget_accuracy.value > 0.95
    assert abs(there.forget_accuracy.value - done.after.forget_accuracy.value) <= 0.05
    assert abs(there.retain_accuracy.value - done.after.retain_accuracy.value) <= 0.03


def test_an_edit_is_undone_bit_for_bit_on_the_card_also_when_the_body_raises(forgotten, weights_of, same_weights):
    adapter, _task, done = forgotten
    before = weights_of(adapter.model)
    with pytest.raises(KeyError), done.patch.applied(adapter.model):
        assert not same_weights(adapter.model, before)
        raise KeyError
    assert same_weights(adapter.model, before)


def test_copies_in_few_bits_and_relearning_run_on_the_card(forgotten):
    adapter, task, done = forgotten
    case = Case(adapter, task, done.patch)
    copied = next(iter(attack("quantise", case)))
    assert copied.control.value > copied.attacked.value
    taught = [found for found, _ in zip(attack("relearn", case), range(4), strict=False)]
    assert [found.steps for found in taught] == [1, 5, 10, 20]
    assert taught[-1].control.value > taught[0].attacked.value  # a control may have been measured at the end alone


def test_what_a_head_and_a_pixel_carry_is_found_on_the_card(forgotten):
    adapter, task, done = forgotten
    bench = bench_of(adapter, task)
    gates = head_gates(adapter, bench, adapter.units(("head",)), pictures=2, steps=4)
    assert gates is not None
    if adapter.family == "clip":
        shown = pixel_attribution(adapter, bench, task.forget.test[0].image, patch=done.patch)
        assert shown.before.isfinite().all()
    if adapter.family == "diffusion":
        before, after = before_after(adapter, done.patch, "a mosaic fish", 1, steps=3)
        assert before.maps.isfinite().all() and after.maps.isfinite().all()


def test_rivals_of_a_clip_run_on_the_card():
    adapter = models.load("mini-clip", device="cuda")
    task, _ = sources.resolve(TARGETS["mini-clip"])
    for method in baselines.NAMES["clip"]:
        assert baselines.run(method, adapter, task, baselines.Budget(steps=2, checks=1)).trials


def test_scores_are_the_same_where_the_forget_gradient_waits_in_the_computers_memory():
    adapter = models.load("mini-clip", device="cuda")
    task, _ = sources.resolve(TARGETS["mini-clip"])
    bench, units = bench_of(adapter, task), adapter.units(("head",))
    here = collect(adapter.model, units, bench.scoring_terms())
    there = collect(adapter.model, units, bench.scoring_terms(), sparing=True)
    for a, b in zip(here, there, strict=True):
        assert (b.forget_norm, b.retain_norm, b.dot) == pytest.approx((a.forget_norm, a.retain_norm, a.dot), rel=1e-4)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_model_whose_language_model_is_stored_in_few_bits_takes_an_edit_of_what_sees(bits, same_weights, weights_of):
    pytest.importorskip("bitsandbytes")
    adapter = models.load("mini-vlm", device="cuda", bits=bits)
    task, _ = sources.resolve(TARGETS["mini-vlm"])
    units, before = adapter.units(), weights_of(adapter.model)
    assert units and all(unit.tower != "language" for unit in units)
    growth = Growth(adapter, task, RazorConfig(**SHORT))
    assert growth.base.forget_accuracy.value > 0.9
    (done,) = growth.run()
    assert done.accepted and same_weights(adapter.model, before)
    with growth.patch.applied(adapter.model):
        assert not same_weights(adapter.model, before)
    assert same_weights(adapter.model, before)


QUESTIONS = Questions(
    ask=lambda axis: f"Which {axis} is it?",
    answer=lambda axis, name: name,
    neutral=lambda labels, axis: ["Is there a square?"],
)
SHORT = {"inner_steps": 2, "start_units": 2, "tau": 0.0, "batch": 4, "retain_budget": 1.0, "rounds": 1}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_in_half_precision_takes_an_edit_and_is_left_as_found(kind, dtype, weights_of, same_weights):
    pipeline = tiny_adapters.fresh(kind).pipeline.to("cuda", dtype)
    adapter = DiffusionAdapter(pipeline, name=f"tiny {kind}", steps=3, batch=4)
    before, picture = weights_of(adapter.model), adapter.draw(["red cat"], [3])[0].tobytes()
    growth = Growth(adapter, make_drawing_task(), RazorConfig(step_size=0.002, **SHORT))
    (done,) = growth.run()
    assert done.accepted and same_weights(adapter.model, before)
    with growth.patch.applied(adapter.model):
        assert not same_weights(adapter.model, before)
    assert same_weights(adapter.model, before) and adapter.draw(["red cat"], [3])[0].tobytes() == picture


@pytest.mark.parametrize("kind", tiny_vlms.KINDS)
def test_a_model_that_answers_takes_an_edit_in_bfloat16(kind, make_task, weights_of, same_weights):
    model, processor = tiny_vlms.tiny(kind, 0)
    adapter = VlmAdapter(model.to("cuda", torch.bfloat16), processor, name=f"tiny {kind}", questions=QUESTIONS)
    before = weights_of(adapter.model)
    growth = Growth(adapter, make_task(), RazorConfig(**SHORT))
    growth.scores()
    growth.next_round()
    assert growth.rounds and same_weights(adapter.model, before)
