"""What reproduces a run: model, examples, settings, seeds and rounds, as plain JSON; read again and compared."""

import base64
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from safetensors import SafetensorError, safe_open

from razor import jsonio
from razor.adapters.base import Adapter
from razor.config import RazorConfig
from razor.edit_set import ACTIONS, EditSet, describe_changes
from razor.errors import InputError
from razor.examples import Example, Split, Task
from razor.gates import Gate, usual, with_limits
from razor.growth import KINDS, Growth, Plan, Step
from razor.history import MAIN, GrowthRound, Offshoot, State, moved, moves
from razor.patches import Patch
from razor.recipe_kinds import UNIT_LISTS, first_wrong
from razor.units import overlap

VERSION = 1
FORMAT = f"razor-recipe-{VERSION}"
SOURCES = "a recipe.json, a patch or another export that says it, a picture drawn here, a report or a run's folder"
MAX_REPORT = 50_000_000  # bytes
MAX_LINK = 16_000  # characters
MAX_UNPACKED = 400_000  # bytes
MAX_NAMED = 300  # own pictures of a side that are named one by one
MAX_SHOWN = 2_000  # characters of somebody's words in a sentence
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
    """Settings, edit set, rounds and other branches of a run so far, or as one of its states was left."""
    history, config = growth.history, growth.config.to_json()
    edit_set = growth.edit_set if state is None else state.edit_set
    state = state or history.state
    found = {"config": config, "edit_set": edit_set.to_json(), "rounds": _rounds(history.path(state.number), config)}
    if (since := moves(state.edit_set, edit_set)) != {}:
        found["since"] = since  # what was done by hand after the last round
    if others := history.offshoots(state.number):
        found["branch"] = history.holding(state.number)
        found["branches"] = [_branch_entry(other, config) for other in others]
    return found


def _branch_entry(branch: Offshoot, config: Mapping) -> dict:
    return {
        "name": branch.name,
        "from": {"branch": branch.leaves, "round": branch.after},
        "rounds": _rounds(branch.states, config),
        "edit_set": branch.edit_set.to_json(),
    }


def _rounds(states: Iterable[State], config: Mapping) -> list[dict]:
    return [_round_entry(state.round, config) for state in states if state.round is not None]


def _round_entry(done: GrowthRound, config: Mapping) -> dict:
    entry = {
        "by_hand": done.by_hand,
        "added": [s.unit.name for s in done.added],
        "accepted": done.accepted,
        "steps": done.chosen,
    }
    if done.start is not None:
        entry["start"] = dict(done.start)
    if other := {key: v for key, v in done.settings.items() if key != "rounds" and v != config[key]}:
        entry["settings"] = other
    return entry


def with_gates(made: Mapping, gates: Sequence[Gate]) -> dict:
    """The recipe with what its edit has to stand, as fixed before the edit was tested; as it is where nothing was."""
    return {**made, "gates": {gate.key: gate.limit for gate in gates}} if gates else dict(made)


def gates_of(made: Mapping, chance: float) -> tuple[Gate, ...]:
    """The usual gates, at the limits of a recipe where it has any.

    Args:
        chance: accuracy of guessing on the target's axis.

    Raises:
        InputError: the recipe has a limit that is none, or of a gate there is none of.
    """
    held = made.get("gates") or {}
    try:
        return with_limits(usual(chance), held if isinstance(held, Mapping) else {str(held)[:40]: held})
    except InputError as error:
        raise InputError(f"The gates of the recipe cannot be used: {error}") from error


def rebound(patch: Patch, adapter: Adapter) -> Patch:
    """A patch of other weights as one of this model's: its recipe says where it came from."""
    from razor.modelspec import shareable

    origin = shareable(patch.recipe)
    carried = {"model": origin.get("model") or {}, "recipe": origin, "left_out": []}
    made = {"format": FORMAT, "model": model_entry(adapter), "carried": carried, "versions": versions()}
    return patch.bound_to(adapter.model).with_recipe(made)


def model_entry(adapter: Adapter) -> dict:
    """Which model, by name and by a hash of its weights."""
    return {"family": adapter.family, "name": adapter.name, "fingerprint": adapter.fingerprint()}


