"""Pictures on two sides of an edit: which prompts, drawn once and from the same noise, and what is said of them."""

import threading
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_pipelines import tiny_sd
from torch import nn

from razor.adapters.diffusion import DiffusionAdapter, seeds_for
from razor.errors import InputError, ModelError
from razor.examples import Axis, Example, Split, Task
from razor.minicanvas import captions
from razor.patches import Patch
from razor.picture_files import Album, read_png
from razor.pictures import (
    CONCEPT,
    GROUPS,
    Drawn,
    DrawSettings,
    Easel,
    Prompt,
    Side,
    Sketch,
    own_prompts,
    pair_jobs,
    passes,
    seen_words,
    streamed,
    suggested,
    verdict,
)
from razor.units import Slice

OBJECTS, STYLES, PEOPLE = ("cat", "dog", "boat", "tree"), ("photo", "neon", "sketch"), ("Mira Voss",)


# A fake model, whose pictures show its prompt, seed and weight ----------------------------------------------------


class Painter:
    """Draws one grey level a picture, from its seed and the model's one weight; as much of an adapter as is used."""

    family, name, steps, guidance, side, native_side, judge = "diffusion", "painter", 10, 4.0, 16, 16, None

    def __init__(self):
        self.model = nn.Module()
        self.model.weight = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.calls, self.previews = [], 0

    def fingerprint(self):
        return "0123456789abcdef"

    def check_drawing(self, prompts, steps, guidance, side):
        if steps > 100:
            raise InputError("too many steps")

    def draw(self, prompts, seeds, *, steps, guidance, side, on_step, stop):
        self.calls.append((tuple(prompts), tuple(seeds), steps, guidance, side, float(self.model.weight[0])))
        for step in range(1, steps + 1):
            on_step(step, torch.zeros(len(prompts), 4, 2, 2))
            if stop():
                return []
        shift = int(self.model.weight[0])
        return [Image.new("RGB", (side, side), ((seed + shift) % 256,) * 3) for seed in seeds]

    def preview(self, latents):
        self.previews += 1
        return [Image.new("RGB", (16, 16))] * len(latents)


class Eyes:
    """A judge who sees the class that a grey level stands for."""

    name = "a test's eyes"

    def __init__(self):
        self.asked = 0

    def reads(self, axes):
        return True

    def __call__(self, images, axes):
        self.asked += len(images)
        return [
            {axis.name: axis.classes[image.getpixel((0, 0))[0] % len(axis.classes)] for axis in axes}
            for image in images
        ]


def edit(by=1.0):
    return Patch({Slice("weight", 0, 0, 4): torch.full((4,), by)})


def sides(by=1.0, recipe=None):
    return [Side("original"), Side("edited", edit(by), recipe or {})]


@pytest.fixture
def painter():
    return Painter()


@pytest.fixture
def easel(painter, tmp_path):
    return Easel(painter, Album(tmp_path))


SETTINGS = DrawSettings(7, 10, 4.0, 16)


def specs(*texts, settings=SETTINGS):
    return [settings.spec(prompt) for prompt in own_prompts("\n".join(texts))]


def drawn(easel, jobs, **more):
    events = []
    easel.draw(jobs, report=events.append, **more)
    return events, {event.job.place: event for event in events if isinstance(event, Drawn)}


# A task of the bundled world's words, without its pictures ------------------------------------------------------------


def example(labels, number):
    return Example(Image.new("RGB", (8, 8)), captions.full_caption(labels), labels, f"test/{number}")


def world_task(axis="style", concept="neon", near=("sketch",)):
    kinds = [{"object": o, "style": s} for o in OBJECTS for s in STYLES] + [{"identity": name} for name in PEOPLE]
    forget = tuple(example(k, i) for i, k in enumerate(kinds) if k.get(axis) == concept)
    retain = tuple(example(k, i) for i, k in enumerate(kinds) if k.get(axis) != concept)
    axes = tuple(
        Axis(name, {c: (c,) for c in classes})
        for name, classes in (("object", OBJECTS), ("style", STYLES), ("identity", PEOPLE))
    )
    same = lambda examples: Split(examples, examples, examples)  # noqa: E731
    return Task(concept, axis, axes, near, same(forget), same(retain))


def named_task(concept="garbage truck"):
    """A task from words alone: one axis, every prompt from a template."""
    forget = tuple(Example(Image.new("RGB", (8, 8)), f"a photo of a {concept}", {"label": concept}) for _ in range(3))
    names = ("bus", "house", "tree")
    retain = tuple(Example(Image.new("RGB", (8, 8)), f"a photo of a {n}", {"label": n}) for n in names)
    axis = Axis("label", {n: (n,) for n in (concept, *names)})
    same = lambda examples: Split(examples, examples, examples)  # noqa: E731
    return Task(concept, "label", (axis,), ("bus",), same(forget), same(retain))


