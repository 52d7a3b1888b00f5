"""Every method to its end on tiny models: a result of the usual kind, and a model that is bit for bit what it was."""

import copy
import json
import random
from functools import cache
from types import SimpleNamespace

import pytest
import tiny_vlms
import torch
from tiny_adapters import fresh
from tiny_adapters import make_task as make_drawing_task

from razor import baselines
from razor import step as step_module
from razor.adapters.answering import VlmBench
from razor.adapters.clip import ClipBench
from razor.adapters.vlm import VlmAdapter
from razor.baselines import ABLATIONS, NAMES, Budget, run
from razor.baselines import ablations as ablations_module
from razor.baselines import slug as slug_module
from razor.baselines.compare import find
from razor.baselines.tuning import Tuning
from razor.config import RazorConfig
from razor.errors import InputError, ModelError, Stopped
from razor.patches import Patch
from razor.step import evaluate
from razor.units import Slice

SHORT = Budget(steps=2, checks=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Of every grid its first and last setting, and fewer lengths and step sizes than it takes to be good."""
    settings = Tuning.settings
    monkeypatch.setattr(Tuning, "settings", lambda self, grid: settings(self, [grid[0], grid[-1]][: len(grid)]))
    monkeypatch.setattr(slug_module, "LENGTHS", 2)
    monkeypatch.setattr(ablations_module, "SIZES", ({"step size": 0.02},))


@pytest.fixture(scope="module")
def pipeline():
    """A tiny Stable Diffusion of its own, whose pictures nobody judges."""
    return fresh("sd")


def alike(adapter):
    """A copy of all weights."""
    return {name: tensor.clone() for name, tensor in adapter.model.state_dict().items()}


def unchanged(adapter, before):
    now = adapter.model.state_dict()
    gradients = any(p.requires_grad or p.grad is not None for p in adapter.model.parameters())
    return all(torch.equal(now[name], before[name]) for name in before) and not gradients


def check_result(result, adapter, name, before):
    assert unchanged(adapter, before)
    assert result.name == name and result.known and result.trials and result.chosen in result.trials
    assert all(trial.evaluation is not None and not trial.note for trial in result.trials)
    assert result.after is not None and not result.diverged and result.patch.deltas
    assert 0 < result.parameters_edited <= result.patch.parameters_edited
    assert result.seconds["total"] == pytest.approx(sum(result.seconds[k] for k in ("encode", "tuning", "report")))
    assert result.passes == 0 or 0 < result.chosen.passes <= result.passes


# ---------------------------------------------------------------- CLIP


def test_the_model_knows_what_is_to_be_forgotten(trained, task):
    bench = trained.bench(task)
    assert evaluate(trained, bench, Patch(), "test").forget_accuracy.value > 0.95


@pytest.mark.parametrize("name", NAMES["clip"])
def test_every_method_runs_to_its_end_on_clip_and_leaves_it_bit_equal(trained, task, name):
    before = alike(trained)
    seen, shares = [], []
    result = run(name, trained, task, SHORT, batch=16, on_trial=seen.append, progress=shares.append)
    check_result(result, trained, name, before)
    assert seen == list(result.trials) and shares == sorted(shares) and shares[-1] == 1.0
    assert result.before.forget_accuracy.value > 0.95


def test_a_result_says_what_its_patch_does_and_survives_its_file(trained, task, tmp_path):
    result = run("ssd", trained, task, SHORT, batch=16)
    bench = trained.bench(task, batch=16)
    for split in ("search", "test"):
        evaluate(trained, bench, Patch(), split)
    assert evaluate(trained, bench, result.patch, "test") == result.after
    assert evaluate(trained, bench, result.patch, "search") == result.chosen.evaluation
    result.save(tmp_path)
    again = Patch.load(tmp_path / "patch.safetensors")
    again.check(trained.model)
    assert again.key() == result.patch.key() and again.recipe["baseline"]["setting"] == dict(result.chosen.setting)
    written = json.loads((tmp_path / "run.json").read_text())
    assert len(written["grid"]) == len(result.trials) and written["chosen"] in written["grid"]
    assert written["reached_on_search_split"] == result.reached and not written["diverged"]


def test_taking_out_the_texts_forgets_the_colour_and_keeps_the_others_on_unseen_pictures(trained, task):
    result = run("null-space", trained, task)
    assert result.reached and result.after.forget_accuracy.value <= 0.1 < 0.95 < result.before.forget_accuracy.value
    assert result.after.retain_accuracy.value > 0.85


def test_the_same_seed_gives_the_same_edit(trained, task):
    first, second = (run("ascent-retain", trained, task, SHORT, batch=8, seed=3) for _ in range(2))
    assert first.patch.key() == second.patch.key()


@pytest.mark.parametrize("ending", ["stop", "raise"])
def test_the_model_is_bit_equal_when_a_run_is_stopped_or_raises(trained, task, monkeypatch, ending):
    before, calls = alike(trained), []
    gradient = Tuning.gradient

    def counted(self, *args):
        calls.append(1)
        if ending == "raise" and len(calls) == 4:
            raise RuntimeError("out of memory")
        return gradient(self, *args)

    monkeypatch.setattr(Tuning, "gradient", counted)
    if ending == "stop":
        assert run("salun", trained, task, SHORT, batch=8, stop=lambda: len(calls) > 3).stopped
    else:
        with pytest.raises(RuntimeError, match="out of memory"):
            run("salun", trained, task, SHORT, batch=8)
    assert len(calls) == 4 and unchanged(trained, before)


def test_a_run_that_is_stopped_gives_the_best_of_what_was_tried(trained, task, tmp_path, monkeypatch):
    before, tried = alike(trained), []
    stopped = lambda: run(  # noqa: E731
        "null-space", trained, task, SHORT, on_trial=tried.append, stop=lambda: len(tried) % 2 == 1
    )
    result = stopped()
    assert unchanged(trained, before) and list(result.trials) == tried[:1] and result.chosen is tried[0]
    assert result.stopped and not result.diverged and result.note == "Stopped; best of 1 setting so far."
    assert result.after.forget_accuracy.n == 10 and result.patch.deltas
    assert result.save(tmp_path)["stopped"] and Patch.load(tmp_path / "patch.safetensors").recipe["baseline"]
    tried.clear()
    monkeypatch.setattr(trained, "embeds", False)  # measuring takes long where answers are drawn or written
    result = stopped()
    assert result.after is None and result.note == "Stopped; best of 1 setting so far, on the search split alone."
    assert result.to_json(0)["grid"] == [tried[0].to_json()] and not result.diverged
    with pytest.raises(Stopped):  # nothing was tried
        run("null-space", trained, task, SHORT, stop=lambda: True)


def test_a_run_out_of_time_reports_what_it_has(trained, task, monkeypatch):
    monkeypatch.setattr(Tuning, "_late", lambda self: len(self.trials) >= 1)
    result = run("null-space", trained, task, Budget(seconds=60))
    assert len(result.trials) == 1 and result.chosen and result.after
    assert result.note == "The 60 seconds were used up before every setting was tried."


def test_a_method_that_diverges_says_so_and_changes_nothing(trained, task, monkeypatch):
    before = alike(trained)
    monkeypatch.setattr(ClipBench, "scoring_terms", lambda self, draw=0: dict.fromkeys(("forget", "retain"), overflow))
    for name in ("ascent", "ssd"):
        result = run(name, trained, task, SHORT)
        assert result.diverged and result.after is None and result.patch.deltas == {} and not result.reached
        written = result.to_json(0)
        assert written["diverged"] and written["after"] is None and written["chosen"] is None
        assert written["grid"][0]["note"] == "diverged: the loss or its gradient is not finite"
    assert unchanged(trained, before)


def overflow():
    return torch.tensor(torch.inf)


def test_there_is_nothing_to_do_where_the_concept_is_not_known(wrap, make_clip, task):
    adapter = wrap(make_clip(seed=4))
    base = evaluate(adapter, adapter.bench(task), Patch(), "search")
    if base.forget_accuracy.value > task.chance:  # this guesser happens to say "red": another says something else
        adapter = wrap(copy.deepcopy(adapter.model))
        adapter.bench(task)
        with torch.no_grad():
            adapter.model.visual.proj.neg_()
    result = run("ascent", adapter, task, SHORT)
    assert not result.known and result.trials == () and result.after == result.before and result.chosen is None
    assert result.note == "The unedited model does not know 'red'."


def test_edits_the_model_carries_already_lie_beneath(trained, task):
    """A projection is taken out of the weights as they are with the earlier edit, so its change differs."""
    beneath = Patch({Slice("visual.proj"): 0.05 * torch.ones(32, 32)})
    alone, above = (run("null-space", trained, task, SHORT, beneath=b) for b in (Patch(), beneath))
    (first,), (second,) = alone.patch.deltas.values(), above.patch.deltas.values()
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("name, family", [("uce", "clip"), ("cliperase", "vlm"), ("razor", "vlm"), ("x", "vlm")])
def test_an_unknown_method_is_one_sentence(name, family):
    if name == "razor":
        assert find(name, family) is ABLATIONS["razor"]
        return
    with pytest.raises(InputError, match=rf"^There is no method '{name}' for a {family} model; choose one of "):
        find(name, family)


def test_names_are_functions_by_name():
    assert set(NAMES) == {"clip", "vlm", "diffusion"} and all(callable(m) for ms in NAMES.values() for m in ms.values())
    assert not set(ABLATIONS) & {name for methods in NAMES.values() for name in methods}
    assert baselines.NAMES is NAMES


# ---------------------------------------------------------------- RAZOR without one of its parts


@pytest.fixture
def configs(monkeypatch):
    """The settings each ablation starts from, and nothing else happens."""
    seen = []

    class Recorded:
        def __init__(self, adapter, task, config, *, beneath):
            seen.append(config)
            self.config, self.rounds, self.patch = config, [], Patch()

        def run(self, stop):
            return []

    monkeypatch.setattr(ablations_module, "Growth", Recorded)
    return seen


EXPECTED = {
    "razor": {},
    "no-retain": {"retain_weight": 0.0},
    "no-mismatch": {"mismatch_weight": 0.0},
    "no-forget": {"rho": 0.0},
    "all-layers": {
        "step_size": 0.002,
        "granularity": ("layer",),
        "tau": 0.0,
        "start_units": 256,
        "inner_steps": 96,
        "rounds": 1,
    },
    "no-growth": {"rounds": 1},
    "one-step": {"inner_steps": 1},
    "paper": {"inner_steps": 1, "start_units": 1, "granularity": ("head", "layer")},
    "alpha-0": {"alpha": 0.0},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_ablation_is_a_change_of_settings(trained, task, configs, name):
    run(name, trained, task, forget_target=0.2, seed=5)
    config = configs[0]
    plain = {"step_size": 0.02, "forget_target": 0.2, "seed": 5}
    default = RazorConfig()
    changed = {key: value for key, value in vars(config).items() if value != getattr(default, key)}
    assert changed == {key: value for key, value in (plain | EXPECTED[name]).items() if value != getattr(default, key)}
    assert set(EXPECTED) | {"random-units"} == set(ABLATIONS)


def test_all_layers_at_once_are_tuned_over_finer_steps():
    tried = []
    ABLATIONS["all-layers"](SimpleNamespace(settings=lambda grid: tried.extend(s["step size"] for s in grid) or ()))
    assert sorted(tried) == [0.001, 0.002, 0.005]


def test_without_forgetting_every_step_follows_what_is_kept_and_leaves_the_concept(trained, task, monkeypatch):
    asked = []
    fused = step_module._fused
    monkeypatch.setattr(step_module, "_fused", lambda f, k, rho, w: asked.append(rho) or fused(f, k, rho, w))
    result = run("no-forget", trained, task, batch=16)
    assert set(asked) == {0.0} and not result.reached and result.after.forget_accuracy.value > 0.8
    with pytest.raises(InputError, match=r"^rho is 0; it must be a number from 0.01 to 1\.$"):
        RazorConfig(rho=0)


def test_random_units_are_drawn_by_lot_one_more_a_round(trained, task, monkeypatch):
    grown = []
    start = ablations_module.start
    monkeypatch.setattr(ablations_module, "start", lambda *a, **k: grown.append(start(*a, **k)) or grown[-1])
    before = alike(trained)
    result = run("random-units", trained, task, seed=1)
    (growth,) = grown
    names = [s.unit.name for s in growth.candidates(growth.scores())]
    taken = [[s.unit.name for s in done.added] for done in growth.rounds]
    assert len(taken[0]) == 4 and {name for each in taken for name in each} <= set(names)
    by_lot = sorted(names, key=lambda name: random.Random(f"1/{name}").random())
    assert taken[0] == by_lot[:4]
    highest = [s.unit.name for s in sorted(growth.candidates(growth.scores()), key=lambda s: s.rank)][:4]
    assert set(taken[0]) != set(highest)
    assert result.chosen.setting["rounds"] == len(growth.rounds) and unchanged(trained, before)


def test_razor_as_a_method_is_razor(trained, task):
    from razor.run import unlearn

    result, own = run("razor", trained, task), unlearn(trained, task, RazorConfig())
    assert result.patch.key() == own.patch.key() and result.after == own.after and result.reached == own.reached
    assert result.passes == sum(2 + 2 * len(done.trials) for done in own.rounds)


# ---------------------------------------------------------------- pipelines


@pytest.mark.parametrize("name", NAMES["diffusion"])
def test_every_method_runs_to_its_end_on_a_pipeline_and_leaves_it_bit_equal(pipeline, name):
    before = alike(pipeline)
    result = run(name, pipeline, make_drawing_task(), SHORT, batch=4)
    check_result(result, pipeline, name, before)
    towers = {pipeline.tower_of(where.parameter) for where in result.patch.deltas}
    assert towers == ({"text"} if name in ("diffquickfix", "slug") else {"cross"})


# ---------------------------------------------------------------- models that answer


@pytest.mark.parametrize("name", NAMES["vlm"])
def test_every_method_runs_to_its_end_on_a_model_that_answers_and_leaves_it_bit_equal(name, make_task, monkeypatch):
    monkeypatch.setattr(VlmBench, "knows", lambda self, base: True)  # its weights are random
    adapter = speaker()
    before = alike(adapter)
    result = run(name, adapter, make_task(each=2), SHORT, batch=4)
    check_result(result, adapter, name, before)
    assert {adapter.tower_of(where.parameter) for where in result.patch.deltas} == {"language"}


@cache
def speaker():
    """A tiny LLaVA of random weights: leave it as found."""
    return VlmAdapter(*tiny_vlms.tiny("llava", 0), name="tiny-vlm")


def test_a_pipeline_that_draws_nan_is_reported(pipeline, monkeypatch):
    bench = type(pipeline.bench(make_drawing_task()))

    def broken(self, stop):
        raise ModelError("The pictures came out as NaN in float32.")

    monkeypatch.setattr(bench, "confirm", broken)
    monkeypatch.setattr("razor.baselines.tuning.meets", lambda now, target: True)
    result = run("diffquickfix", pipeline, make_drawing_task(), SHORT)
    assert result.diverged and result.after is None and result.patch.deltas == {}
    assert {trial.note for trial in result.trials} == {"diverged: The pictures came out as NaN in float32."}
