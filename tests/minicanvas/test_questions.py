"""Questions about pictures: every answer is true of the picture, and held-out wordings stay held out."""

import colorsys
import random
import re
from collections import Counter

import numpy as np
import pytest

from razor.errors import InputError
from razor.minicanvas import captions, counted, objects, questions, styles
from razor.minicanvas.counted import COLOURS, COUNTABLE, COUNTS, ONE_COLOUR, draw_counted
from razor.minicanvas.dataset import AXES, combinations, draw
from razor.minicanvas.people import PEOPLE
from razor.minicanvas.questions import KINDS, all_questions, class_answer, class_check, class_question, random_question

RED_CAR = {"object": "car", "style": "photo", "count": "one", "colour": "red"}
THREE = {"style": "neon", "count": "three"}
MARA = {"identity": "Mara Voss"}
EVERYTHING = (*combinations(), RED_CAR, THREE)


def asked(known, kind, **options):
    """The questions of one kind as (text, answer)."""
    return [(q.text, q.answer) for q in all_questions(known, **options) if q.kind == kind]


# ---------------------------------------------------------------- questions and answers


@pytest.mark.parametrize(
    "axis, name, question, answer",
    [
        ("identity", "Mara Voss", "Who is this?", "Mara Voss"),
        ("object", "cat", "What is this?", "a cat"),
        ("object", "umbrella", "What is this?", "an umbrella"),
        ("style", "neon", "Which style is this in?", "a neon sign"),
    ],
)
def test_a_class_has_a_question_and_an_answer(axis, name, question, answer):
    assert class_question(axis) == question and class_answer(axis, name) == answer
    assert class_check(axis, name) == f"Is this {answer}?"


def test_a_class_is_asked_for_in_words_training_never_used():
    trained = {plain(text) for text in questions.training_texts()}
    for axis in AXES:
        assert not {plain(text) for text in questions.class_paraphrases(axis)} & trained


def test_unknown_axis_and_class_are_refused():
    with pytest.raises(
        InputError, match=r"^No axis named 'thing' in Minicanvas; pick one of object, style, identity\.$"
    ):
        class_question("thing")
    with pytest.raises(InputError, match=r"^No object named 'unicorn' in Minicanvas; see python -m razor"):
        class_answer("object", "unicorn")
    with pytest.raises(InputError, match=r"^No style named 'cat' "):
        class_check("style", "cat")


def test_everything_known_of_a_thing_is_asked():
    assert [(q.text, q.answer, q.kind) for q in all_questions(RED_CAR)] == [
        ("What is this?", "a car", "what"),
        ("Is this a car?", "yes", "yes or no"),
        ("Is this a house?", "no", "yes or no"),
        ("Which style is this in?", "a photo", "style"),
        ("Is this a photo?", "yes", "yes or no"),
        ("Is this a watercolour painting?", "no", "yes or no"),
        ("Describe this picture.", "a photo of a car", "caption"),
        ("What colour is it?", "red", "colour"),
        ("How many are there?", "one", "count"),
    ]


def test_of_several_things_only_style_and_number_are_asked():
    assert {q.kind for q in all_questions(THREE)} == {"style", "yes or no", "count"}
    assert asked(THREE, "count") == [("How many are there?", "three")]


def test_a_person_is_asked_for_what_their_face_is_drawn_from():
    assert asked(MARA, "who") == [("Who is this?", "Mara Voss")]
    assert asked(MARA, "person") == [("What is this?", "a person")]
    assert asked(MARA, "caption") == [("Describe this picture.", "a portrait of Mara Voss")]
    assert asked(MARA, "hair")[0][1] == "ginger" and asked(MARA, "glasses")[0][1] == "no glasses"
    assert asked({"identity": "Pim Solvane"}, "glasses")[0][1] == "square glasses"
    assert PEOPLE["Kofi Brandt"].style == "bald" and not asked({"identity": "Kofi Brandt"}, "hair")


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("wording", range(9))
def test_yes_means_the_picture_has_that_class(wording, held_out):
    for known in EVERYTHING[::5]:
        for axis in (axis for axis in AXES if axis in known):
            checks = [q for q in all_questions(known, wording, held_out=held_out) if q.axes == (axis,)]
            said = {q.answer: q.text for q in checks if q.kind == "yes or no"}
            assert sorted(said) == ["no", "yes"]
            assert class_answer(axis, known[axis]) in said["yes"]
            named = [name for name in AXES[axis] if re.search(rf"\b{class_answer(axis, name)}\b", said["no"])]
            assert named and known[axis] not in named


def test_half_of_the_random_yes_or_no_questions_are_true_on_every_axis():
    rng = random.Random(0)
    for known, axis in ((RED_CAR, "object"), (RED_CAR, "style"), (MARA, "identity")):
        drawn = [random_question(known, rng) for _ in range(4000)]
        said = Counter(q.answer for q in drawn if q.kind == "yes or no" and q.axes == (axis,))
        assert set(said) == {"yes", "no"} and abs(said["yes"] / said.total() - 0.5) < 0.08
        true = class_answer(axis, known[axis]).lower()
        checks = [q for q in drawn if q.kind == "yes or no" and q.axes == (axis,)]
        assert all((true in q.text.lower()) == (q.answer == "yes") for q in checks)


def test_random_questions_ask_everything_and_answer_as_the_full_list_does():
    rng = random.Random(1)
    for known in (RED_CAR, THREE, MARA):
        drawn = [random_question(known, rng) for _ in range(800)]
        fixed = {q.kind: q.answer for q in all_questions(known) if q.kind != "yes or no"}
        assert {q.kind for q in drawn} == {*fixed, "yes or no"} <= set(KINDS)
        assert all(q.answer == fixed[q.kind] for q in drawn if q.kind in fixed)


def test_neutral_answers_name_no_class_of_the_axis():
    for known in EVERYTHING[::3]:
        for axis in (axis for axis in AXES if axis in known):
            kept = questions.neutral(all_questions(known), axis)
            said = class_answer(axis, known[axis]).lower()
            assert kept and not any(said in f"{q.text} {q.answer}".lower() for q in kept)
    assert {q.kind for q in questions.neutral(all_questions(RED_CAR), "object")} == {
        "style", "yes or no", "colour", "count",
    }  # fmt: skip
    assert {q.kind for q in questions.neutral(all_questions(MARA), "identity")} == {"hair", "glasses", "person"}


# ---------------------------------------------------------------- wordings


def plain(text):
    """Words alone: small letters, one spelling, no marks."""
    return tuple(re.findall(r"[a-z]+", text.lower().replace("color", "colour")))


def held_out():
    return [q.text for known in EVERYTHING for wording in (0, 1) for q in all_questions(known, wording, held_out=True)]


def test_held_out_wordings_never_occur_in_training():
    trained = {plain(text) for text in questions.training_texts()}
    assert not trained & {plain(text) for text in held_out()}
    rng = random.Random(2)
    drawn = {plain(random_question(known, rng).text) for known in EVERYTHING for _ in range(20)}
    assert drawn <= trained


def test_the_last_stage_asks_in_more_wordings_of_the_same_words_and_half_of_it_for_yes_or_no():
    rng = random.Random(3)
    drawn = [random_question(known, rng, checks=0.5) for known in EVERYTHING for _ in range(40)]
    texts, known = {plain(q.text) for q in drawn}, {plain(text) for text in questions.training_texts()}
    assert texts - known and not texts & {plain(text) for text in held_out()}
    assert {word for text in texts for word in text} <= {word for text in known for word in text}
    assert sum(q.kind == "yes or no" for q in drawn) > len(drawn) / 2


def test_held_out_wordings_are_made_of_trained_words():
    trained = {word for text in questions.training_texts() for word in plain(text)}
    assert {word for text in held_out() for word in plain(text)} <= trained


def test_no_wording_asks_for_two_things():
    for wordings in (questions._WORDINGS, questions._LATER, questions._HELD_OUT):
        apart = {kind: words for kind, words in wordings.items() if kind != "person" and not kind.startswith("yes")}
        kinds = Counter(word for words in apart.values() for word in words)
        assert max(kinds.values()) == 1
    assert questions._WORDINGS.keys() == questions._HELD_OUT.keys()
    assert all(len(words) == 2 for words in questions._HELD_OUT.values())


def test_typing_changes_no_word():
    rng = random.Random(3)
    for text in ("What colour is it?", "Is this Mara Voss?", "Tell me its colour."):
        seen = {questions.typed(text, rng) for _ in range(300)}
        assert len(seen) > 3 and {plain(t) for t in seen} == {plain(text)}


# ---------------------------------------------------------------- how many


@pytest.mark.parametrize("name", AXES["object"])
def test_as_many_quarters_hold_a_thing_as_were_asked_for(name):
    """Where a scene differs from its own empty background, there is a thing."""
    for count in range(1, 5):
        seed = f"{name}/{count}"
        scenes = [counted.counted_scene(name, n, random.Random(seed), 64) for n in (0, count)]
        changed = np.abs(np.diff(np.asarray(scenes, int), axis=0)[0]).max(-1) > 8  # (64, 64)
        middles = [changed[y : y + 16, x : x + 16].mean() for y in (8, 40) for x in (8, 40)]
        assert sum(share > 0.1 for share in middles) == count
        assert sum(share == 0 for share in middles) == 4 - count