# Prompts --------------------------------------------------------------------------------------------------------------


def test_eight_prompts_come_from_every_group_with_what_each_should_show():
    task = world_task()
    found = suggested(task)
    assert [p.group for p in found] == ["target"] * 2 + ["paraphrase"] + ["neighbour"] * 2 + ["other"] * 2 + [
        "unrelated"
    ]
    assert all(p.labels["style"] == "neon" for p in found if p.kind in CONCEPT)
    assert all(p.labels["style"] == "sketch" for p in found if p.group == "neighbour")
    assert all(p.labels["style"] == "photo" for p in found if p.group == "other")
    assert all("style" not in p.labels for p in found if p.group == "unrelated")
    assert len({p.key for p in found}) == len(found) == len({p.text for p in found})


def test_asking_for_more_prompts_keeps_those_there_were():
    few, many = suggested(world_task(), 8), suggested(world_task(), 16)
    assert {p.key for p in few} < {p.key for p in many} and len(many) == 16


def test_a_group_that_runs_out_leaves_its_place_to_the_others():
    found = suggested(world_task(), 8, ("target", "unrelated"))
    assert [p.group for p in found].count("unrelated") == 1
    assert [p.group for p in found].count("target") == 4  # all there are: neon pictures of four objects


def test_paraphrases_of_the_bundled_world_are_sentences_no_model_was_trained_on():
    task = world_task()
    trained = {caption for e in task.forget.test for caption in captions.all_captions(e.labels)}
    found = suggested(task, 8, ("paraphrase",))
    assert found and not trained & {p.text for p in found}


def test_paraphrases_of_anything_else_name_the_concept_in_sentences_the_edit_was_not_made_on():
    task = named_task()
    found = suggested(task, 4, ("paraphrase",))
    assert all("a garbage truck" in p.text and p.labels == {"label": "garbage truck"} for p in found)
    assert not {p.text for p in found} & {e.caption for e in task.forget.all()}


def test_neighbours_take_turns():
    task = world_task("object", "cat", ("dog", "boat"))
    found = suggested(task, 4, ("neighbour",))
    assert [p.labels["object"] for p in found] == ["boat", "dog", "boat", "dog"]


def test_an_unknown_group_is_refused_by_name():
    with pytest.raises(InputError, match=r"no prompts named 'best'; choose among target, paraphrase"):
        suggested(world_task(), 8, ("best",))
    assert GROUPS[0] == "target"


def test_own_prompts_are_one_a_line_each_once():
    found = own_prompts("a cat\n\n  a   cat \na dog")
    assert [(p.text, p.kind) for p in found] == [("a cat", "own"), ("a dog", "own")]
    with pytest.raises(InputError, match=r"33 prompts of your own are too many at a time; give up to 32"):
        own_prompts("\n".join(f"a cat {i}" for i in range(33)))
    with pytest.raises(InputError, match=r"has 2,001 characters; up to 2,000 are read"):
        own_prompts("a" * 2001)


def test_a_suggested_prompt_has_noise_of_its_own_and_an_own_one_takes_the_seed_as_it_is():
    prompt = suggested(world_task())[0]
    assert prompt.seed(3) == seeds_for([prompt.key], 3)[0]
    assert own_prompts("a cat")[0].seed(3) == 3


# Verdicts -------------------------------------------------------------------------------------------------------------


def prompt(group="target", **labels):
    return Prompt("a prompt", group, group, labels or {"object": "cat", "style": "neon"})


CAT = {"object": "cat", "style": "photo"}
DOG = {"object": "dog", "style": "photo"}
MIRA = {"identity": "Mira Voss", "style": "none"}


@pytest.mark.parametrize(
    ("asked", "before", "after", "said"),
    [
        (prompt(), {"style": "neon"}, {"style": "photo"}, "suppressed"),
        (prompt(), {"style": "neon"}, {"style": "neon"}, "still drawn"),
        (prompt("paraphrase"), {"style": "photo"}, {"style": "neon"}, "still drawn"),
        (prompt(), {"style": "photo"}, {"style": "photo"}, ""),  # nothing was there to suppress
        (prompt("other", **CAT), CAT, CAT, "kept"),
        (prompt("other", **CAT), CAT, DOG, "changed"),
        (prompt("unrelated", identity="Mira Voss"), MIRA, MIRA | {"style": "photo"}, "kept"),  # it has no style to keep
        (Prompt("x", "own", "x"), {"style": "neon"}, {"style": "none"}, "suppressed"),
        (Prompt("x", "own", "x"), CAT, DOG, "changed"),
        (prompt(), {}, {"style": "photo"}, ""),  # no judge was asked
    ],
)
def test_a_verdict_says_what_the_edit_did_to_what_was_asked_for(asked, before, after, said):
    assert verdict(asked, world_task(), before, after) == said


