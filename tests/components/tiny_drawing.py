"""A task of three colours and a judge of colours, for pipelines too small to draw anything."""

from PIL import Image

from razor.config import RazorConfig
from razor.examples import Axis, Example, Split, Task

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230)}
CONFIG = RazorConfig(inner_steps=1, tau=0.0)
SETTINGS = (1.0, 0.0, 1.0, 1, 0.02, 1, 0.05, ["cross"], ["heads"], None)  # of screen 2: one round of one step


class Eyes:
    """A judge who sees red in the left picture of a pair drawn twice, and something else from then on."""

    name, guesses = "a test's eyes", False

    def reads(self, axes):
        return True

    def __call__(self, images, axes):
        return [
            {axis.name: axis.classes[image.getpixel((3, 3))[0] % len(axis.classes)] for axis in axes}
            for image in images
        ]


class Guesses(Eyes):
    """The same as a CLIP would answer."""

    name, guesses = "tiny (CLIP similarity, a stand-in for a judge)", True


def colour_task():
    """Forget red of three colours; captions hold letters and spaces alone, as the tiny tokenizer wants them."""
    make = lambda name, i: Example(  # noqa: E731
        Image.new("RGB", (16, 16), tuple(min(255, c + i) for c in COLOURS[name])),
        f"a {name} thing {'abcdef'[i % 6]}", {"colour": name}, f"{name}/{i}", f"a thing {'abcdef'[i % 6]}",
    )  # fmt: skip
    part = lambda start, names: tuple(make(name, start + i) for name in names for i in range(2))  # noqa: E731
    split = lambda names: Split(part(0, names), part(2, names), part(4, names))  # noqa: E731
    axis = Axis("colour", {name: (f"a {name}",) for name in COLOURS})
    return Task("red", "colour", (axis,), ("green",), split(["red"]), split(["green", "blue"]))


def last(updates):
    """The last value every widget was given."""
    final = {}
    for update in updates:
        final |= update
    return final


def told(updates, widget):
    """Everything a widget was given, in order."""
    return [update[widget] for update in updates if widget in update]
