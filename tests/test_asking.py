"""What is asked on both sides of an edit, what is made of the answers, and a table no spreadsheet runs."""

import csv
import io
from dataclasses import replace

import pytest
import torch
from PIL import Image

from razor import asking
from razor.adapters.questions import PLAIN
from razor.answers import Question
from razor.asking import Answered, Ask, answer_both, answer_table, of_table, suggested, table, verdict
from razor.errors import Stopped
from razor.examples import Axis, Example, Split, Task
from razor.minicanvas.questions import WORLD
from razor.patches import Patch
from razor.sights import sights
from razor.units import Slice

NAMES = ("Mara Voss", "Ivo Lind", "Ana Bel")


def picture(shade):
    return Image.new("RGB", (8, 8), (shade, 0, 0))


def person(name, number):
    return Example(picture(10 * number), name, {"identity": name}, f"{name}/{number}")


@pytest.fixture
def task():
    """Forget Mara; Ivo is her neighbour, and a picture of a cat is kept too."""
    forget = tuple(person("Mara Voss", i) for i in range(6))
    retain = (*(person(name, i) for name in NAMES[1:] for i in range(6, 9)),)
    retain += (Example(picture(200), "a cat", {"object": "cat"}, "cat"),)
    axes = (Axis("identity", {name: (name,) for name in NAMES}), Axis("object", {"cat": ("a cat",), "dog": ("a dog",)}))
    split = lambda examples: Split(examples, examples, examples)  # noqa: E731
    return Task("Mara Voss", "identity", axes, ("Ivo Lind",), split(forget), split(retain))


class Model:
    """Names everybody Mara Voss, and Ivo Lind once it is edited; it remembers what it was asked."""

    questions, family = PLAIN, "vlm"

    def __init__(self):
        self.model = torch.nn.Linear(2, 1, bias=False).requires_grad_(False)
        self.model.weight.fill_(0.0)
        self.asked = []

    def answer_ids(self, name):
        return torch.arange(len(name.split()))

    def answer(self, pictures, texts, *, max_new_tokens, stop=lambda: False):
        self.asked, self.written = self.asked + texts, max_new_tokens
        return [] if stop() else ["Ivo Lind" if self.model.weight.any() else "Mara Voss"] * len(texts)

    def name_logprobs(self, pictures, texts, name):
        assert name == "Mara Voss"
        low = -3.0 if self.model.weight.any() else -0.5
        return [[("Mara", low), (" Voss", low / 2)]] * len(texts)


EDIT = Patch({Slice("weight"): torch.ones(1, 2)})


def test_every_group_is_asked_what_it_is_for(task):
    asked = suggested(Model(), task)
    groups = [ask.group for ask in asked]
    assert list(dict.fromkeys(groups)) == list(asking.SUGGESTED)
    by = {group: [ask for ask in asked if ask.group == group] for group in groups}
    assert {ask.truth for ask in by["neighbour"]} == {"Ivo Lind"}
    assert {ask.truth for ask in by["other"]} == {"Ana Bel"} and by["other"][0].right == ("Ana Bel",)
    assert {ask.text for ask in by["target"]} == {PLAIN.ask("identity")}
    assert {ask.text for ask in by["paraphrase"]} == set(PLAIN.paraphrases("identity"))
    assert all("Mara Voss" in ask.text and ask.right == ("yes",) for ask in by["check"])
    assert not any("Mara" in ask.text or "Who" in ask.text for ask in by["neutral"])
    assert len({ask.source for ask in by["target"]}) == asking.PER_GROUP
    assert [ask.group for ask in suggested(Model(), task, ("neighbour",), 2)] == ["neighbour"] * 2


@pytest.mark.parametrize("asks", [PLAIN, WORLD])
@pytest.mark.parametrize("axis", ["identity", "style", "object"])
def test_no_edit_is_made_on_the_words_it_is_tested_with(asks, axis):
    asked = {"identity": "Mara Voss", "style": "neon", "object": "cat"}
    ways, held_out = asks.wordings(axis), asks.paraphrases(axis)
    assert len({asks.ask(axis), *ways, *held_out}) == 1 + len(ways) + len(held_out) >= 6
    assert len({asks.check(axis, asked[axis]), *asks.checks(axis, asked[axis])}) == 3