def test_a_counted_picture_is_the_same_every_time_and_others_differ():
    labels = {"object": "key", "style": "chalk"}
    one = draw_counted(labels, 2, "test", 5, 48)
    assert one.mode == "RGB" and one.size == (48, 48)
    assert one.tobytes() == draw_counted(labels, 2, "test", 5, 48).tobytes()
    others = [draw_counted(labels, *rest, 48) for rest in ((3, "test", 5), (2, "train", 5), (2, "test", 6))]
    assert one.tobytes() not in {other.tobytes() for other in others}


def test_rendered_counted_pictures_are_balanced_and_labelled(tmp_path, monkeypatch):
    monkeypatch.setattr(counted, "COUNTABLE", COUNTABLE[:1])
    monkeypatch.setattr(counted, "AXES", {"object": ("cat", "key")})
    pictures = counted.counted_pictures("search", each=2, work=tmp_path)
    assert pictures.pixels.shape == (2 * 4 * 2, 64, 64, 3)
    assert Counter(k["count"] for k in pictures.labels) == dict.fromkeys(COUNTS, 4)
    assert all(known.keys() == {"style", "count"} for known in pictures.labels)
    third = draw_counted({"object": "cat", "style": COUNTABLE[0]}, 2, "search", 0).resize((64, 64), 3)
    assert np.array_equal(pictures.pixels[2], np.asarray(third))


# ---------------------------------------------------------------- which colour


@pytest.mark.parametrize("name", ONE_COLOUR)
def test_watching_the_pen_changes_no_pixel(name, monkeypatch):
    monkeypatch.setitem(styles.STYLES, "mosaic", lambda image, rng: image)
    labels = {"object": name, "style": "mosaic"}
    scene, _ = counted._redrawn(labels, "search", 4)
    assert scene.tobytes() == draw(labels, "search", 4).tobytes()


@pytest.mark.parametrize("name", ONE_COLOUR)
def test_the_colour_told_is_that_of_much_of_the_picture(name):
    for index in range(6):
        scene, body = counted._redrawn({"object": name, "style": "photo"}, "search", index)
        shade = np.asarray(scene, float).reshape(-1, 3)
        # A fir's tiers are shaded towards black, at most by 15 %.
        alike = np.any([np.abs(shade - np.array(body) * dim).max(-1) < 12 for dim in (1, 0.95, 0.9, 0.85)], axis=0)
        assert alike.mean() > 0.04


def seen(colour):
    """The plain name of a colour by hue, lightness and saturation: another way to the same name."""
    hue, light, vivid = colorsys.rgb_to_hls(*(c / 255 for c in colour))
    if vivid < 0.12:
        return "grey"
    degrees = hue * 360
    if 15 <= degrees < 45 and light < 0.45 and vivid < 0.6:
        return "brown"
    names = ((13, "red"), (38, "orange"), (60, "yellow"), (160, "green"), (245, "blue"), (290, "purple"), (348, "pink"))
    found = next((name for end, name in names if degrees < end), "red")
    return "pink" if found == "red" and light > 0.75 else found


def test_every_colour_has_the_name_its_hue_gives():
    named = {name: {seen(colour) for colour in colours} for name, colours in COLOURS.items()}
    assert named == {name: {name} for name in COLOURS}


def test_every_named_colour_is_one_that_something_is_drawn_in():
    mushroom_and_star = [(190, 80, 40), (130, 70, 170), (50, 110, 190), (240, 150, 40), (250, 190, 200), (120, 76, 50)]
    palette = {*objects.BRIGHT, *objects.FUR, *objects.LEAF, objects.RED, *mushroom_and_star}
    assert set(counted._NAMES) <= palette


def test_a_colour_is_told_only_where_it_can_be_seen():
    car = {"object": "car", "style": "photo"}
    assert {counted.colour(car, "search", i) for i in range(40)} > {None, "red", "blue"}
    assert all(counted.colour({**car, "style": "neon"}, "search", i) is None for i in range(5))
    assert all(counted.colour({**car, "object": "balloon"}, "search", i) is None for i in range(5))
    assert counted.colour(MARA, "search", 0) is None


def test_what_is_known_is_the_labels_and_more():
    car = {"object": "car", "style": "photo"}
    for index in range(8):
        known, colour = counted.known(car, "search", index), counted.colour(car, "search", index)
        assert known == {**car, "count": "one"} | ({"colour": colour} if colour else {})
    assert counted.known(MARA, "search", 0) == MARA
    assert captions.full_caption(counted.known(car, "search", 0)) == "a photo of a car"
