"""Recipes read from every file that carries one, and where two of them differ."""

import base64
import json
import re
import zlib

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from razor import recipe
from razor.cli import main
from razor.errors import InputError
from razor.modelspec import RECIPE, recipe_header
from razor.patches import Patch
from razor.picture_files import PictureInfo, Spec, png_bytes
from razor.recipe import FORMAT, Difference, differences, read
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
        ("versions", {"torch": 2}),
        ("versions", []),
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
    with pytest.raises(InputError, match=f"The recipe in this link is broken: its '{where}' is .*, which must be "):
        recipe.from_link(recipe.to_link(made))
    (tmp_path / "r.json").write_text(json.dumps(made))
    with pytest.raises(SystemExit) as caught:
        main(["diff", str(tmp_path / "r.json"), str(tmp_path / "r.json")])
    assert caught.value.code == 2 and "is broken: its" in capsys.readouterr().err


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
    ],
)
def test_a_unit_that_the_model_has_not_is_named_with_its_place(clip, wrap, place, made):
    recipe.check_units({"edit_set": {"members": ["text.0.head.1"]}}, wrap(clip))
    with pytest.raises(InputError, match=f"names 'text.9.head.1' in '{re.escape(place)}', and .* has no such unit"):
        recipe.check_units(made, wrap(clip))


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