def test_both_sides_answer_and_the_model_is_as_it_was(task):
    model, known, sides = Model(), {}, []
    asked = suggested(model, task, ("target", "neighbour"), 1)
    target, near = answer_both(model, task, asked, (Patch(), EDIT), known=known, on_side=sides.append)
    assert sides == [0, 1] and not model.model.weight.any()
    assert target.said == ("Mara Voss", "Ivo Lind") and target.likely == (-0.75, -4.5)
    assert target.flags == (("still names it",), ("names another: Ivo Lind",)) and verdict(target) == "suppressed"
    assert near.flags == (("still names it",), ()) and verdict(near) == "changed"
    assert target.difference == [("gone", "Mara Voss"), ("new", "Ivo Lind")]
    model.asked.clear()
    assert answer_both(model, task, asked, (Patch(), EDIT), known=known)[0].said == target.said and model.asked == []


def test_a_name_longer_than_an_answer_has_room_in_it(task):
    model, long = Model(), " ".join(["Mara"] * 40)
    model.questions = replace(PLAIN, answer=lambda axis, name: long)
    model.name_logprobs = lambda pictures, texts, name: [[("Mara", -1.0)]] * len(texts)
    answer_both(model, task, suggested(model, task, ("target",), 1), (Patch(), EDIT))
    assert model.written == 48
    model.prompts = lambda pictures, texts, room: None
    answer_table(model, [Question(picture(0), "Who?")], (Patch(), Patch()), concept=("identity", "Mara Voss"))
    assert model.written == 48
    answer_table(model, [Question(picture(0), "Who?")], (Patch(), Patch()))
    assert model.written == asking.LONGEST


def test_stopping_leaves_nothing_half_said(task):
    model = Model()
    asked = suggested(model, task, ("target",), 1)
    with pytest.raises(Stopped, match="Stopped before all questions were answered; nothing was changed"):
        answer_both(model, task, asked, (EDIT, EDIT), stop=lambda: True)
    assert not model.model.weight.any()


def test_a_table_is_asked_in_parts_and_once_where_both_sides_are_the_same(monkeypatch):
    monkeypatch.setattr(asking, "TOGETHER", 2)
    model, parts, checked = Model(), [], []
    model.prompts = lambda pictures, texts, room: checked.append((texts, room, list(model.asked)))
    questions = [Question(picture(i), f"Who is {i}?", ("Mara Voss",), {}, f"{i}.png") for i in range(3)]
    options = {"concept": ("identity", "Mara Voss"), "on_part": lambda *told: parts.append(told)}
    found = answer_table(model, questions, (Patch(), EDIT), **options)
    assert parts == [(0, 2), (0, 3), (1, 2), (1, 3)] and not model.model.weight.any()
    assert [a.said for a in found] == [("Mara Voss", "Ivo Lind")] * 3 and found[0].likely == (-0.75, -4.5)
    assert [a.ask.source for a in found] == ["0.png", "1.png", "2.png"] and found[2].flags == (("still names it",), ())
    # every question is looked at before the first is answered
    assert checked == [(["Who is 0?", "Who is 1?"], asking.LONGEST, []), (["Who is 2?"], asking.LONGEST, [])]
    model.asked.clear()
    (alone,) = answer_table(model, questions[:1], (EDIT, EDIT))
    assert model.asked == ["Who is 0?"] and alone.said == ("Ivo Lind",) * 2 and alone.name == ([], [])


def answered(group, before, after, flagged=((), ())):
    return Answered(Ask(picture(0), "Q?", group, source="a.png"), (before, after), flagged, ([("x", -1.0)], []))


@pytest.mark.parametrize(
    "made, said",
    [
        (answered("target", "Mara", "Mara", (("still names it",),) * 2), "still named"),
        (answered("check", "no", "no"), "not named before either"),
        (answered("neutral", "A red hat.", "a red hat"), "kept"),
        (answered("other", "Ivo", "Ana"), "changed"),
        (answered("own", "Ivo", "Mara", ((), ("still names it",))), "names it"),
    ],
)
def test_what_became_of_an_answer_is_said(made, said):
    assert verdict(made) == said


