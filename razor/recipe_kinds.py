"""What kind of value each place of a recipe holds, so that one from anywhere is taken or refused in one sentence."""

import math
from collections.abc import Callable, Iterator, Mapping

from razor.edit_set import ACTIONS


def first_wrong(found: Mapping) -> tuple[str, object, str] | None:
    """Place, value and expected kind of the first thing in a recipe that is of another kind; None where all is well."""
    return next(((place, value, kind) for place, value, kind in _parts(found) if not _KINDS[kind](value)), None)


def _parts(found: Mapping, inside: str = "", within: str = "") -> Iterator[tuple[str, object, str]]:
    """Place, value and expected kind of whatever a recipe has; an outer place before those inside it."""
    for place, kind in _PLACES[within].items():
        *outer, name = place.split(".")
        held = (found.get(outer[0]) or {}) if outer else found
        if name in held:
            yield f"{inside}{place}", held[name], kind
            if place in _PLACES:
                for i, entry in enumerate(held[name]):
                    yield f"{inside}{place}.{i}", entry, _ENTRIES.get(place, "an object")
                    yield from _parts(entry, f"{inside}{place}.{i}.", place) if isinstance(entry, dict) else ()


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_set(value: object) -> bool:
    """What is told of a set of examples."""
    kinds = {"n": "a whole number from 0", "sha256": "a text", "each": "a list of texts"}
    return isinstance(value, dict) and all(_KINDS[kind](value[name]) for name, kind in kinds.items() if name in value)


def _each(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


_KINDS: Mapping[str, Callable[[object], bool]] = {
    "an object": lambda value: isinstance(value, dict),
    "a list": lambda value: isinstance(value, list),
    "a text": lambda value: isinstance(value, str),
    "a text or null": lambda value: value is None or isinstance(value, str),
    "a list of texts": _is_names,
    "an object of texts": _each(lambda value: isinstance(value, str)),
    "an object of lists of texts": _each(_is_names),
    "an object of objects with n, sha256 and each": _each(_each(_is_set)),
    "an object or null": lambda value: value is None or isinstance(value, dict),
    "an object or a text": lambda value: isinstance(value, dict | str),
    "a finite number": _is_number,
    "an object of finite numbers": _each(_is_number),
    "a whole number from 0": lambda value: type(value) is int and value >= 0,
    "true or false": lambda value: isinstance(value, bool),
}
_ENTRIES = {"stack": "an object or a text"}  # what a list holds; others hold objects
UNIT_LISTS = ("members", "off", "locked", "banned", "rejected")
_MOVES = {
    **dict.fromkeys(ACTIONS, "a list of texts"),
    "strengths": "an object of finite numbers",
    "strength": "a finite number",
    "isolated": "a text or null",
}
_TASK = {
    "task": "an object",
    "task.concept": "a text",
    "task.axis": "a text or null",
    "task.classes": "an object of lists of texts",
    "task.origin": "an object of texts",
    "task.examples": "an object of objects with n, sha256 and each",
}
_EDIT = {
    "config": "an object",
    "edit_set": "an object",
    **{f"edit_set.{name}": "a list of texts" for name in UNIT_LISTS},
    **{f"edit_set.{name}": kind for name, kind in _MOVES.items() if name not in ACTIONS},
    "rounds": "a list",
    "since": "an object or null",
    **{f"since.{name}": kind for name, kind in _MOVES.items()},
}
_PLACES: Mapping[str, Mapping[str, str]] = {  # of a recipe, and of what its lists hold
    "": {
        "model": "an object of texts",
        **_TASK,
        **_EDIT,
        "gates": "an object of finite numbers",
        "branch": "a text",
        "branches": "a list",
        "stack": "a list",
        "versions": "an object of texts",
    },
    "rounds": {
        "by_hand": "a text",
        "added": "a list of texts",
        "accepted": "true or false",
        "steps": "a whole number from 0",
        "start": "an object",
        **{f"start.{name}": kind for name, kind in _MOVES.items()},
        "settings": "an object",
    },
    "branches": {
        "name": "a text",
        "from": "an object",
        "from.branch": "a text",
        "from.round": "a whole number from 0",
        **_EDIT,
    },
    "stack": {"name": "a text", "beneath": "a list of texts", **_TASK, **_EDIT},
}
