"""Recipes read from every file that carries one, and where two of them differ."""

import base64
import json
import re
import zlib
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from razor import recipe, saved
from razor.cli import main
from razor.config import RazorConfig
from razor.errors import InputError
from razor.gates import usual, with_limits
from razor.growth import Growth
from razor.modelspec import RECIPE, recipe_header
from razor.patches import Patch, digest
from razor.picture_files import PictureInfo, Spec, png_bytes
from razor.recipe import FORMAT, Difference, differences, read
from razor.scoring import ranked
from razor.units import Slice

ONE = {
    "format": FORMAT,
    "config": {"rho": 1.0, "rounds": 6},
    "edit_set": {"members": ["text.0.head.1", "text.0.head.2"]},
    "rounds": [{"added": ["text.0.head.1"], "steps": 3}],
}
OTHER = {
    "format": FORMAT,
    "config": {"rho": 0.5, "rounds": 6, "tau": 0.2},
    "edit_set": {"members": ["text.0.head.2", "image.3.mlp"]},
    "rounds": [{"added": ["text.0.head.1"], "steps": 4}, {"added": ["image.3.mlp"], "steps": 1}],
}


def test_a_recipe_is_read_from_whatever_carries_it(tmp_path):
    for name, table in (("recipe.json", ONE), ("evidence.json", {"recipe": ONE, "before": {}})):
        (tmp_path / name).write_text(json.dumps(table))
    Patch({Slice("weight"): torch.ones(1, 2)}, ONE, {"weight": "0"}).save(tmp_path / "patch.safetensors")
    info = PictureInfo(Spec("a cat", 1, 20, 3.0, 64), "mini-sd", "0" * 16, "edited", recipe=ONE)
    (tmp_path / "cat.png").write_bytes(png_bytes(Image.new("RGB", (64, 64)), info))
    (tmp_path / "peft").mkdir()
    for name in ("lora.safetensors", "peft/adapter_model.safetensors"):
        save_file({"layer.lora_A.weight": torch.ones(1, 2)}, tmp_path / name, recipe_header(ONE))
    tensors = ("patch.safetensors", "lora.safetensors", "peft")
    for name in ("", "recipe.json", "evidence.json", *tensors, "cat.png"):
        assert read(tmp_path / name) == ONE, name


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (None, "holds no recipe"),
        ({"modelspec.title": "x"}, "holds no recipe"),
        ({RECIPE: "[1]"}, "holds no recipe"),
        ({RECIPE: "{"}, "cannot be read"),
        ({RECIPE: "[" * 100_000}, "cannot be read"),
        ({"format": "razor-patch-1", "recipe": "[" * 100_000}, "cannot be read"),
        ({RECIPE: json.dumps(ONE | {"edit_set": {"members": 5}})}, "its 'edit_set.members' is '5'"),
    ],
)
def test_a_header_without_a_sound_recipe_is_refused_with_the_reason(tmp_path, capsys, header, said):
    path = tmp_path / "lora.safetensors"
    save_file({"weight": torch.ones(1, 2)}, path, header)
    with pytest.raises(SystemExit) as caught:
        main(["diff", str(path), str(path)])
    assert caught.value.code == 2 and said in capsys.readouterr().err


def test_versions_that_differ_from_those_here_are_one_clause():
    here = recipe.versions()
    assert recipe.other_versions({}) == recipe.other_versions({"versions": here}) == ""
    said = recipe.other_versions({"versions": here | {"torch": "1.0", "unknown": "2.0"}})
    assert said == f"made with torch 1.0 (here {here['torch']})"