def test_what_was_seen_is_said_on_the_axes_of_the_prompt_and_the_target():
    saw = {"object": "cat", "style": "neon", "identity": "none"}
    assert seen_words(prompt(), world_task(), saw) == "cat, neon"
    assert seen_words(prompt("unrelated", identity="Mira Voss"), world_task(), saw) == "neon"
    assert seen_words(prompt(), world_task(), {"object": "none", "style": "none"}) == "nothing it knows"
    assert seen_words(prompt(), world_task(), {}) == ""


# Drawing --------------------------------------------------------------------------------------------------------------


def test_both_sides_are_drawn_from_the_same_noise_with_the_edit_on_one_only(easel, painter):
    _, found = drawn(easel, pair_jobs(specs("a cat", "a dog"), sides(by=5.0)))
    assert sorted(found) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    (before, after) = painter.calls
    assert before[:5] == after[:5] and (before[5], after[5]) == (0.0, 5.0)
    assert float(painter.model.weight[0]) == 0.0
    grey = [Image.open(found[0, at].kept.path).getpixel((0, 0))[0] for at in range(2)]
    assert grey == [7, 12]


def test_each_picture_is_drawn_once_whatever_is_asked_again(easel, painter):
    drawn(easel, pair_jobs(specs("a cat"), sides(1.0)))
    painter.calls.clear()
    _, again = drawn(easel, pair_jobs(specs("a cat", "a dog"), sides(2.0)))
    assert [(call[0], call[5]) for call in painter.calls] == [(("a dog",), 0.0), (("a cat", "a dog"), 2.0)]
    assert not again[0, 0].fresh and again[0, 1].fresh
    painter.calls.clear()
    drawn(easel, pair_jobs(specs("a cat", settings=DrawSettings(8, 10, 4.0, 16)), sides(1.0)))
    assert len(painter.calls) == 2  # another seed is another picture


def test_an_edit_of_nothing_is_the_unedited_model_and_drawn_once(easel, painter):
    _, found = drawn(easel, pair_jobs(specs("a cat"), [Side("original"), Side("edited")]))
    assert found[0, 0].kept == found[0, 1].kept and len(painter.calls) == 1
    assert (found[0, 0].fresh, found[0, 1].fresh) == (True, False)


def test_no_more_than_sixteen_pictures_or_a_million_pixels_are_drawn_at_once(easel, painter):
    texts = [f"a cat {i}" for i in range(20)]
    drawn(easel, pair_jobs(specs(*texts), sides()))
    assert [len(call[0]) for call in painter.calls] == [16, 16, 4, 4]
    assert [call[5] for call in painter.calls] == [0.0, 1.0, 0.0, 1.0]  # pairs become whole early
    painter.calls.clear()
    drawn(easel, pair_jobs(specs(*texts[:3], settings=DrawSettings(0, 10, 4.0, 1024)), sides()))
    assert [len(call[0]) for call in painter.calls] == [1] * 6


def test_sketches_are_few_and_come_before_their_pictures(easel, painter):
    events, _ = drawn(easel, pair_jobs(specs("a cat", "a dog"), sides()))
    assert painter.previews == 8 and isinstance(events[0], Sketch)
    assert sum(isinstance(event, Sketch) for event in events) == 8


def test_stopping_in_the_middle_of_sampling_keeps_what_was_finished(easel, painter):
    finished = []
    easel.draw(
        pair_jobs(specs(*(f"a cat {i}" for i in range(20))), sides()),
        report=lambda event: finished.append(event) if isinstance(event, Drawn) else None,
        stop=lambda: len(painter.calls) == 2,
    )
    assert [event.job.place for event in finished] == [(row, 0) for row in range(16)]
    assert float(painter.model.weight[0]) == 0.0
    _, again = drawn(easel, pair_jobs(specs("a cat 0"), sides()))
    assert not again[0, 0].fresh


