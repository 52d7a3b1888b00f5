"""Concepts forgotten one after another on a tiny CLIP: patches add up, switch off and tell whom they bring back."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from razor.config import RazorConfig
from razor.errors import InputError
from razor.growth import Growth
from razor.modelspec import described
from razor.patches import Patch
from razor.recipe import differences, left_out
from razor.stack import Concept, Stack, conflicts, set_aside
from razor.units import Slice

WHERE = Slice("w")


def concept(task, value, beneath=(), on=True):
    return Concept(task, Patch({WHERE: torch.tensor([float(value)])}), (), tuple(beneath), on)


@pytest.fixture
def stack(make_task):
    return Stack((concept(make_task("red"), 1), concept(make_task("blue"), 2, ["red"])))


def test_the_header_of_an_export_names_every_concept_of_the_stack():
    model, task = SimpleNamespace(name="m"), {"task": {"concept": "blue"}}
    for recipe, said in (({}, ""), (task, "'blue'"), (task | {"stack": ["red", {"name": "blue"}]}, "'red' and 'blue'")):
        assert described(model, recipe) == (f"Makes m forget {said}. Made with RAZOR Studio." if said else "")


def total(stack):
    return stack.patch.deltas[WHERE].item() if stack.patch.deltas else 0.0


def test_patches_add_up_and_each_can_be_switched_off(stack):
    assert total(stack) == 3.0
    assert total(stack.switch("red", False)) == 2.0
    assert total(stack.switch("red", False).switch("red", True)) == 3.0
    assert total(Stack()) == 0.0


def test_order_can_be_changed_and_says_who_stands_on_other_ground(stack):
    assert not stack.stale("red") and not stack.stale("blue")
    turned = stack.move("blue", -1)
    assert turned.names == ("blue", "red") and turned.stale("red") and turned.stale("blue")
    assert turned.move("blue", 1) == stack and stack.move("red", -1) == stack
    assert stack.switch("red", False).stale("blue")


def test_a_concept_forgotten_again_keeps_its_place(stack, make_task):
    again = stack.push(concept(make_task("red"), 5))
    assert again.names == ("red", "blue") and total(again) == 7.0


def test_an_unknown_concept_is_named(stack):
    with pytest.raises(InputError, match=r"^'green' is not in the stack; it holds red, blue\.$"):
        stack.drop("green")
    assert stack.drop("red").names == ("blue",)


def test_a_recipe_names_every_edit_it_acts_together_with_in_order(make_task, tmp_path):
    told = {"model": {"name": "m"}, "task": {"concept": "red", "origin": {"forget": str(tmp_path)}}, "rounds": []}
    red = concept(make_task("red"), 1)
    red = replace(red, patch=red.patch.with_recipe(told), units=("text.0.mlp",))
    stack = Stack((red, concept(make_task("blue"), 2, ["red"])))
    own = {"task": {"concept": "blue"}, "rounds": [{"steps": 3}]}
    made = stack.recipe(own, ["red"])
    assert made.pop("stack") == [
        {
            **{"name": "red", "beneath": [], "edit_set": {"members": ["text.0.mlp"]}, "rounds": []},
            "task": {**told["task"], "origin": {"forget": tmp_path.name}},
        },
        {"name": "blue", "beneath": ["red"]},
    ]
    assert made == own
    names = lambda found: [entry["name"] for entry in found.get("stack", [])]  # noqa: E731
    assert names(stack.recipe({"task": {"concept": "green"}})) == ["red", "blue", "green"]
    assert names(stack.move("blue", -1).switch("blue", False).recipe(own)) == ["blue", "red"]
    assert names(stack.switch("red", False).recipe(own)) == names(Stack().recipe(own)) == []
    other = stack.move("blue", -1).recipe(own, ["red"])
    said = [str(d) for d in differences(stack.recipe(own, ["red"]), other)]
    assert said == ["stack: the same in another order or number"]
    assert left_out(stack.recipe(own, ["red"])) == [
        "It acted together with other edits, in this order: red, blue; only blue is repeated, which was grown on top "
        "of red."
    ]


def test_what_is_to_be_forgotten_need_not_be_retained(make_task):
    red, blue = make_task("red"), make_task("blue")
    aside = set_aside(red, [blue])
    for split in ("gradient", "search", "test"):
        shown = {e.labels["colour"] for e in getattr(aside.retain, split)}
        assert "blue" not in shown and "green" in shown
    assert aside.forget == red.forget and set_aside(red, []) is red


def test_two_colours_forgotten_in_sequence_and_the_readout_says_whether_one_revives_the_other(trained, make_task):
    config = RazorConfig(retain_budget=0.1)
    red, blue = make_task("red"), make_task("blue")
    first = Growth(trained, set_aside(red, []), config)
    list(first.run())
    stack = Stack((Concept(red, first.patch),))
    second = Growth(trained, set_aside(blue, [red]), config, beneath=stack.patch)
    list(second.run())
    stack = stack.push(Concept(blue, second.patch, beneath=("red",)))
    bench_of = lambda task: trained.bench(task)  # noqa: E731
    found = {c.name: c for c in conflicts(trained, stack, bench_of)}
    assert found["red"].unedited.forget_accuracy.value > 0.9  # it knew both
    assert found["blue"].unedited.forget_accuracy.value > 0.9
    assert found["red"].alone.forget_accuracy.value < 0.4
    assert found["blue"].together.forget_accuracy.value < 0.4
    rise = found["red"].together.forget_accuracy.value - found["red"].alone.forget_accuracy.value
    assert found["red"].revived == (rise > 0.02) == (found["red"].revived_by == "blue")


def test_a_patch_that_undoes_another_is_called_its_reviver(trained, make_task):
    first = Growth(trained, make_task("red"), RazorConfig(retain_budget=0.1))
    list(first.run())
    stack = Stack((Concept(make_task("red"), first.patch), Concept(make_task("blue"), first.patch.scaled(-1.0))))
    red = conflicts(trained, stack, lambda task: trained.bench(task))[0]
    assert red.revived and red.revived_by == "blue"
    assert red.together.forget_accuracy.value > 0.9
