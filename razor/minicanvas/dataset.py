"""Pictures of Minicanvas by label and split; targets and their known neighbours.

Every picture is drawn from the seed "split/labels/index", so splits never share a picture and any picture can be
drawn again, alone, on any machine.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from PIL import Image

from razor.errors import InputError
from razor.minicanvas import objects, people, styles

SIZE = 128  # pixels a side; mini models read them at 64
SPLITS = ("train", "judge", "gradient", "search", "test")
AXES: dict[str, tuple[str, ...]] = {
    "object": tuple(objects.OBJECTS),
    "style": tuple(styles.STYLES),
    "identity": tuple(people.PEOPLE),
}


@dataclass(frozen=True)
class Target:
    """One thing to forget: a class on an axis, written `object:cat`."""

    axis: str
    name: str

    def __str__(self) -> str:
        return f"{self.axis}:{slug(self.name)}"


def slug(name: str) -> str:
    """The name as it is typed: lower case, hyphens for spaces."""
    return name.lower().replace(" ", "-").replace("_", "-")


def targets() -> list[Target]:
    """Everything that can be forgotten, objects first, then styles, then identities."""
    return [Target(axis, name) for axis, names in AXES.items() for name in names]


def parse_target(text: str) -> Target:
    """`object:cat`, `style:pop-art` or `identity:first-last` as a Target.

    Raises:
        InputError: the axis or the name is not one of Minicanvas.
    """
    axis, _, name = text.partition(":")
    if axis not in AXES:
        raise InputError(f"Unknown target {text!r}: it must start with object:, style: or identity:, as in object:cat.")
    for known in AXES[axis]:
        if slug(known) == slug(name.strip()):
            return Target(axis, known)
    raise InputError(f"No {axis} named {name!r} in Minicanvas; pick one of {', '.join(map(slug, AXES[axis]))}.")


def neighbours(target: Target) -> tuple[str, ...]:
    """Classes on the target's own axis that look most like it, known by construction."""
    if target.axis == "identity":
        return people.neighbours(target.name)
    return {"object": objects, "style": styles}[target.axis].NEIGHBOURS[target.name]


def draw(
    labels: Mapping[str, str], split: str, index: int, size: int = SIZE, *, one_scene: bool = False
) -> Image.Image:
    """The picture number `index` with these labels in this split; RGB, size x size.

    Args:
        one_scene: show the same scene of an object in every style; otherwise each style has scenes of its own.
    """
    assert split in SPLITS, split
    key = "/".join(f"{axis}={labels[axis]}" for axis in sorted(labels))
    rng = random.Random(f"{split}/{key}/{index}")
    if "identity" in labels:
        return people.draw_portrait(labels["identity"], rng, size)
    scene = random.Random(f"{split}/object={labels['object']}/{index}") if one_scene else rng
    return styles.STYLES[labels["style"]](objects.draw_scene(labels["object"], scene, size), rng)


@cache
def combinations() -> tuple[Mapping[str, str], ...]:
    """The label sets a picture can have: every object in every style, and every person."""
    pairs = [{"object": o, "style": s} for o in AXES["object"] for s in AXES["style"]]
    return (*pairs, *({"identity": name} for name in AXES["identity"]))


def pool(split: str, per_pair: int, per_person: int) -> Iterator[tuple[Mapping[str, str], int]]:
    """(labels, index) of a balanced pool: `per_pair` pictures of each object x style, `per_person` of each person."""
    for labels in combinations():
        for index in range(per_person if "identity" in labels else per_pair):
            yield labels, index
