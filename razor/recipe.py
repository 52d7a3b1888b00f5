"""What reproduces a run: model, examples, settings, seeds and rounds, as plain JSON; read again and compared."""

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from safetensors import SafetensorError, safe_open

from razor import jsonio
from razor.adapters.base import Adapter
from razor.edit_set import EditSet
from razor.errors import InputError
from razor.examples import Example, Split, Task
from razor.growth import KINDS, Growth
from razor.history import State

VERSION = 1
FORMAT = f"razor-recipe-{VERSION}"
SOURCES = "a recipe.json, a patch or another export that says it, a picture drawn here, a report or a run's folder"
MAX_REPORT = 50_000_000  # bytes
MAX_LINK = 16_000  # characters
MAX_UNPACKED = 400_000  # bytes
MAX_DEPTH = 100  # levels; an edit carried over holds the recipe it came from
_IN_FOLDERS = ("recipe.json", "adapter_model.safetensors")  # of a run or a full model; of a LoRA as PEFT writes it
_PACKAGES = ("torch", "open_clip_torch", "transformers", "diffusers", "safetensors")


def recipe(growth: Growth) -> dict:
    """The recipe of a run so far. It names the pictures by hash and holds none of them."""
    return {**unedited(growth.adapter, growth.task), **edit_entry(growth)}


def unedited(adapter: Adapter, task: Task) -> dict:
    """The recipe of a model as it was loaded, for a task."""
    return {
        "format": FORMAT,
        "model": model_entry(adapter),
        "task": task_entry(task),
        "versions": versions(),
    }


def edit_entry(growth: Growth, state: State | None = None) -> dict:
    """Settings, edit set and rounds of a run so far, or as one of its states was left."""
    edit_set = growth.edit_set if state is None else state.edit_set
    path = growth.history.path((state or growth.history.state).number)
    return {
        "config": growth.config.to_json(),
        "edit_set": edit_set.to_json(),
        "rounds": [
            {
                "by_hand": r.by_hand,
                "added": [s.unit.name for s in r.added],
                "accepted": r.accepted,
                "steps": r.chosen,
            }
            for r in (s.round for s in path)
            if r is not None
        ],
    }


def model_entry(adapter: Adapter) -> dict:
    """Which model, by name and by a hash of its weights."""
    return {"family": adapter.family, "name": adapter.name, "fingerprint": adapter.fingerprint()}


def task_entry(task: Task) -> dict:
    """What was forgotten and kept, with a hash and a count per set."""
    return {
        "concept": task.concept,
        "axis": task.axis,
        "classes": {axis.name: list(axis.classes) for axis in task.axes},
        "origin": dict(task.origin),
        "examples": {side: _split_entry(getattr(task, side)) for side in ("forget", "retain")},
    }


