"""Captions and class prompts of Minicanvas.

A caption states some of what is true of a picture: the object, the style, both, or the person. Class prompts are the
fixed sentences a zero-shot classifier is built from.
"""

import random
from collections.abc import Mapping

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
_IDENTITY = ("{name}", "a picture of {name}", "a portrait of {name}", "this is {name}", "{name} looking at us")

_PROMPTS = {
    "object": ("a picture of {a_object}", "{a_object}", "an image that shows {a_object}"),
    "style": ("a picture in the style of {a_style}", "{a_style}", "this looks like {a_style}"),
    "identity": ("a portrait of {name}", "{name}", "this is {name}"),
}


def prompts(axis: str, name: str) -> tuple[str, ...]:
    """The sentences whose mean embedding stands for one class, e.g. prompts("object", "cat")."""
    return tuple(template.format(**_words({axis: name})) for template in _PROMPTS[axis])


def full_caption(labels: Mapping[str, str]) -> str:
    """The one caption that states everything known of a picture."""
    template = _IDENTITY[2] if "identity" in labels else _BOTH[0]
    return template.format(**_words(labels))


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