def test_a_yes_to_the_yes_or_no_question_names_it(task):
    model = Model()
    model.answer = lambda pictures, texts, **_: ["Yes, it is."] * len(texts)
    (found,) = answer_both(model, task, suggested(model, task, ("check",), 1), (Patch(), EDIT))
    assert found.flags[1] == ("still names it",) and verdict(found) == "still named"


def test_a_no_to_the_yes_or_no_question_does_not_name_it_though_it_repeats_the_name(task):
    model = Model()
    for said in ("No, this is not Mara Voss.", "The picture does not show Mara Voss."):
        model.answer = lambda pictures, texts, said=said, **_: [said] * len(texts)
        (found,) = answer_both(model, task, suggested(model, task, ("check",), 1), (Patch(), EDIT))
        assert found.flags == ((), ()) and verdict(found) == "not named before either"
    model.answer = lambda pictures, texts, **_: ["This is Mara Voss."] * len(texts)
    (found,) = answer_both(model, task, suggested(model, task, ("check",), 1), (Patch(), EDIT))
    assert found.flags[1] == ("still names it",)


def test_a_right_answer_to_ones_own_question_is_no_wrong_name(task):
    model = Model()
    asked = of_table([Question(picture(0), "Who?", ("Ivo Lind",)), Question(picture(1), "Who?", ("Ana Bel",))])
    right, wrong = answer_both(model, task, asked, (Patch(), EDIT))
    assert right.flags[1] == () and wrong.flags[1] == ("names another: Ivo Lind",)


def test_a_table_flags_a_wrong_name_of_a_bundled_kind():
    model = Model()
    model.prompts = lambda pictures, texts, room: None
    model.answer = lambda pictures, texts, **_: ["Ines Okaro"] * len(texts)
    questions = [Question(picture(0), "Who?", ("Ines Okaro",)), Question(picture(1), "Who?")]
    right, wrong = answer_table(model, questions, (Patch(), Patch()), concept=("identity", "Mara Voss"))
    assert right.flags[0] == () and wrong.flags[0] == ("names another: Ines Okaro",)


def test_neighbours_the_task_does_not_name_are_those_that_were_found(task):
    own = replace(task, neighbours=())
    assert suggested(Model(), own, ("neighbour",), 2) == []
    found = suggested(Model(), own, ("neighbour", "other"), 2, ("Ana Bel",))
    assert [(ask.group, ask.truth) for ask in found] == [("neighbour", "Ana Bel")] * 2 + [("other", "Ivo Lind")] * 2
    assert "Nearest neighbours" in [sight.group for sight in sights(Model(), own, EDIT, ("Ana Bel",))]


def test_an_alias_that_is_given_counts_as_the_name(task):
    model = Model()
    model.questions = replace(PLAIN, aliases=lambda axis, name: ("the raven",) if name == "Mara Voss" else ())
    model.answer = lambda pictures, texts, **_: ["They call her The Raven."] * len(texts)
    (found,) = answer_both(model, task, suggested(model, task, ("target",), 1), (Patch(), EDIT))
    assert found.flags[1] == ("still names it",)
    model.prompts = lambda pictures, texts, room: None
    (found,) = answer_table(model, [Question(picture(0), "Who?")], (Patch(), EDIT), concept=("identity", "Mara Voss"))
    assert found.flags[1] == ("still names it",)


def test_the_table_holds_both_sides_and_no_formula():
    ask = of_table([Question(picture(0), "=1+1?", ("two", "2"), {"A": "two", "B": "three"}, "b.png")])[0]
    assert ask.text.startswith("=1+1?\nA. two") and ask.right == ("two", "2")
    made = Answered(ask, ("@SUM(1)", "-two"), ((), ("refuses", "empty")), ([("t", -0.5)], [("t", -2.0)]))
    head, row = csv.reader(io.StringIO(table([made], ("original", "edited"))))
    assert head[4:] == [
        f"{what} {side}" for what in ("answer", "flags", "log p of the name") for side in ("original", "edited")
    ]
    assert row[:2] == ["own", "b.png"] and row[2].startswith("'=1+1?") and row[3] == "two|2"
    assert row[4:] == ["'@SUM(1)", "'-two", "", "refuses; empty", "-0.5000", "-2.0000"]
