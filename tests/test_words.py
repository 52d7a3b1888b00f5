"""A task from words alone: what is suggested to be kept, how sentences and anchors read, and pictures of their own."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_adapters import make_task, shared
from tiny_pipelines import tiny_sd
from torch import nn

from razor import models, sources, words
from razor.adapters.diffusion import Words, seeds_for
from razor.config import RazorConfig
from razor.errors import InputError, Stopped
from razor.examples import Split
from razor.growth import Growth
from razor.minicanvas.dataset import Target
from razor.words import GENERAL, Plan, bundled_task, known_target, suggest, task_of

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"gradient": (5, 6), "search": (3, 5), "test": (4, 5)}
PLAN = Plan("a garbage truck", "object", "something", ("a car", "a bus"), ("a cat", "a tree", "a house"))


class Drawer:
    """Draws each picture in a colour of its seed and remembers what it was asked."""

    def __init__(self):
        self.model, self.asked, self.together = nn.Linear(1, 1), [], []

    name, quick_steps = "a drawer", 7

    def batches(self, asked):
        return [asked[i : i + 16] for i in range(0, len(asked), 16)]

    def draw(self, prompts, seeds, *, steps, stop=lambda: False):
        assert steps == self.quick_steps  # what is only learnt from need not be drawn with all care
        if stop():
            return []
        self.asked += zip(prompts, seeds, strict=True)
        self.together.append(len(prompts))
        return [Image.new("RGB", (8, 8), (seed % 256, seed // 256 % 256, seed // 65536 % 256)) for seed in seeds]


def reader(*nearest):
    """An adapter whose encoder turns further from the first prompt with each of these names, then with all others."""

    def encode(prompts):
        order = [prompts[0], *nearest, *(p for p in prompts[1:] if p not in nearest)]
        angles = torch.tensor([0.02 * order.index(p) for p in prompts])
        return Words(torch.stack([angles.cos(), angles.sin()], -1)[:, None].repeat(1, 3, 1), None)

    return SimpleNamespace(model=nn.Linear(1, 1), encode=encode)


@pytest.fixture
def small(monkeypatch):
    """A few pictures of each set."""
    monkeypatch.setattr(words, "SIZES", SMALL)


# ---------------------------------------------------------------- suggestions


def test_neighbours_are_what_the_text_encoder_finds_nearest():
    near = ["a bus", "a train", "a car", "a church organ", "a phone", "a robot"]
    plan = suggest(reader(*near), " a garbage truck ")
    assert plan.concept == "a garbage truck" and plan.neighbours == tuple(near)
    assert len(plan.others) == words.OTHERS and not set(plan.others) & set(near)
    order = [name for name in words._VOCABULARY["object"] if name not in (*near, "a garbage truck")]
    places = [order.index(name) for name in plan.others]
    assert places == sorted(places) and places[0] == 0 and places[-1] > 0.85 * len(order)  # from all over what is left


@pytest.mark.parametrize("kind", GENERAL)
def test_a_real_encoder_gives_a_whole_plan_without_the_concept(kind):
    for concept in words._VOCABULARY[kind][:4]:
        plan = suggest(shared("sd"), concept, kind)
        kept = (*plan.neighbours, *plan.others)
        assert len(plan.neighbours) == 6 and len(plan.others) == 10 and len(set(kept)) == 16
        assert concept not in kept and plan.anchor == GENERAL[kind]


@pytest.mark.parametrize(
    "kind, concept, absent",
    [
        ("style", "Vincent van Gogh", "Van Gogh"),
        ("style", "van gogh", "Van Gogh"),
        ("style", "sketch", "pencil sketch"),
        ("object", "cats", "a cat"),
        ("object", "The Cat", "a cat"),
        ("object", "a red cat", "a cat"),
        ("object", "truck", "a garbage truck"),
        ("person", "Einstein", "Albert Einstein"),
    ],
)
def test_the_concept_in_other_words_is_not_suggested(kind, concept, absent):
    plan = suggest(reader(absent), concept, kind)
    assert absent not in (*plan.neighbours, *plan.others)


@pytest.mark.parametrize(
    "kind, concept, present", [("object", "ear", "a bear"), ("object", "a church organ", "a church")]
)
def test_what_only_sounds_like_the_concept_is_suggested(kind, concept, present):
    assert suggest(reader(present), concept, kind).neighbours[0] == present


def test_an_anchor_may_be_given_also_as_none():
    assert suggest(shared("sd"), "a cat", "object", "an animal").anchor == "an animal"
    assert suggest(shared("sd"), "a cat", "object", "").anchor == ""


@pytest.mark.parametrize("concept", ["", "  ", "the", "a "])
def test_nothing_to_forget_is_refused(concept):
    with pytest.raises(InputError) as caught:
        suggest(shared("sd"), concept)
    assert str(caught.value) == "Say what to forget, in words, such as 'Van Gogh' or 'a garbage truck'."


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError) as caught:
        suggest(shared("sd"), "a cat", "animal")
    assert str(caught.value) == "'animal' is no kind of thing to forget; choose one of object, style, person."


# ---------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    "kind, name, general, expected",
    [
        ("object", "a cat", "an animal", ("a picture of a cat", "a picture of an animal")),
        ("object", "a cat", "", ("a picture of a cat", "a picture")),
        ("style", "Monet", "", ("a house in the style of Monet", "a house")),
        ("style", "Monet", "oil", ("a house in the style of Monet", "a house in the style of oil")),
        ("person", "Ada Lovelace", "a person", ("a portrait of Ada Lovelace", "a portrait of a person")),
        ("person", "Ada Lovelace", " ", ("a portrait of Ada Lovelace", "a portrait")),
    ],
)
def test_anchors_say_the_same_without_the_thing(kind, name, general, expected):
    assert words._sentence(kind, name, general, 0) == expected


@pytest.mark.parametrize("kind", GENERAL)
def test_every_sentence_reads_and_names_the_thing_and_no_anchor_does(kind):
    for number in range(48):
        for general in ("", "something"):
            said, plain = words._sentence(kind, "Zed {0}", general, number)
            assert "Zed {0}" in said and "Zed" not in plain and plain != said
            for sentence in (said, plain):
                assert sentence == " ".join(sentence.split()) and "{a}" not in sentence and "{x}" not in sentence
            assert not plain.endswith((" of", " in", ","))
            assert general in plain


def test_styles_are_asked_of_many_things():
    assert len({words._sentence("style", "Monet", "", number)[0] for number in range(24)}) == 24


# ---------------------------------------------------------------- the task


def test_a_plan_becomes_a_task_of_pictures_the_model_draws(small):
    drawer, told = Drawer(), []
    task = task_of(drawer, PLAN, on_picture=lambda done, total: told.append((done, total)))
    assert (task.concept, task.axis, task.neighbours) == ("a garbage truck", "label", ("a car", "a bus"))
    assert task.axes[0].classes == ("a garbage truck", "a car", "a bus", "a cat", "a tree", "a house")
    assert task.axes[0].prompts["a cat"] == ("a picture of a cat", "a photo of a cat", "a cat")
    sizes = {split: (len(getattr(task.forget, split)), len(getattr(task.retain, split))) for split in SMALL}
    assert sizes == SMALL
    assert told == [(16, 28), (28, 28)] and drawer.together == [16, 12]
    for e in task.forget.all():
        assert e.labels == {"label": "a garbage truck"} and "a garbage truck" in e.caption
        assert e.anchor == e.caption.replace("a garbage truck", "something")
    for e in task.retain.all():
        assert e.labels["label"] in e.caption and e.anchor == ""
    assert {e.labels["label"] for e in task.retain.search} == set(task.axes[0].classes) - {"a garbage truck"}


def test_no_two_pictures_share_a_seed_and_a_task_can_be_drawn_again(small):
    first, second, other = Drawer(), Drawer(), Drawer()
    task = task_of(first, PLAN)
    assert max(Counter(seed for _, seed in first.asked).values()) == 1
    assert len({e.digest for side in (task.forget, task.retain) for e in side.all()}) == 28
    task_of(second, PLAN)
    task_of(other, PLAN, seed=1)
    assert first.asked == second.asked
    assert [p for p, _ in first.asked] == [p for p, _ in other.asked]
    assert not {seed for _, seed in first.asked} & {seed for _, seed in other.asked}


def test_every_kept_thing_is_said_in_every_way_however_many_there_are():
    five = replace(PLAN, neighbours=("a car", "a bus"), others=("a cat", "a tree", "a house"))  # as many as sentences
    task = task_of(Drawer(), five)
    said = {name: set() for name in task.axes[0].classes}
    for e in task.retain.gradient:
        said[e.labels["label"]].add(e.caption)
    assert min(len(captions) for name, captions in said.items() if name != PLAN.concept) >= 5


def test_pictures_are_those_of_the_captions_and_sources(small):
    adapter = shared("sd")
    task = task_of(adapter, replace(PLAN, concept="cat", anchor="", neighbours=("dog",), others=()))
    e = task.forget.search[1]
    assert e.source == "search/cat/1" and e.caption == "a photo of cat" and e.anchor == "a photo"
    again = adapter.draw([e.caption], seeds_for([e.source]), steps=adapter.quick_steps)[0]
    worst = max(abs(a - b) for a, b in zip(e.image.tobytes(), again.tobytes(), strict=True))
    assert worst <= 1  # drawn alone, and not among others


@pytest.mark.parametrize("after", [0, 1])
def test_stopping_gives_no_task(small, after):
    drawer = Drawer()
    with pytest.raises(Stopped) as caught:
        task_of(drawer, PLAN, stop=lambda: len(drawer.together) >= after)
    assert str(caught.value) == "Stopped before all pictures were drawn; nothing was changed."
    assert len(drawer.together) == after


def test_stopping_a_real_drawing_gives_no_task(small):
    with pytest.raises(Stopped, match=r"^Stopped before all pictures were drawn"):
        task_of(shared("sd"), PLAN, stop=lambda: True)


def test_something_must_be_left_to_keep():
    with pytest.raises(InputError) as caught:
        task_of(Drawer(), replace(PLAN, neighbours=(), others=()))
    assert str(caught.value) == "Nothing is left to keep; name at least one neighbour or other thing."


def test_the_concept_cannot_be_kept_as_well():
    with pytest.raises(InputError) as caught:
        task_of(Drawer(), replace(PLAN, others=("Garbage Truck",)))
    assert str(caught.value) == "'Garbage Truck' cannot be forgotten and kept; take it out of what is kept."


# ---------------------------------------------------------------- the bundled world


@pytest.mark.parametrize(
    "said, target",
    [
        ("cat", ("object", "cat")),
        (" A Cat ", ("object", "cat")),
        ("cats", ("object", "cat")),
        ("pop-art", ("style", "pop art")),
        ("a neon sign", ("style", "neon")),
        ("pencil sketch", ("style", "sketch")),
    ],
)
def test_names_of_the_bundled_world_are_known(said, target):
    assert known_target(said) == Target(*target)


@pytest.mark.parametrize("said", ["", "a", "a garbage truck", "cat sketch"])
def test_other_names_are_not_known(said):
    assert known_target(said) is None


def test_a_bundled_class_keeps_its_prompts_and_gets_pictures_the_model_draws(small, monkeypatch):
    whole = make_task(each=5)
    monkeypatch.setattr(words.tasks, "task", lambda target: whole)
    drawer = Drawer()
    task = bundled_task(drawer, Target("object", "cat"), seed=2)
    assert (task.concept, task.axis, task.axes) == (whole.concept, whole.axis, whole.axes)
    assert "cat" not in task.neighbours and task.neighbours
    for side in ("forget", "retain"):
        own, drawn = getattr(whole, side), getattr(task, side)
        assert isinstance(drawn, Split)
        assert drawn.test == own.test  # a judge looks at what is drawn of them
        for split in words.LEARNED:
            examples, known = getattr(drawn, split), {e.source: e for e in getattr(own, split)}
            assert len(examples) == SMALL[split][side == "retain"]
            for e in examples:
                old = known[e.source]
                assert (e.caption, e.labels, e.anchor) == (old.caption, old.labels, old.anchor)
                assert e.image is not old.image
                assert (e.caption, *seeds_for([e.source], 2)) in drawer.asked
    assert task.origin == {"forget": "drawn from the words 'cat'", "retain": "drawn by a drawer itself"}


def test_a_name_alone_is_forgotten_by_a_saved_pipeline(small, tmp_path, weights_of, same_weights):
    tiny_sd(tmp_path / "mine")
    adapter = models.load(str(tmp_path / "mine"), device="cpu")
    adapter.steps, before = 2, weights_of(adapter.model)
    task = sources.from_words(adapter, concept="a cat", labels=["a dog", "a hat"])
    assert task.concept == "a cat" and task.origin["retain"] == f"drawn by {tmp_path / 'mine'} itself"
    growth = Growth(adapter, task, RazorConfig(rounds=1, inner_steps=1, tau=0.0, batch=2, retain_budget=1.0))
    (done,) = growth.run()
    assert done.members and growth.patch.deltas and same_weights(adapter.model, before)


# Given for nothing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "unused"),
    [
        ({"anchor": "a photo"}, "the anchor"),
        ({"labels": ["cubism"], "anchor": "a photo"}, "the labels and the anchor"),
        ({"kind": "person"}, "the kind"),
    ],
)
def test_what_a_name_of_the_bundled_world_has_no_use_for_is_refused(given, unused):
    adapter = SimpleNamespace(name="toy", family="diffusion", of_world=True)
    with pytest.raises(InputError) as caught:
        sources.from_words(adapter, concept="neon", **given)
    assert str(caught.value) == (
        f"'neon' is style:neon of the bundled world, which has no use for {unused}; leave that out."
    )


def test_what_a_bundled_target_has_no_use_for_is_said(monkeypatch):
    monkeypatch.setattr(sources.tasks, "task", lambda target: SimpleNamespace(axis=target.axis))
    said = lambda **given: sources.resolve("style:neon", **given)[1]  # noqa: E731
    assert said() == said(kind="style", concept="neon") == ()
    expected = "style:neon is of the bundled world, which has no use for the concept and the anchor."
    assert said(concept="a cat", anchor="a dog") == (expected,)
