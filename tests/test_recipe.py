"""Recipes read from every file that carries one, and where two of them differ."""

import base64
import json
import re
import zlib

import pytest
import torch
from PIL import Image

from razor import recipe
from razor.cli import main
from razor.errors import InputError
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
    for name in ("", "recipe.json", "evidence.json", "patch.safetensors", "cat.png"):
        assert read(tmp_path / name) == ONE, name


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