def versions() -> dict[str, str]:
    """Versions of the packages a result depends on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# ---------------------------------------------------------------- read again


def read(path: Path) -> dict:
    """The recipe in a recipe or evidence file, an export, a picture drawn here, a report, or a run's folder.

    Raises:
        InputError: there is none, it is broken, or a newer version wrote it.
    """
    said = str(path) if path.is_dir() else path.name  # where a page keeps a file is nobody's business
    if path.is_dir():
        path = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), path / _IN_FOLDERS[0])
    if not path.is_file():
        raise InputError(f"There is no file {path}; name {SOURCES}.")
    return _checked(_READERS.get(path.suffix.lower(), _from_json)(path), said)


def _checked(found: dict, path: str) -> dict:
    kind, _, number = str(found.get("format", "")).rpartition("-")
    if kind != "razor-recipe" or not number.isdecimal():
        raise InputError(f"{path} holds no recipe; name {SOURCES}.")
    if int(number) > VERSION:
        raise InputError(
            f"The recipe in {path} was written by a newer version (format {number}, known up to {VERSION})."
        )
    if _nests_too_deep(found):
        raise InputError(f"The recipe in {path} is broken: it nests deeper than {MAX_DEPTH} levels; use another copy.")
    for place, value, kind in _parts(found):
        if not _KINDS[kind](value):
            raise InputError(
                f"The recipe in {path} is broken: its {place!r} is {str(value)[:40]!r}, which must be {kind}; use "
                "another copy."
            )
    return found


def _nests_too_deep(found: object) -> bool:
    level = [found]
    for _ in range(MAX_DEPTH):
        level = [inner for held in level for inner in _inside(held)]
    return bool(level)


def _inside(held: object) -> Iterable:
    return held.values() if isinstance(held, dict) else held if isinstance(held, list) else ()


def _parts(found: Mapping) -> Iterator[tuple[str, object, str]]:
    """Place, value and expected kind of whatever a recipe has; an outer place before those inside it."""
    for place, kind in _PLACES.items():
        *outer, name = place.split(".")
        held = found.get(outer[0], {}) if outer else found
        if name in held:
            yield place, held[name], kind
    for i, entry in enumerate(found.get("rounds", [])):
        yield f"rounds.{i}", entry, "an object"
        yield from ((f"rounds.{i}.{name}", entry[name], kind) for name, kind in _ROUND.items() if name in entry)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


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
    "an object of objects": _each(lambda value: isinstance(value, dict)),
    "a finite number": _is_number,
    "an object of finite numbers": _each(_is_number),
    "a whole number from 0": lambda value: type(value) is int and value >= 0,
    "true or false": lambda value: isinstance(value, bool),
}
_UNIT_LISTS = ("members", "off", "locked", "banned", "rejected")
_PLACES = {
    "model": "an object of texts",
    "task": "an object",
    "task.concept": "a text",
    "task.axis": "a text or null",
    "task.classes": "an object of lists of texts",
    "task.origin": "an object of texts",
    "task.examples": "an object of objects",
    "config": "an object",
    "edit_set": "an object",
    **{f"edit_set.{name}": "a list of texts" for name in _UNIT_LISTS},
    "edit_set.strengths": "an object of finite numbers",
    "edit_set.strength": "a finite number",
    "edit_set.isolated": "a text or null",
    "rounds": "a list",
    "versions": "an object of texts",
}
_ROUND = {
    "by_hand": "a text",
    "added": "a list of texts",
    "accepted": "true or false",
    "steps": "a whole number from 0",
}


def _from_json(path: Path) -> dict:
    found = jsonio.read(path)
    inner = found.get("recipe", found)
    return inner if isinstance(inner, dict) else {}


def _from_report(path: Path) -> dict:
    if path.stat().st_size > MAX_REPORT:
        raise InputError(f"{path} is larger than {MAX_REPORT // 1_000_000} MB, which no report is.")
    found = re.search(
        r'<script type="application/json" id="razor-recipe">(.*?)</script>', path.read_text("utf-8"), re.S
    )
    try:
        held = json.loads(found.group(1)) if found else {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"The recipe in {path} cannot be read as JSON ({error}).") from error
    return held if isinstance(held, dict) else {}


def _from_tensors(path: Path) -> dict:
    """From the header of a patch, or of a LoRA or model as `export` writes it; no tensor is read."""
    from razor.modelspec import RECIPE

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        text = header.get("recipe" if header.get("format", "").startswith("razor-patch") else RECIPE, "{}")
        if len(text) > jsonio.MAX_BYTES:
            raise ValueError(f"{len(text):,} characters of recipe, up to {jsonio.MAX_BYTES:,} are read")
        held = json.loads(text)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"The header of {path.name} cannot be read ({error}); use a complete copy.") from error
    return held if isinstance(held, dict) else {}


def _from_picture(path: Path) -> dict:
    from razor.picture_files import read_png

    return dict(read_png(path.read_bytes(), path.name).recipe)


_READERS = {".safetensors": _from_tensors, ".png": _from_picture, ".html": _from_report}


def to_link(made: Mapping) -> str:
    """The recipe as a piece of an address: letters, digits, - and _."""
    packed = zlib.compress(json.dumps(made, separators=(",", ":")).encode(), 9)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def from_link(text: str) -> dict:
    """The recipe that `to_link` made the text from; a whole address holding it as `recipe` will do too.

    Raises:
        InputError: it is none, is broken or too long, or a newer version wrote it.
    """
    token = re.split(r"[?&]recipe=", text.strip())[-1].partition("&")[0].partition("#")[0]
    unpacker = zlib.decompressobj()
    try:
        if len(token) > MAX_LINK:
            raise ValueError(f"{len(token):,} characters, up to {MAX_LINK:,} are read")
        held = unpacker.decompress(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), MAX_UNPACKED)
        if not unpacker.eof:
            raise ValueError("it is cut off, or far larger than a recipe")
        found = json.loads(held)
    except (ValueError, zlib.error, RecursionError) as error:
        raise InputError(f"This link holds no recipe ({error}); copy it again from the page it was made on.") from error
    return _checked(found if isinstance(found, dict) else {}, "this link")


# ---------------------------------------------------------------- compared


@dataclass(frozen=True)
class Difference:
    """One place at which two recipes differ."""

    place: str  # such as "config.rho"
    first: object  # None: it is not there
    second: object

    def __str__(self) -> str:
        if isinstance(self.first, list) and isinstance(self.second, list):
            sides = (("first", self.first, self.second), ("second", self.second, self.first))
            lone = {which: [v for v in mine if v not in others] for which, mine, others in sides}
            parts = [f"only in the {which}: {', '.join(map(str, values))}" for which, values in lone.items() if values]
            return f"{self.place}: {'; '.join(parts) or 'the same in another order or number'}"
        said = ["(none)" if value is None else json.dumps(value) for value in (self.first, self.second)]
        return f"{self.place}: {said[0]} -> {said[1]}"


def differences(first: Mapping, second: Mapping) -> list[Difference]:
    """Where two recipes differ, in the order of the first; rounds are compared one by one."""
    return list(_differences("", dict(first), dict(second)))


def _differences(place: str, first: object, second: object) -> Iterator[Difference]:
    if isinstance(first, dict) and isinstance(second, dict):
        for key in dict.fromkeys([*first, *second]):
            yield from _differences(f"{place}.{key}".lstrip("."), first.get(key), second.get(key))
    elif all(isinstance(v, list) and v and all(isinstance(e, dict) for e in v) for v in (first, second)):
        numbered = [{str(i): e for i, e in enumerate(v)} for v in (first, second)]
        yield from _differences(place, *numbered)
    elif first != second:
        yield Difference(place, first, second)


def planned(made: Mapping) -> EditSet:
    """The locks and bans of a recipe's edit set, which a run that repeats it begins with."""
    held = made.get("edit_set", {})
    return EditSet(locked=frozenset(held.get("locked", ())), banned=frozenset(held.get("banned", ())))