def test_differences_are_named_place_by_place():
    assert differences(ONE, ONE) == []
    assert differences(ONE, OTHER) == [
        Difference("config.rho", 1.0, 0.5),
        Difference("config.tau", None, 0.2),
        Difference("edit_set.members", ONE["edit_set"]["members"], OTHER["edit_set"]["members"]),
        Difference("rounds.0.steps", 3, 4),
        Difference("rounds.1", None, OTHER["rounds"][1]),
    ]
    assert [str(d) for d in differences(ONE, OTHER)][:3] == [
        "config.rho: 1.0 -> 0.5",
        "config.tau: (none) -> 0.2",
        "edit_set.members: only in the first: text.0.head.1; only in the second: image.3.mlp",
    ]
    assert str(Difference("a", [1, 2], [2, 1])) == "a: the same in another order or number"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("missing.json", None, "There is no file"),
        ("bad.json", "{", "cannot be read as JSON"),
        ("list.json", "[1]", "holds no JSON object"),
        ("other.json", '{"format": "something"}', "holds no recipe"),
        ("newer.json", '{"format": "razor-recipe-2"}', "written by a newer version"),
        ("deep.json", "[" * 100_000, "cannot be read as JSON"),
        ("bad.safetensors", "no tensors", "bad.safetensors"),
        ("bad.png", "no picture", "is not a PNG"),
    ],
)
def test_what_is_no_recipe_is_refused_with_the_reason(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model", 5),
        ("model.name", 5),
        ("task", "word"),
        ("task.concept", ["cat"]),
        ("task.origin", {"forget": 1}),
        ("task.examples", {"forget": 1}),
        ("config", []),
        ("edit_set", "word"),
        ("edit_set.members", 5),
        ("edit_set.members", "text.0.head.1"),
        ("edit_set.members", [["text.0.head.1"]]),
        ("edit_set.off", {"a": 1}),
        ("edit_set.locked", [1]),
        ("edit_set.banned", None),
        ("edit_set.strengths", [1.0]),
        ("edit_set.strengths", {"a": "b"}),
        ("edit_set.strengths", {"a": float("nan")}),
        ("edit_set.strength", float("inf")),
        ("edit_set.strength", True),
        ("edit_set.isolated", 3),
        ("rounds", {}),
        ("rounds.0", 1),
        ("rounds.0.added", "text.0.head.1"),
        ("rounds.0.added", [None]),
        ("rounds.0.steps", -1),
        ("rounds.0.steps", True),
        ("rounds.0.steps", 1.5),
        ("rounds.0.accepted", 1),
        ("rounds.0.by_hand", [1]),
        ("task.examples", {"forget": {"test": {"each": "abc"}}}),
        ("task.examples", {"forget": {"test": {"n": -1}}}),
        ("rounds.0.start", []),
        ("rounds.0.start", {"in": "text.0.head.1"}),
        ("rounds.0.start", {"strengths": {"a": "b"}}),
        ("rounds.0.settings", 1),
        ("since", 1),
        ("since", {"isolated": 1}),
        ("branch", 1),
        ("branches", {}),
        ("branches", [1]),
        ("branches", [{"name": 1}]),
        ("branches", [{"from": {"round": -1}}]),
        ("branches", [{"rounds": [{"added": 1}]}]),
        ("branches", [{"edit_set": {"members": 5}}]),
        ("stack", "red"),
        ("stack", [1]),
        ("stack", [{"name": None}]),
        ("stack", [{"beneath": "red"}]),
        ("stack", [{"task": {"concept": 1}}]),
        ("versions", {"torch": 2}),
        ("versions", []),
        ("gates", [0.1]),
        ("gates", {"forget": "0.1"}),
        ("gates", {"forget": True}),
    ],
)
def test_a_recipe_with_a_wrong_kind_of_value_is_refused_with_its_place(tmp_path, capsys, place, value):
    made = {"model": {}, "task": {}, **json.loads(json.dumps(ONE))}
    *outer, name = place.split(".")
    held = made
    for step in outer:
        held = held[int(step) if isinstance(held, list) else step]
    held[int(name) if isinstance(held, list) else name] = value
    where = re.escape(place if place != "model.name" else "model")
    with pytest.raises(InputError, match=f"The recipe in this link is broken: its '{where}.*' is .*, which must be "):
        recipe.from_link(recipe.to_link(made))
    (tmp_path / "r.json").write_text(json.dumps(made))
    with pytest.raises(SystemExit) as caught:
        main(["diff", str(tmp_path / "r.json"), str(tmp_path / "r.json")])
    assert caught.value.code == 2 and "is broken: its" in capsys.readouterr().err


def test_gates_stand_in_a_recipe_and_are_read_back_and_those_it_leaves_out_are_the_usual_ones():
    fixed = with_limits(usual(0.05), {"forget": 0.2, "quantise/8 bits": 0.03})
    made = recipe.with_gates(ONE, fixed)
    assert recipe.from_link(recipe.to_link(made))["gates"]["quantise/8 bits"] == 0.03 and "gates" not in ONE
    assert recipe.gates_of(made, 0.5) == with_limits(usual(0.5), made["gates"]) and len(made["gates"]) == len(fixed)
    assert recipe.gates_of(ONE | {"gates": {"forget": 0.2}}, 0.05) == with_limits(usual(0.05), {"forget": 0.2})
    assert recipe.gates_of(ONE, 0.05) == usual(0.05) and recipe.with_gates(ONE, ()) == ONE
    assert [d.place for d in differences(ONE, made)] == ["gates"]


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        (
            {"forget": 5},
            "^The gates of the recipe cannot be used: The limit of 'Is it suppressed\\?' is 500 %; it must ",
        ),
        ({"forgot": 0.1}, "There is no gate 'forgot'; there are 'benign/retain pictures, 20 steps', 'forget', "),
        ({"forget": None}, "is None; it must be above 0"),
        ([0.1], "There is no gate '\\[0.1\\]'"),
    ],
)
def test_gates_that_will_not_do_are_one_sentence(clip, wrap, task, gates, said):
    adapter = wrap(clip)
    with pytest.raises(InputError, match=said):
        recipe.check(recipe.unedited(adapter, task) | {"gates": gates}, adapter, task)


def test_a_recipe_that_nests_too_deep_is_refused():
    deep = {"format": FORMAT, "more": json.loads("[" * 400 + "]" * 400)}
    with pytest.raises(InputError, match="nests deeper than 100 levels"):
        recipe.from_link(recipe.to_link(deep))


@pytest.mark.parametrize(
    ("place", "made"),
    [
        ("edit_set.members", {"edit_set": {"members": ["text.0.head.1", "text.9.head.1"]}}),
        ("edit_set.strengths", {"edit_set": {"strengths": {"text.9.head.1": 0.5}}}),
        ("edit_set.isolated", {"edit_set": {"isolated": "text.9.head.1"}}),
        ("rounds.1.added", {"rounds": [{"added": ["text.0.mlp"]}, {"added": ["text.9.head.1"]}]}),
        ("rounds.0.start.in", {"rounds": [{"start": {"in": ["text.9.head.1"]}}]}),
        ("since.strengths", {"since": {"strengths": {"text.9.head.1": 1.0}}}),
        ("branches.0.edit_set.off", {"branches": [{"edit_set": {"off": ["text.9.head.1"]}}]}),
        ("stack.1.rounds.0.added", {"stack": ["red", {"rounds": [{"added": ["text.9.head.1"]}]}]}),
    ],
)
def test_a_unit_that_the_model_has_not_is_named_with_its_place(clip, wrap, place, made):
    recipe.check_units({"edit_set": {"members": ["text.0.head.1"]}}, wrap(clip))
    with pytest.raises(InputError, match=f"names 'text.9.head.1' in '{re.escape(place)}', and .* has no such unit"):
        recipe.check_units(made, wrap(clip))


@pytest.mark.parametrize("other", ["text.0.layer", "text.0.mlp"])
def test_weights_edited_twice_are_refused_and_strengths_out_of_range(clip, wrap, other):
    with pytest.raises(InputError, match=f"has 'text.0.mlp' and '{other}' in 'edit_set.members', which share weights"):
        recipe.check_units({"edit_set": {"members": ["text.0.mlp", other]}}, wrap(clip))
    with pytest.raises(InputError, match="A strength of 5 cannot be used"):
        recipe.planned({"rounds": [{"start": {"strength": 5}}]})