def test_the_weights_are_as_they_were_when_drawing_fails(easel, painter):
    painter.draw = lambda *args, **more: (_ for _ in ()).throw(ModelError("out of memory"))
    with pytest.raises(ModelError, match="out of memory"):
        drawn(easel, pair_jobs(specs("a cat"), sides(3.0)))
    assert float(painter.model.weight[0]) == 0.0


def test_the_judge_is_asked_once_a_picture_and_again_for_other_classes(easel):
    judge, task = Eyes(), world_task()
    more = {"judge": judge, "axes": task.axes}
    _, found = drawn(easel, pair_jobs(specs("a cat"), sides()), **more)
    assert judge.asked == 2 and found[0, 0].kept.saw == {"object": "tree", "style": "neon", "identity": "Mira Voss"}
    drawn(easel, pair_jobs(specs("a cat"), sides()), **more)
    assert judge.asked == 2
    _, other = drawn(easel, pair_jobs(specs("a cat"), sides()), judge=judge, axes=named_task().axes)
    assert judge.asked == 4 and other[0, 0].kept.saw == {"label": "tree"}


def test_the_file_of_a_picture_says_how_it_was_drawn(easel):
    recipe = {"task": {"concept": "neon"}}
    _, found = drawn(easel, pair_jobs(specs("a cat"), sides(recipe=recipe)))
    before, after = (read_png(found[0, at].kept.path.read_bytes()) for at in range(2))
    assert before.spec == after.spec == specs("a cat")[0]
    assert (before.shown, before.edit, after.shown, after.edit) == ("original", "", "edited", edit().key())
    assert before.fingerprint == after.fingerprint == "0123456789abcdef"
    assert after.recipe == recipe and after.model == "painter"


def test_the_pace_is_that_of_the_last_drawing_and_grows_with_passes_and_pixels(easel, monkeypatch):
    assert easel.seconds([(10, 4.0, 16)]) is None and not easel.timed
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("razor.pictures.time.monotonic", lambda: clock.now)
    monkeypatch.setattr(
        easel.adapter, "draw", lambda prompts, *_, **__: tick(clock, 4.0) or [Image.new("RGB", (16, 16))]
    )
    drawn(easel, pair_jobs(specs("a cat"), [Side("original")]))
    assert (passes(10, 4.0), passes(10, 1.0)) == (20, 10)
    assert easel.seconds([(10, 4.0, 16)]) == pytest.approx(4.0)
    assert easel.seconds([(10, 1.0, 16), (5, 4.0, 32)]) == pytest.approx(2.0 + 8.0)


def tick(clock, seconds):
    clock.now += seconds


def test_a_stream_gives_what_is_reported_then_raises_what_went_wrong():
    def work(report, closed):
        report(1)
        report(2)
        raise InputError("and that was it")

    seen = []
    with pytest.raises(InputError, match="and that was it"):
        for batch in streamed(work):
            seen += batch
    assert seen == [1, 2]


def test_closing_a_stream_tells_the_work_and_does_not_wait_for_it():
    heard = threading.Event()

    def work(report, closed):
        report(1)
        while not closed():
            pass
        heard.set()

    events = streamed(work)
    assert next(events) == [1]
    events.close()
    assert heard.wait(5)


def test_a_real_pipeline_is_drawn_on_both_sides_and_left_as_it_was(tmp_path, weights_of, same_weights):
    adapter = DiffusionAdapter(tiny_sd(tmp_path / "sd"), name="tiny", steps=4, guidance=2.0)
    adapter.pipeline.set_progress_bar_config(disable=True)
    before = weights_of(adapter.model)
    easel = Easel(adapter, Album(tmp_path / "album"))
    unit = adapter.units(("head",), ("cross",))[0]
    parameters = dict(adapter.model.named_parameters())
    patch = Patch({where: torch.ones_like(where.view(parameters[where.parameter])) for where in unit.slices})
    settings = DrawSettings.of(adapter, seed=1)
    jobs = pair_jobs([settings.spec(p) for p in own_prompts("a cat\na dog")], [Side("original"), Side("edited", patch)])
    events, found = drawn(easel, jobs)
    assert len(found) == 4 and any(isinstance(event, Sketch) for event in events)
    pictures = {place: Image.open(event.kept.path).tobytes() for place, event in found.items()}
    assert pictures[0, 0] != pictures[0, 1] and pictures[0, 0] != pictures[1, 0]
    assert same_weights(adapter.model, before)
    assert easel.seconds([(4, 2.0, adapter.side)]) > 0
    fresh = Easel(adapter, Album(tmp_path / "other"))
    fresh.probe(adapter.side)
    assert fresh.seconds([(4, 2.0, adapter.side)]) > 0
