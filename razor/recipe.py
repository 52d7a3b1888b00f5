"""What reproduces a run: model, examples, settings, seeds and rounds, as plain JSON; read again and compared."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from razor import jsonio
from razor.adapters.base import Adapter
from razor.errors import InputError
from razor.examples import Example, Split, Task
from razor.growth import Growth
from razor.history import State

VERSION = 1
FORMAT = f"razor-recipe-{VERSION}"
SOURCES = "a recipe.json, a patch, a picture drawn here, a report or a run's folder"
MAX_REPORT = 50_000_000  # bytes
MAX_LINK = 16_000  # characters
MAX_UNPACKED = 400_000  # bytes
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
    """The recipe in a recipe or evidence file, a patch's header, a picture drawn here, a report, or a run's folder.

    Raises:
        InputError: there is none, it is broken, or a newer version wrote it.
    """
    if path.is_dir():
        path = path / "recipe.json"
    if not path.is_file():
        raise InputError(f"There is no file {path}; name {SOURCES}.")
    return _checked(_READERS.get(path.suffix.lower(), _from_json)(path), str(path))


def _checked(found: dict, path: str) -> dict:
    kind, _, number = str(found.get("format", "")).rpartition("-")
    if kind != "razor-recipe" or not number.isdecimal():
        raise InputError(f"{path} holds no recipe; name {SOURCES}.")
    if int(number) > VERSION:
        raise InputError(
            f"The recipe in {path} was written by a newer version (format {number}, known up to {VERSION})."
        )
    task = found.get("task") or {}
    parts = [(found, ("model", "task", "config", "edit_set"), dict), (found, ("rounds",), list)]
    parts += [(task, ("origin", "examples", "classes"), dict)] if isinstance(task, dict) else []
    for held, names, kind in parts:
        if wrong := next((name for name in names if not isinstance(held.get(name, kind()), kind)), None):
            raise InputError(f"The recipe in {path} is broken: its {wrong!r} is {str(held[wrong])[:40]!r}.")
    named = [*(found.get("model") or {}).values(), *(task.get("origin") or {}).values(), task.get("concept", "")]
    if not all(isinstance(name, str) for name in named):
        raise InputError(f"The recipe in {path} is broken: what should be names are not.")
    return found


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


def _from_patch(path: Path) -> dict:
    from razor.patches import Patch

    return dict(Patch.load(path).recipe)


def _from_picture(path: Path) -> dict:
    from razor.picture_files import read_png

    return dict(read_png(path.read_bytes(), path.name).recipe)


_READERS = {".safetensors": _from_patch, ".png": _from_picture, ".html": _from_report}


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


def _split_entry(split: Split) -> dict[str, dict]:
    return {name: {"n": len(examples), "sha256": _hash(examples)} for name, examples in vars(split).items()}


def _hash(examples: Sequence[Example]) -> str:
    lines = "\n".join(f"{example.digest} {example.caption}" for example in examples)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