def test_the_command_line_says_where_two_recipes_differ(tmp_path, capsys):
    for name, table in (("a.json", ONE), ("b.json", OTHER)):
        (tmp_path / name).write_text(json.dumps(table))
    main(["diff", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--json", str(tmp_path / "found.json")])
    assert capsys.readouterr().out.splitlines()[0] == "config.rho: 1.0 -> 0.5"
    assert json.loads((tmp_path / "found.json").read_text())[0] == {"place": "config.rho", "first": 1.0, "second": 0.5}
    main(["diff", str(tmp_path / "a.json"), str(tmp_path / "a.json")])
    assert capsys.readouterr().out == "The two recipes are the same.\n"
    with pytest.raises(SystemExit):
        main(["diff", str(tmp_path / "a.json"), str(tmp_path / "none.json")])


def test_a_link_gives_the_recipe_back_and_anything_else_is_one_sentence():
    made = {"format": recipe.FORMAT, "task": {"concept": "caf\u00e9 & co?"}, "config": {"alpha": 0.5}}
    link = recipe.to_link(made)
    assert re.fullmatch(r"[\w-]+", link)
    assert recipe.from_link(link) == recipe.from_link(f" http://127.0.0.1:7860/?a=1&recipe={link}&b=2#c ") == made
    bomb = base64.urlsafe_b64encode(zlib.compress(b"[" * 9_000_000, 9)).decode()
    for bad in ("", "no recipe", link[:-9], "A" * 20_000, bomb, recipe.to_link([1]), recipe.to_link({"format": "x"})):
        with pytest.raises(InputError, match="holds no recipe"):
            recipe.from_link(bad)
    with pytest.raises(InputError, match="newer version"):
        recipe.from_link(recipe.to_link({"format": "razor-recipe-9"}))


# ---------------------------------------------------------------- repeated

QUICK = {"inner_steps": 2, "start_units": 2, "granularity": ("head", "mlp"), "rounds": 2, "forget_target": 0.0}


@pytest.fixture(scope="module")
def walked(trained, task):
    """A growth a person worked on: units in, out and dialled, other settings, and two branches beside."""
    growth = Growth(trained, task, RazorConfig(**QUICK))
    ranking = [s.unit.name for s in ranked(growth.scores())]
    growth.act("in", [ranking[7]])
    growth.act("ban", [ranking[0]])
    growth.next_round()
    growth.act("out", [growth.edit_set.members[0]])
    growth.set_strength(0.5, growth.edit_set.members[-1])
    growth.configure(RazorConfig(**QUICK | {"alpha": 0.5}))
    growth.next_round()
    growth.configure(RazorConfig(**QUICK))
    number = growth.history.position.state
    growth.go(1)
    growth.act("lock", [ranking[9]])
    growth.next_round()
    growth.history.branch_from("Kept", 0)
    growth.history.switch("Main")
    assert growth.history.position.state == number
    growth.set_strength(0.8)
    growth.act("lock", [growth.edit_set.members[0]])
    return growth


@pytest.fixture(scope="module")
def made(walked):
    return json.loads(json.dumps(recipe.recipe(walked)))


def test_what_was_done_by_hand_is_repeated_bit_for_bit(walked, made, trained, task):
    recipe.check(made, trained, task)
    for settings in (QUICK, QUICK | {"rounds": 6}):
        growth = Growth(trained, task, RazorConfig(**settings))
        growth.plan(recipe.planned(made))
        assert [r.by_hand for r in growth.run()][:2] == [r.by_hand for r in walked.rounds]
        if settings is QUICK:
            assert growth.edit_set == walked.edit_set and growth.patch.key() == walked.patch.key()
            again = recipe.recipe(growth)
            assert all(again[key] == made[key] for key in ("config", "edit_set", "rounds", "since"))
        else:
            assert len(growth.rounds) > 2, "under other settings it goes on until the target is met"


def test_a_unit_put_in_by_hand_alone_is_in_again_without_any_round(trained, task):
    growths = [Growth(trained, task, RazorConfig(**QUICK)) for _ in range(2)]
    growths[0].scores()
    growths[0].act("in", [growths[0].units[3].name])
    growths[1].plan(recipe.planned(recipe.recipe(growths[0])))
    assert not list(growths[1].run()) and growths[1].patch.key() == growths[0].patch.key()
    fresh = Growth(trained, task, RazorConfig(**QUICK))
    assert not recipe.planned(recipe.recipe(fresh)).steps, "of a run not begun there is nothing to repeat"


def test_whoever_goes_elsewhere_is_not_held_to_the_plan(walked, made, trained, task):
    growth = Growth(trained, task, RazorConfig(**QUICK))
    growth.plan(recipe.planned(made))
    growth.act("unban", sorted(growth.edit_set.banned))
    done = [growth.next_round(), growth.next_round()]
    assert not growth.edit_set.banned and done[1].by_hand == "" and growth.edit_set.strength == 1


def test_branches_stand_in_a_recipe_with_where_they_part_and_what_they_took_in(walked, made):
    assert made["branch"] == "Main" and [branch["name"] for branch in made["branches"]] == ["Branch 2", "Kept"]
    second, kept = made["branches"]
    assert second["from"] == {"branch": "Main", "round": 1} and kept["from"] == {"branch": "Main", "round": 0}
    assert kept["rounds"] == [] and len(second["rounds"]) == 1
    tip = walked.history.states[walked.history.branches["Branch 2"]]
    assert second["edit_set"] == tip.edit_set.to_json()
    added, locked = second["rounds"][0]["added"], second["rounds"][0]["start"]["lock"]
    assert recipe.left_out(made) == [
        f"Branch 2 is another branch, not grown again: after round 1 of Main, round 2 by hand with {locked[0]}"
        f"{', took in ' + ', '.join(added) if added else ''}{'' if tip.round.accepted else ', was turned down'}.",
        "Kept is another branch, not grown again: from the unedited model, nothing was grown.",
    ]
    assert len(recipe.to_link(made)) < recipe.MAX_LINK / 2


def test_a_branch_that_goes_on_beyond_what_is_shown_is_named(walked):
    state = walked.history.states[1]
    found = recipe.edit_entry(walked, state)
    assert found["branch"] == "Main" and "since" not in found
    assert [(b["name"], b["from"]["round"], len(b["rounds"])) for b in found["branches"]] == [
        ("Main", 1, 1),
        ("Branch 2", 1, 1),
        ("Kept", 0, 0),
    ]
    assert recipe.left_out(found)[0].startswith(
        "Main went on, not grown again: after round 1 of Main, round 2 by hand "
    )


def test_one_branch_alone_leaves_a_recipe_as_it_was(trained, task):
    growth = Growth(trained, task, RazorConfig(**QUICK))
    growth.next_round()
    made = recipe.recipe(growth)
    assert {*made} == {"format", "model", "task", "versions", "config", "edit_set", "rounds"}
    assert recipe.left_out(made) == []


def test_rounds_survive_a_save_with_what_repeats_them(walked, made, trained, task, tmp_path):
    saved.save(walked, tmp_path)
    growth = Growth(trained, task, RazorConfig(**QUICK))
    saved.restore(growth, tmp_path)
    assert json.loads(json.dumps(recipe.recipe(growth))) == made


def test_recipes_made_before_moves_were_written_name_what_is_left_to_do(made):
    before = json.loads(json.dumps({k: v for k, v in made.items() if k not in ("branch", "branches", "since")}))
    for entry in before["rounds"]:
        del entry["start"]
    plan = recipe.planned(before)
    assert not plan.steps and plan.banned == {*made["edit_set"]["banned"]}
    told = recipe.left_out(before)
    assert told[0] == f"What was done by hand before round 1 is left to do: {made['rounds'][0]['by_hand']}."
    assert told[2].startswith("What was done by hand at the end, or before, is left to do: without ")
    assert told[2].endswith("; all at 80%.")
    before["rounds"] = [{"by_hand": "2 units brought in from x.safetensors", "added": [], "accepted": True, "steps": 0}]
    assert "Round 1 was not grown (2 units brought in from x.safetensors); only its patch" in recipe.left_out(before)[0]


def test_branches_and_stacks_are_compared_by_name(made):
    other = json.loads(json.dumps(made))
    other["branches"] = other["branches"][1:]
    other["stack"] = [{"name": "blue"}, {"name": "red"}]
    other["since"]["strength"] = 0.9
    said = [str(d) for d in differences(made, other)]
    assert said[0] == "since.strength: 0.8 -> 0.9" and said[1].startswith('branches.Branch 2: {"name"')
    assert said[2:] == ['stack.blue: (none) -> {"name": "blue"}', 'stack.red: (none) -> {"name": "red"}']


def test_a_link_too_long_leaves_other_branches_out_or_is_refused(made):
    names = [f"{digest(torch.rand(4))}" for _ in range(2000)]
    long = made | {"branches": [{"name": name} for name in names]}
    assert recipe.from_link(recipe.to_link(long)) == {k: v for k, v in made.items() if k != "branches"}
    with pytest.raises(InputError, match=r"^A link to this run has .* and up to 16,000 fit; take it as a file\.$"):
        recipe.to_link(made | {"task": {"classes": {"a": names}}})


def test_own_pictures_that_are_missing_or_new_are_counted(task):
    then = {"task": json.loads(json.dumps(recipe.task_entry(task)))}
    recipe.check_task(then, task)

    def said(**changed):
        with pytest.raises(InputError) as caught:
            recipe.check_task(then, replace(task, **changed))
        return str(caught.value)

    one, *rest = task.forget.test
    new = replace(one, image=Image.new("RGB", (9, 9)))
    told = said(forget=replace(task.forget, test=(new, *rest)))
    count = len(task.forget.all())
    assert told.endswith(f"other than then: the forget pictures (1 of {count} missing, 1 new).")
    told = said(forget=replace(task.forget, test=(replace(one, caption="other"), *rest)))
    assert told.endswith("how the forget pictures are captioned or divided (the pictures are the same).")
    for entry in then["task"]["examples"]["retain"].values():
        del entry["each"]
    told = said(retain=replace(task.retain, test=task.retain.test[1:]))
    count = len(task.retain.all())
    assert told.endswith(f"the retain pictures ({count} then, {count - 1} now, by their hashes not the same).")


def test_pictures_that_whoever_has_the_model_has_are_not_named_one_by_one(task):
    origin = {"forget": "style:neon", "retain": "minicanvas"}
    for told, named in ((origin, False), ({"forget": "drawn from the words 'cat'"}, False), ({"forget": "own"}, True)):
        entry = recipe.task_entry(replace(task, origin=told))["examples"]["forget"]["test"]
        assert ("each" in entry) == named, told
