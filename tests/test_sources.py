"""Own pictures and a name together: what is forgotten and kept is made of both, and pictures alone are left alone."""

from collections import Counter

import pytest
from test_words import SMALL, Drawer, reader
from tiny_adapters import make_task, noise_picture, shared

from razor import models, sources, words
from razor.arguments import parser
from razor.commands import given
from razor.config import RazorConfig
from razor.errors import ExampleError, InputError
from razor.examples import OWN, Example, varied
from razor.growth import Growth
from razor.minicanvas.dataset import Target
from razor.sources import drawn_to_keep, made_of, own_task

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A few drawn pictures of each set."""
    monkeypatch.setattr(words, "SIZES", SMALL)


class Studio(Drawer):
    """A model that draws a world of its own, or the bundled one."""

    family = "diffusion"

    def __init__(self, of_world=False):
        super().__init__()
        self.of_world, self.encode = of_world, reader("a dog", "a cow").encode


def photos(name, start, count=5):
    made = enumerate(map(noise_picture, range(start, start + count)))
    return [Example(image, f"a photo of {name}", source=f"{name} {i}.png") for i, image in made]


def made(adapter, *retain, concept="a red cat", anchor="a cat", drawn_too=True, **more):
    more |= {"adapter": adapter, "drawn_too": drawn_too}
    return own_task(photos(concept, 0), retain, concept=concept, anchor=anchor, **more)


def owned(examples):
    return [e for e in examples if OWN.items() <= e.labels.items()]


def test_what_is_forgotten_is_made_of_own_pictures_and_of_prompts_that_name_it():
    drawer = Studio()
    task = made(drawer)
    assert (task.concept, task.axis) == ("a red cat", "label")
    assert task.neighbours[0] == "a dog" and len(task.axes[0].classes) == 17
    sizes = {split: (len(owned(part)), len(part)) for split, part in vars(task.forget).items()}
    assert sizes == {"gradient": (3, 8), "search": (1, 4), "test": (1, 5)}
    drawn = [e for e in task.forget.all() if e not in owned(task.forget.all())]
    assert {e.caption for e in drawn} <= {caption for caption, _ in drawer.asked}
    assert all("a red cat" in e.caption and e.anchor == e.caption.replace("a red cat", "a cat") for e in drawn)
    assert {(e.caption, e.anchor) for e in owned(task.forget.all())} == {("a photo of a red cat", "a photo of a cat")}
    assert [len(part) for part in vars(task.retain).values()] == [6, 5, 5]
    assert task.origin == {
        "forget": "own pictures", "retain": "drawn by a drawer itself", "named": "drawn by a drawer itself"
    }  # fmt: skip
    assert made_of(task) == (
        "To forget: 5 pictures of your own and 12 prompts that name 'a red cat', drawn by a drawer. To keep: 16 "
        "prompts, drawn by a drawer."
    )


def test_own_and_drawn_ones_take_turns_and_of_a_few_chosen_some_are_of_each():
    search = made(Studio()).forget.gradient
    assert [e in owned(search) for e in search[:6]] == [True, False] * 3
    few = [search[i] for i in varied(search, 4)]
    assert Counter(e in owned(few) for e in few) == {True: 2, False: 2}


def test_own_pictures_to_keep_are_kept_beside_drawn_ones():
    task = made(Studio(), *photos("a dog", 20), *photos("a kite", 30, 2))
    assert len(task.retain.all()) == 16 + 7
    named = Counter(e.labels.get("label") for e in task.retain.all() if e.source.endswith(".png"))
    assert named == {"a dog": 5, None: 2}
    assert task.origin["retain"] == "own pictures" and made_of(task).endswith("your own and those drawn by a drawer.")
    assert len(made(Studio(), *photos("a dog", 20, 2)).retain.gradient) == 6 + 2


def test_pictures_alone_are_kept_beside_what_the_model_draws_of_the_names_given():
    drawer = Studio()
    task = made(drawer, drawn_too=False, labels=["A red cat", "a fox", "a wolf"])
    assert len(task.forget.all()) == 5 and not owned(task.forget.all()) and "named" not in task.origin
    assert task.neighbours == ("a fox", "a wolf") and task.axes[0].classes == ("a red cat", "a fox", "a wolf")
    assert len(drawer.asked) == 16 and made_of(task) == ""
    told = "To keep: 16 prompts, drawn by a drawer itself; closest to 'a red cat': a fox, a wolf."
    assert drawn_to_keep(task) == told and drawn_to_keep(sources.resolve("style:thermal")[0]) == ""
    drawer = Studio()
    assert len(made(drawer, *photos("a dog", 20), drawn_too=False).retain.all()) == 5 and not drawer.asked


def test_the_names_given_are_kept_in_place_of_those_suggested():
    task = made(Studio(), labels=["a red cat", "a fox", "a wolf"])
    assert task.neighbours == ("a fox", "a wolf")
    assert {e.labels["label"] for e in task.retain.all()} == {"a fox", "a wolf"}


def test_a_class_of_the_bundled_world_is_asked_for_in_its_own_words(monkeypatch):
    monkeypatch.setattr(words.tasks, "task", lambda target: make_task(each=5))
    drawer = Studio(of_world=True)
    task = made(drawer, concept="a cat", anchor="")
    bundled = words.bundled_task(drawer, Target("object", "cat"))
    assert (task.concept, task.axes, task.neighbours) == ("cat", bundled.axes, bundled.neighbours)
    drawn = [e for e in task.forget.gradient if not owned([e])]
    assert [(e.caption, e.anchor) for e in drawn] == [(e.caption, e.anchor) for e in bundled.forget.gradient]
    assert {(e.caption, e.anchor) for e in owned(task.forget.all())} == {("a photo of a cat", "a photo")}
    with pytest.raises(InputError, match="has no use for the labels; leave that out"):
        made(drawer, concept="a cat", labels=["a dog"])


def test_a_name_the_bundled_world_has_not_is_no_use_to_a_model_that_draws_it():
    drawer = Studio(of_world=True)
    task = made(drawer, *photos("a dog", 20))
    assert not drawer.asked and "named" not in task.origin and len(task.forget.all()) == 5


def test_what_will_not_do_is_said_before_anything_is_drawn():
    drawer = Studio()
    with pytest.raises(ExampleError, match="2 pictures are too few"):
        own_task(photos("a red cat", 0, 2), [], concept="a red cat", adapter=drawer)
    with pytest.raises(ExampleError, match="stand in both the forget and the retain set"):
        made(drawer, *photos("a dog", 3))
    assert not drawer.asked


def test_a_picture_drawn_earlier_and_brought_as_ones_own_is_there_once():
    drawn = made(Studio()).forget.search[1]
    task = own_task([*photos("a red cat", 0), drawn], [], concept="a red cat", adapter=Studio(), drawn_too=True)
    assert Counter(e.digest for e in task.forget.all())[drawn.digest] == 1


def test_a_folder_and_a_name_are_forgotten_by_a_pipeline(tmp_path, monkeypatch, weights_of, same_weights):
    monkeypatch.setattr(words, "SIZES", dict.fromkeys(SMALL, (2, 3)))
    adapter = shared("sd")
    before, told = weights_of(adapter.model), []
    for e in photos("a red cat", 0):
        e.image.save(tmp_path / e.source)
    said = {
        "concept": "a red cat",
        "labels": ["a dog", "a hat"],
        "anchor": "a cat",
        "adapter": adapter,
        "drawn_too": True,
    }
    task, warnings = sources.resolve(str(tmp_path), **said, on_picture=lambda *done: told.append(done))
    assert not warnings and told[-1] == (15, 15) and task.origin["forget"] == str(tmp_path)
    assert len(task.forget.all()) == 11 and len(owned(task.forget.all())) == 5
    growth = Growth(adapter, task, RazorConfig(rounds=1, inner_steps=1, tau=0.0, batch=2, retain_budget=1.0))
    (done,) = growth.run()
    assert done.members and growth.patch.deltas and same_weights(adapter.model, before)


@pytest.mark.parametrize(("options", "own", "kept"), [(["--drawn-too"], 5, 9 + 4), ([], 0, 4)])
def test_the_command_line_forgets_a_folder_and_its_name_or_the_folder_alone(
    tmp_path, monkeypatch, capsys, options, own, kept
):
    monkeypatch.setattr(words, "SIZES", dict.fromkeys(SMALL, (2, 3)))
    monkeypatch.setattr(models, "load", lambda name, **_: shared("sd"))
    for side, pictures in (("forget", photos("a red cat", 0)), ("retain", photos("a dog", 20, 4))):
        (tmp_path / side).mkdir()
        for e in pictures:
            e.image.save(tmp_path / side / e.source)
    sets = [word for side in ("forget", "retain") for word in (f"--{side}", str(tmp_path / side))]
    command = ["score", "--model", "m", *sets, "--concept", "a red cat", *options]
    _, task, _ = given.prepare(parser().parse_args(command))
    assert (len(task.forget.all()), len(task.retain.all())) == (11 if options else 5, kept)
    assert len(owned(task.forget.all())) == own
    assert ("5 pictures of your own and 6 prompts that name" in capsys.readouterr().err) is bool(options)


@pytest.mark.parametrize("named", [["--labels", "a fox, a wolf"], []])
def test_what_the_model_drew_to_keep_is_said_and_how_to_name_it(tmp_path, monkeypatch, capsys, named):
    monkeypatch.setattr(words, "SIZES", dict.fromkeys(SMALL, (2, 3)))
    monkeypatch.setattr(models, "load", lambda name, **_: shared("sd"))
    for e in photos("a red cat", 0):
        e.image.save(tmp_path / e.source)
    for given_too in ([], ["--forget", str(tmp_path)]):
        command = ["score", "--model", "m", "--concept", "a red cat", *given_too, *named]
        _, task, _ = given.prepare(parser().parse_args(command))
        told = capsys.readouterr().err
        assert drawn_to_keep(task) in told and "closest to 'a red cat': a " in told
        assert ("Name others with --labels." in told) is (not named)
        assert 1 <= told.count("is too long: the model does not read") <= 3


def test_a_clip_asked_to_draw_too_says_that_it_cannot(tmp_path, monkeypatch, capsys, trained):
    monkeypatch.setattr(models, "load", lambda name, **_: trained)
    for e in photos("a red cat", 0):
        e.image.save(tmp_path / e.source)
    command = ["score", "--model", "m", "--forget", str(tmp_path), "--concept", "a red cat", "--drawn-too"]
    _, task, _ = given.prepare(parser().parse_args(command))
    assert len(task.forget.all()) == 5
    assert "tiny draws no pictures: your pictures are used alone." in capsys.readouterr().err


@pytest.mark.parametrize(("origin", "too"), [({"named": "drawn by a drawer itself"}, True), ({}, False)])
def test_a_recipe_says_whether_pictures_were_forgotten_beside_drawn_ones(origin, too):
    made = {"task": {"concept": "a red cat", "origin": {"forget": "cats", **origin}}, "model": {"name": "m"}}
    args = parser().parse_args(["unlearn", "--recipe", "r.json", "--forget", "cats", "--out", "o"])
    given.as_in(args, made)
    assert args.drawn_too is too and args.concept == "a red cat"