def task_entry(task: Task) -> dict:
    """What was forgotten and kept, with a hash and a count per set; a few own pictures by hashes of their own."""
    return {
        "concept": task.concept,
        "axis": task.axis,
        "classes": {axis.name: list(axis.classes) for axis in task.axes},
        "origin": dict(task.origin),
        "examples": {side: _split_entry(getattr(task, side), _is_own(task, side)) for side in ("forget", "retain")},
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


def of(made: Mapping) -> tuple[str, str]:
    """The model of a recipe, and where its forget pictures came from; as texts, whatever is there."""
    return str((made.get("model") or {}).get("name")), str(((made.get("task") or {}).get("origin") or {}).get("forget"))


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
    if wrong := first_wrong(found):
        place, value, kind = wrong
        raise InputError(
            f"The recipe in {path} is broken: its {place!r} is {str(value)[:40]!r}, which must be {kind}; use another "
            "copy."
        )
    return found


def _nests_too_deep(found: object) -> bool:
    level = [found]
    for _ in range(MAX_DEPTH):
        level = [inner for held in level for inner in _inside(held)]
    return bool(level)


def _inside(held: object) -> Iterable:
    return held.values() if isinstance(held, dict) else held if isinstance(held, list) else ()


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
    """The recipe as a piece of an address: letters, digits, - and _. Where that gets too long, without other branches.

    Raises:
        InputError: it is too long all the same.
    """
    shorter = {k: v for k, v in made.items() if k != "branches"} if isinstance(made, Mapping) else made
    for held in (made, shorter):
        packed = zlib.compress(json.dumps(held, separators=(",", ":")).encode(), 9)
        if len(link := base64.urlsafe_b64encode(packed).decode().rstrip("=")) <= MAX_LINK:
            return link
    raise InputError(f"A link to this run has {len(link):,} characters, and up to {MAX_LINK:,} fit; take it as a file.")


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
        return
    sides = [_entries(value) for value in (first, second)]
    if any(sides) and None not in sides:
        shared = [[name for name in side if all(name in other for other in sides)] for side in sides]
        if shared[0] != shared[1]:
            yield Difference(place, *shared)
        yield from _differences(place, *sides)
    elif first != second:
        yield Difference(place, first, second)


def _entries(value: object) -> dict[str, dict] | None:
    """The objects in a list, by their names or else by number; none of nothing, None of anything else."""
    if value is not None and not (isinstance(value, list) and all(isinstance(entry, dict) for entry in value)):
        return None
    names = [entry.get("name") for entry in value or ()]
    named = all(isinstance(name, str) for name in names) and len({*names}) == len(names)
    return dict(zip(names if named else map(str, range(len(names))), value or (), strict=True))


# ---------------------------------------------------------------- repeated


def planned(made: Mapping) -> Plan:
    """What a run that repeats a recipe begins with: its moves by hand where it tells them all, else its locks and bans.

    Raises:
        InputError: a setting or strength is out of range.
    """
    held, rounds = made.get("edit_set", {}), made.get("rounds", [])
    barred = {"locked": frozenset(held.get("locked", ())), "banned": frozenset(held.get("banned", ()))}
    since = made.get("since", {})
    if not rounds and "since" not in made:
        since = moves(EditSet(), _edit_set(made))
    done = [*(entry.get("start") for entry in rounds), since]
    if None in done or done == [{}] or any(_brought_in(entry) for entry in rounds):
        return Plan(**barred)
    config = dict(made.get("config", {}))
    settings = [*(entry.get("settings", {}) for entry in rounds), {}]
    changed = [{name: getattr(RazorConfig.from_json(config | own), name) for name in own} for own in settings]
    for one in done:
        moved(EditSet(), one)
    steps = tuple(Step(one, own) for one, own in zip(done, changed, strict=True))
    return Plan(**barred, config=RazorConfig.from_json(config), steps=steps)


def _edit_set(made: Mapping) -> EditSet:
    held, usual = made.get("edit_set", {}), EditSet().to_json()
    return EditSet.from_json({name: held.get(name, value) for name, value in usual.items()})


def _brought_in(entry: Mapping) -> bool:
    """A round that came from a file: it was kept, and took no step."""
    return bool(entry.get("accepted")) and not entry.get("steps", 1)


def left_out(made: Mapping) -> list[str]:
    """What a run that repeats a recipe does not bring back, a sentence each: rounds, other branches, other edits."""
    told = [] if planned(made).steps else [*_lost(made)]
    branches = [_branch_said(branch, made.get("branch", MAIN)) for branch in made.get("branches", [])]
    return [*told, *branches, *_stack_said(made)]


def _lost(made: Mapping) -> Iterator[str]:
    for number, entry in enumerate(made.get("rounds", []), 1):
        by_hand = _words(entry.get("by_hand", ""))
        if _brought_in(entry):
            yield f"Round {number} was not grown ({by_hand}); only its patch brings it back."
        elif by_hand:
            yield f"What was done by hand before round {number} is left to do: {by_hand}."
    held = _edit_set(made)
    afterwards = [f"without {', '.join(sorted(held.off))}"] if held.off else []
    if said := describe_changes(EditSet(members=held.members), held):
        afterwards.append(said)
    if afterwards:
        yield f"What was done by hand at the end, or before, is left to do: {_words('; '.join(afterwards))}."


def _branch_said(branch: Mapping, here: str) -> str:
    name, start = _words(branch.get("name", "")), branch.get("from", {})
    number, leaves = start.get("round", 0), _words(start.get("branch", MAIN))
    where = f"after round {number} of {leaves}" if number else "from the unedited model"
    rounds = enumerate(branch.get("rounds", []), number + 1)
    said = "; ".join(_round_said(i, entry) for i, entry in rounds) or "nothing was grown"
    return f"{name} {'went on' if name == here else 'is another branch'}, not grown again: {where}, {said}."


def _round_said(number: int, entry: Mapping) -> str:
    by_hand, added = _words(entry.get("by_hand", "")), ", ".join(map(_words, entry.get("added", ())))
    said = [f"by hand {by_hand}"] if by_hand else []
    said += [f"took in {added}"] if added else []
    said += ["was turned down"] if not entry.get("accepted", True) else []
    return f"round {number} {', '.join(said) or 'moved what was in'}"


def stacked(made: Mapping) -> str:
    """The edits a recipe says act together, in order, in words; "" where its own acts alone."""
    return ", ".join(_words(e if isinstance(e, str) else e.get("name", "")) for e in made.get("stack", []))


def _beneath(made: Mapping) -> str:
    """The edits a recipe's own was grown on, in words."""
    own = (made.get("task") or {}).get("concept")
    entries = [entry for entry in made.get("stack", []) if isinstance(entry, Mapping)]
    return ", ".join(_words(name) for e in entries if e.get("name") == own for name in e.get("beneath", ()))


def _stack_said(made: Mapping) -> Iterator[str]:
    if names := stacked(made):
        own, below = _words((made.get("task") or {}).get("concept", "")), _beneath(made)
        more = f", which was grown on top of {below}" if below else ""
        yield f"It acted together with other edits, in this order: {names}; only {own} is repeated{more}."


def _words(text: str) -> str:
    """Somebody's words, in one line and not too many."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= MAX_SHOWN else f"{plain[: MAX_SHOWN - 3]}..."


def check_task(made: Mapping, task: Task) -> None:
    """Raise InputError where a task is not the one of a recipe, naming what differs."""
    then, now = made.get("task") or {}, task_entry(task)
    if then.get("concept") != task.concept:
        other = f"That run forgot {then.get('concept')!r}, and this task forgets {task.concept!r}"
        raise InputError(f"{other}; choose that target first.")
    found = [d.place for d in differences(then, now) if not d.place.startswith(("origin", "examples"))]
    if said := [*found, *_pictures_differ(then.get("examples", {}), now["examples"])]:
        below = _beneath(made)
        more = f" It was grown on top of {below}; forget that first and put it on the stack." if below else ""
        raise InputError(f"This is not the task of that run; other than then: {', '.join(said)}.{more}")


def _pictures_differ(then: Mapping, now: Mapping) -> Iterator[str]:
    """Which side's pictures are not as they were, and how many of them where the recipe names each."""
    for side, sets in now.items():
        sides = then.get(side, {}), sets
        before, after = ({name: entry.get("sha256") for name, entry in found.items()} for found in sides)
        if before == after:
            continue
        counts = [sum(entry.get("n", 0) for entry in found.values()) for found in sides]
        first, second = (Counter(one for entry in found.values() for one in entry.get("each", ())) for found in sides)
        if [first.total(), second.total()] != counts:
            yield f"the {side} pictures ({counts[0]} then, {counts[1]} now, by their hashes not the same)"
        elif first != second:
            lost, new = (first - second).total(), (second - first).total()
            yield f"the {side} pictures ({lost} of {counts[0]} missing, {new} new)"
        else:
            yield f"how the {side} pictures are captioned or divided (the pictures are the same)"


def check(made: Mapping, adapter: Adapter, task: Task, load: str = "name it with --model") -> None:
    """Raise InputError where a recipe is of another model or task, or names units or gates there are none of.

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
    gates_of(made, task.chance)


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
    """Raise InputError where a recipe names a unit that the model has not, or edits a weight twice; names both."""
    known = {unit.name: unit for unit in adapter.units(KINDS, tuple(adapter.towers))}
    for place, names in _named_units(made):
        if unknown := next((name for name in names if name not in known), None):
            raise InputError(
                f"The recipe names {unknown[:80]!r} in {place!r}, and {adapter.name} has no such unit; names look like "
                f"{min(known, default='')!r}."
            )
    members = made.get("edit_set", {}).get("members", [])
    for i, name in enumerate(members):
        for other in members[:i]:
            if name == other or overlap(known[name], known[other]):
                both = f"{other!r} and {name!r} in 'edit_set.members'"
                raise InputError(f"The recipe has {both}, which share weights; use another copy.")


def _named_units(made: Mapping, inside: str = "") -> Iterator[tuple[str, Iterable[str]]]:
    held = made.get("edit_set", {})
    for name in (*UNIT_LISTS, "strengths"):
        yield f"{inside}edit_set.{name}", held.get(name, ())
    yield f"{inside}edit_set.isolated", [name for name in [held.get("isolated")] if name is not None]
    for i, entry in enumerate(made.get("rounds", [])):
        yield f"{inside}rounds.{i}.added", entry.get("added", ())
        yield from _moved_units(entry, f"{inside}rounds.{i}.", "start")
    yield from _moved_units(made, inside, "since")
    for part in ("branches", "stack"):
        for i, entry in enumerate(made.get(part, [])):
            if isinstance(entry, Mapping):
                yield from _named_units(entry, f"{inside}{part}.{i}.")


def _moved_units(entry: Mapping, inside: str, place: str) -> Iterator[tuple[str, Iterable[str]]]:
    done = entry.get(place) or {}
    yield from ((f"{inside}{place}.{name}", done.get(name, ())) for name in (*ACTIONS, "strengths"))
    yield f"{inside}{place}.isolated", [name for name in [done.get("isolated")] if name is not None]


def _is_own(task: Task, side: str) -> bool:
    """Whether these pictures are a person's own, and few enough to be named one by one."""
    from razor.sources import WORLD, is_target

    origin = task.origin.get(side, "")
    again = origin == WORLD or origin.startswith("drawn ") or is_target(origin)  # whoever has the model has them
    return not again and len(getattr(task, side).all()) <= MAX_NAMED


def _split_entry(split: Split, each: bool) -> dict[str, dict]:
    found = {name: {"n": len(examples), "sha256": _hash(examples)} for name, examples in vars(split).items()}
    for name, examples in vars(split).items() if each else ():
        found[name]["each"] = [example.digest[:8] for example in examples]
    return found


def _hash(examples: Sequence[Example]) -> str:
    lines = "\n".join(f"{example.digest} {example.caption}" for example in examples)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
