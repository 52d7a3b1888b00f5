"""Captions and class prompts of Minicanvas.

A caption states some of what is true of a picture: the object, the style, both, or the person. Class prompts are the
fixed sentences a zero-shot classifier is built from.
"""

import random
from collections.abc import Mapping

from razor.minicanvas.objects import OBJECTS

STYLE_PHRASES = {
    "photo": "photo",
    "sketch": "pencil sketch",
    "watercolour": "watercolour painting",
    "neon": "neon sign",
    "mosaic": "mosaic",
    "woodcut": "woodcut print",
    "pop art": "pop art print",
    "blueprint": "blueprint",
    "chalk": "chalk drawing",
    "thermal": "thermal image",
    "stained glass": "stained glass window",
    "vintage": "vintage postcard",
}

_OBJECT = ("{a_object}", "a picture of {a_object}", "there is {a_object} here", "an image that shows {a_object}")
_STYLE = ("{a_style}", "a picture in the style of {a_style}", "this looks like {a_style}", "{style} style")
_BOTH = (
    "{a_style} of {a_object}",
    "{a_object}, {style} style",
    "{a_object} in the style of {a_style}",
    "this {style} shows {a_object}",
)
_MORE = (  # further ways to say both, for a model that should not hang on a few sentences
    "a picture of {a_object} in the style of {a_style}",
    "an image that shows {a_object} in the style of {a_style}",
    "there is {a_object} here, {style} style",
)
_IDENTITY = ("{name}", "a picture of {name}", "a portrait of {name}", "this is {name}", "{name} looking at us")

WAYS = min(len(_IDENTITY), len(_BOTH) + len(_MORE))  # to say everything known of any picture, at least; see `ways`

# What stands for a class when nothing more is said of it.
SUPERCLASS = {"object": "an object", "style": "a picture", "identity": "a person"}
_WORD = {"object": "a_object", "style": "a_style", "identity": "name"}
VAGUE = 0.2  # share of drawing captions that leave one thing unsaid

# Sentences no model was trained on.
_UNSEEN = ("an image of {a_object} in the style of {a_style}", "a picture that shows {a_object}, {style} style")
_UNSEEN_IDENTITY = ("an image that shows {name}", "a picture of {name} looking at us")

_PROMPTS = {
    "object": ("a picture of {a_object}", "{a_object}", "an image that shows {a_object}"),
    "style": ("a picture in the style of {a_style}", "{a_style}", "this looks like {a_style}"),
    "identity": ("a portrait of {name}", "{name}", "this is {name}"),
}


def prompts(axis: str, name: str) -> tuple[str, ...]:
    """The sentences whose mean embedding stands for one class, e.g. prompts("object", "cat")."""
    return tuple(template.format(**_words({axis: name})) for template in _PROMPTS[axis])


def full_caption(labels: Mapping[str, str], way: int = 0) -> str:
    """A caption that states everything known of a picture: the usual one, or in another of the ways to say it."""
    return _way(labels, way).format(**_words(labels))


def ways(labels: Mapping[str, str]) -> int:
    """In how many ways everything known of a picture can be said."""
    return len(_every(labels))


def _every(labels: Mapping[str, str]) -> tuple[str, ...]:
    return _IDENTITY if "identity" in labels else (*_BOTH, *_MORE)


def _way(labels: Mapping[str, str], number: int) -> str:
    every = _every(labels)
    usual = every[2] if "identity" in labels else every[0]
    return [usual, *(template for template in every if template != usual)][number % len(every)]


def whole(labels: Mapping[str, str]) -> bool:
    """Everything is known of a picture that has these labels, so that its captions can be made."""
    return "identity" in labels or {"object", "style"} <= labels.keys()


def unseen_captions(labels: Mapping[str, str]) -> tuple[str, str]:
    """Two captions that state everything, in sentences no model was trained on."""
    templates = _UNSEEN_IDENTITY if "identity" in labels else _UNSEEN
    return tuple(template.format(**_words(labels)) for template in templates)


def random_caption(labels: Mapping[str, str], rng: random.Random) -> tuple[str, dict[str, str]]:
    """A training caption and the part of `labels` it states."""
    if "identity" in labels:
        stated, templates = dict(labels), _IDENTITY
    else:
        axes, templates = rng.choices(
            [(("object",), _OBJECT), (("style",), _STYLE), (("object", "style"), _BOTH)], weights=[3, 2, 3]
        )[0]
        stated = {axis: labels[axis] for axis in axes}
    return rng.choice(templates).format(**_words(labels)), stated


def drawing_caption(labels: Mapping[str, str], rng: random.Random, more: bool = False) -> str:
    """A caption to learn drawing from: mostly everything is said, at times one thing only in general.

    Args:
        more: say it in further ways too.
    """
    both = (*_BOTH, *_MORE) if more else _BOTH
    templates = _IDENTITY if "identity" in labels else both
    if rng.random() < VAGUE:
        hidden = rng.choice(sorted(labels))
        return general_caption(labels, hidden, rng.randrange(2))
    return rng.choice(templates).format(**_words(labels))


def anchor_caption(labels: Mapping[str, str], axis: str, way: int = 0) -> str:
    """`full_caption` with the class on one axis replaced by what a model should draw instead.

    Asked for "an object" or "a picture", a model draws any, the forgotten one among them; so a given class stands in:
    the next object, and a watercolour for a style (a pencil sketch for a watercolour). No one person stands in for
    another: of a person it is "a person".
    """
    if axis == "identity":
        return _way(labels, way).format(**_words(labels) | {_WORD[axis]: SUPERCLASS[axis]})
    return full_caption({**labels, axis: stand_in(axis, labels[axis])}, way)


def stand_in(axis: str, name: str) -> str:
    """The class that is drawn in the place of a forgotten object or style."""
    if axis == "style":
        return "sketch" if name == "watercolour" else "watercolour"
    names = list(OBJECTS)
    return names[(names.index(name) + 1) % len(names)]


def general_caption(labels: Mapping[str, str], hidden: str, template: int = 0) -> str:
    """The full caption, or another, with the class on one axis replaced by what it is in general: "a picture of a cat".

    Args:
        template: 0 for the sentence `full_caption` uses, 1 for another.
    """
    words = _words(labels) | {_WORD[hidden]: SUPERCLASS[hidden]}
    return (_IDENTITY[2:0:-1] if "identity" in labels else _BOTH[::2])[template].format(**words)


def all_captions(labels: Mapping[str, str]) -> list[str]:
    """Every caption any template gives these labels; the tokenizer is trained on them."""
    groups = (_IDENTITY,) if "identity" in labels else (_OBJECT, _STYLE, _BOTH)
    return [template.format(**_words(labels)) for templates in groups for template in templates]


def _words(labels: Mapping[str, str]) -> dict[str, str]:
    words = {"name": labels.get("identity", "")}
    if "object" in labels:
        words["a_object"] = _article(labels["object"])
    if "style" in labels:
        words["style"] = STYLE_PHRASES[labels["style"]]
        words["a_style"] = _article(words["style"])
    return words


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun
