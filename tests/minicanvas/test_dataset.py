"""Minicanvas: every target has a name and neighbours, and any picture can be drawn again, alone, anywhere."""

import ast
import functools
import random
from dataclasses import replace
from pathlib import Path

import pytest

from razor.errors import InputError
from razor.examples import shared_pictures
from razor.minicanvas import captions, dataset, tasks
from razor.minicanvas.dataset import AXES, SPLITS, Target, combinations, draw, neighbours, parse_target, pool, targets

CAT = {"object": "cat", "style": "photo"}


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize("target", targets(), ids=str)
def test_target_parses_from_its_own_name_and_has_neighbours_on_its_axis(target):
    assert parse_target(str(target)) == target
    near = neighbours(target)
    assert near and target.name not in near and set(near) <= set(AXES[target.axis])
    assert len(set(near)) == len(near)


def test_names_are_typed_in_any_case_with_spaces_or_hyphens():
    assert parse_target("style:Pop Art") == parse_target("style: pop-art") == Target("style", "pop art")


@pytest.mark.parametrize("text", ["", "cat", "thing:cat", "OBJECT:cat", "/path/to/cat"])
def test_unknown_axis_is_refused(text):
    with pytest.raises(InputError, match=r"^Unknown target .*: it must start with object:, style: or identity:"):
        parse_target(text)


@pytest.mark.parametrize("text", ["object", "object:", "object:unicorn", "style:cat", "identity:nobody"])
def test_unknown_name_lists_the_known_ones(text):
    axis = text.partition(":")[0]
    with pytest.raises(
        InputError, match=rf"^No {axis} named .* in Minicanvas; pick one of {dataset.slug(AXES[axis][0])}"
    ):
        parse_target(text)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("labels", [CAT, {"object": "tree", "style": "mosaic"}, {"identity": AXES["identity"][0]}])
def test_a_picture_is_the_same_every_time_and_others_differ(labels):
    one = draw(labels, "search", 3, 48)
    assert one.mode == "RGB" and one.size == (48, 48)
    assert one.tobytes() == draw(dict(reversed(labels.items())), "search", 3, 48).tobytes()
    others = [draw(labels, "search", 4, 48), *(draw(labels, split, 3, 48) for split in SPLITS if split != "search")]
    assert one.tobytes() not in {other.tobytes() for other in others}


@pytest.mark.parametrize("style", AXES["style"])
def test_every_style_changes_the_picture(style):
    picture = draw(CAT | {"style": style}, "test", 0, 48)
    assert style == "photo" or picture.tobytes() != draw(CAT, "test", 0, 48).tobytes()


@pytest.mark.parametrize("axis", ["object", "identity"])
def test_no_two_classes_look_the_same(axis):
    labels = [{axis: name} | ({"style": "photo"} if axis == "object" else {}) for name in AXES[axis]]
    assert len({draw(known, "test", 0, 48).tobytes() for known in labels}) == len(AXES[axis])


def test_the_pool_is_balanced():
    entries = list(pool("test", 2, 3))
    assert len(entries) == 2 * len(AXES["object"]) * len(AXES["style"]) + 3 * len(AXES["identity"])
    assert len({(tuple(labels.items()), index) for labels, index in entries}) == len(entries)


# ---------------------------------------------------------------- captions


def test_a_caption_states_only_what_is_true():
    known = {word.lower(): axis for axis, names in AXES.items() for word in names}
    phrases = {**known, **{phrase: "style" for phrase in captions.STYLE_PHRASES.values()}}
    for labels in combinations()[::7]:
        text, stated = captions.random_caption(labels, random.Random(str(labels)))
        assert stated.items() <= labels.items() and stated
        true = {v.lower() for v in labels.values()} | {captions.STYLE_PHRASES.get(labels.get("style"))}
        told = {p for p in phrases if f" {p} " in f" {text.lower()} ".replace(",", " ")}
        assert all(any(p in t for t in true if t) for p in told)


@pytest.mark.parametrize("labels", [CAT, {"object": "umbrella", "style": "woodcut"}, {"identity": AXES["identity"][3]}])
def test_the_full_caption_names_every_label(labels):
    text = captions.full_caption(labels)
    said = [captions.STYLE_PHRASES[v] if axis == "style" else v for axis, v in labels.items()]
    assert all(word in text for word in said)


def test_held_out_sentences_are_no_way_to_say_a_caption():
    for labels in (CAT, {"identity": AXES["identity"][3]}):
        said = {captions.full_caption(labels, way) for way in range(20)}
        rng = random.Random(0)
        drawn = {captions.drawing_caption(labels, rng, more=True) for _ in range(500)}
        assert len(said) >= 5 and said <= drawn
        assert not (said | drawn | {*captions.all_captions(labels)}) & {*captions.unseen_captions(labels)}


def test_an_anchor_is_said_in_the_same_way_without_the_class():
    for way in range(7):
        said, anchor = captions.full_caption(CAT, way), captions.anchor_caption(CAT, "object", way)
        assert anchor == said.replace("a cat", "a dog")  # the next object stands in
        assert "cat" in captions.anchor_caption(CAT, "style", way)


def test_every_object_and_style_has_a_stand_in_and_no_person_has():
    stand_ins = {name: captions.stand_in("object", name) for name in AXES["object"]}
    assert all(name != other for name, other in stand_ins.items())
    assert sorted(stand_ins.values()) == sorted(AXES["object"])  # two forgotten objects never stand in for each other
    assert {captions.stand_in("style", name) for name in AXES["style"]} == {"watercolour", "sketch"}
    name = AXES["identity"][0]
    assert "a person" in captions.anchor_caption({"identity": name}, "identity")


def test_articles_fit_their_noun():
    assert captions.prompts("object", "umbrella")[1] == "an umbrella"
    assert captions.prompts("object", "cat")[1] == "a cat"


def test_prompts_of_one_class_name_no_other():
    for axis, names in AXES.items():
        every = [prompt for name in names for prompt in captions.prompts(axis, name)]
        assert len(set(every)) == len(every)


# ---------------------------------------------------------------- tasks


@pytest.fixture(scope="module")
def small_task():
    """Forget the cat in a world of one picture of each pair and person; drawn small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "SIZES", {"gradient": (1, 1, 14), "search": (1, 1, 14), "test": (1, 1, 14)})
        patch.setattr(tasks, "draw", lambda labels, split, index: draw(labels, split, index, 40))
        patch.setattr(tasks, "world", tasks._world.__wrapped__)
        return tasks._task(Target("object", "cat"))


def test_task_forgets_its_target_and_keeps_the_rest(small_task):
    pairs, people = len(AXES["object"]) * len(AXES["style"]), len(AXES["identity"])
    for split in ("gradient", "search", "test"):
        forget, retain = getattr(small_task.forget, split), getattr(small_task.retain, split)
        assert len(forget) == 14 and {e.labels["object"] for e in forget} == {"cat"}
        assert len(retain) == pairs - len(AXES["style"]) + people
        assert not any(e.labels.get("object") == "cat" for e in retain)


def test_a_bundled_task_is_made_once_and_one_made_from_it_does_not_stay(small_task, monkeypatch):
    monkeypatch.setattr(tasks, "_made", {})
    monkeypatch.setattr(tasks, "_task", lambda target: replace(small_task, concept=target.name))
    made = tasks.task(Target("object", "cat"))
    assert tasks.task(Target("object", "cat")) is made and tasks.stays(made)
    assert not tasks.stays(replace(made)) and tasks.task(Target("object", "dog")) is not made


def test_edits_are_made_on_many_ways_to_say_it_and_reported_on_the_usual_one(small_task):
    varied = tasks.in_many_ways(small_task, {"gradient": (1, 1), "search": (1, 1)})
    for split in ("gradient", "search"):
        before, after = getattr(small_task.forget, split), getattr(varied.forget, split)
        assert [e.image for e in before] == [e.image for e in after]
        assert len({e.caption.replace(e.labels["style"], "") for e in after}) > 1
        assert all("cat" in e.caption and "cat" not in e.anchor for e in after)
        assert not any(e.anchor for e in getattr(varied.retain, split))
    assert varied.forget.test == small_task.forget.test and varied.retain.test == small_task.retain.test


def test_few_pictures_come_again_in_other_words(small_task):
    varied = tasks.in_many_ways(small_task, {"gradient": (30, 1), "search": (1, 1)})
    before, after = small_task.forget.gradient, varied.forget.gradient
    assert len(after) == 3 * len(before) and varied.forget.search == varied.forget.search[: len(before)]
    for e, *said in zip(before, after[:14], after[14:28], after[28:], strict=True):
        assert all(s.image is e.image for s in said) and len({s.caption for s in said}) == 3
        assert len({s.source for s in said}) == 3  # drawn from noise of their own
    many = tasks.in_many_ways(small_task, {"gradient": (10_000, 1)})
    assert len(many.forget.gradient) == (captions.WAYS - 1) * len(before)


def test_the_search_asks_in_a_way_that_no_gradient_saw(small_task):
    varied = tasks.in_many_ways(small_task, {"gradient": (10_000, 10_000), "search": (1, 1)})
    for side in (varied.forget, varied.retain):
        learnt = {_template(e) for e in side.gradient}
        asked = [_template(e) in learnt for e in side.search]
        assert asked.count(False) == len(asked) // 2 and len({_template(e) for e in side.search}) > 3


def _template(e):
    names = [captions.STYLE_PHRASES.get(name, name) for name in e.labels.values()]
    return functools.reduce(lambda said, name: said.replace(name, "X"), names, e.caption).replace("an X", "a X")


def test_a_visitors_own_captions_are_not_said_otherwise(small_task):
    own = tuple(replace(e, caption="my cat") for e in small_task.forget.gradient)
    task = replace(small_task, forget=replace(small_task.forget, gradient=own))
    assert tasks.in_many_ways(task, {"gradient": (100, 1)}).forget.gradient == own


def test_no_picture_of_a_task_is_in_two_of_its_sets(small_task):
    sets = [getattr(side, split) for side in (small_task.forget, small_task.retain) for split in vars(side)]
    every = [e.digest for pictures in sets for e in pictures]
    assert len(set(every)) == len(every)
    assert shared_pictures(small_task.forget.all(), small_task.retain.all()) == ()


def test_task_can_be_measured(small_task):
    axis = next(a for a in small_task.axes if a.name == small_task.axis)
    assert small_task.concept in axis.classes
    assert small_task.chance == pytest.approx(1 / len(axis.classes))
    for example in small_task.forget.all() + small_task.retain.all():
        assert all(label in AXES[name] for name, label in example.labels.items())
        assert example.caption == captions.full_caption(example.labels)


# ---------------------------------------------------------------- no network


def test_nothing_in_minicanvas_imports_a_way_to_the_network():
    online = {"urllib", "http", "socket", "ssl", "requests", "httpx", "aiohttp", "ftplib", "huggingface_hub", "gradio"}
    for path in Path(dataset.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not online & {name.partition(".")[0] for name in names}, path.name