def check_task(made: Mapping, task: Task) -> None:
    """Raise InputError where a task is not the one of a recipe, naming what differs."""
    then = made.get("task") or {}
    if then.get("concept") != task.concept:
        other = f"That run forgot {then.get('concept')!r}, and this task forgets {task.concept!r}"
        raise InputError(f"{other}; choose that target first.")
    found = differences(then, task_entry(task))
    places = [d.place for d in found if not d.place.startswith("origin")]
    if places:
        raise InputError(f"This is not the task of that run; other than then: {', '.join(places)}.")


def check(made: Mapping, adapter: Adapter, task: Task, load: str = "name it with --model") -> None:
    """Raise InputError where a recipe is of another model or task, or names units there are none of; says which.

    Args:
        load: how a person loads the right model.
    """
    entry = made.get("model") or {}
    if entry.get("fingerprint") != adapter.fingerprint():
        raise InputError(
            f"The recipe is of {entry.get('name')!r} with weights {entry.get('fingerprint')}, and {adapter.name} with "
            f"weights {adapter.fingerprint()} is loaded; {load}."
        )
    check_task(made, task)
    check_units(made, adapter)


def other_versions(made: Mapping) -> str:
    """Which packages a recipe was made with that are here in another version, in one clause; "" for none."""
    here = versions()
    other = [
        f"{name} {then[:40]} ({f'here {here[name]}' if name in here else 'not installed here'})"
        for name, then in made.get("versions", {}).items()
        if name in _PACKAGES and then != here.get(name)
    ]
    return f"made with {', '.join(other)}" if other else ""


def check_units(made: Mapping, adapter: Adapter) -> None:
    """Raise InputError where a recipe names a unit that the model has not, naming both."""
    known = {unit.name for unit in adapter.units(KINDS, tuple(adapter.towers))}
    for place, names in _named_units(made):
        if unknown := next((name for name in names if name not in known), None):
            raise InputError(
                f"The recipe names {unknown[:80]!r} in {place!r}, and {adapter.name} has no such unit; names look like "
                f"{min(known, default='')!r}."
            )


def _named_units(made: Mapping) -> Iterator[tuple[str, Iterable[str]]]:
    held = made.get("edit_set", {})
    for name in (*_UNIT_LISTS, "strengths"):
        yield f"edit_set.{name}", held.get(name, ())
    yield "edit_set.isolated", [name for name in [held.get("isolated")] if name is not None]
    for i, entry in enumerate(made.get("rounds", [])):
        yield f"rounds.{i}.added", entry.get("added", ())


def _split_entry(split: Split) -> dict[str, dict]:
    return {name: {"n": len(examples), "sha256": _hash(examples)} for name, examples in vars(split).items()}


def _hash(examples: Sequence[Example]) -> str:
    lines = "\n".join(f"{example.digest} {example.caption}" for example in examples)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
