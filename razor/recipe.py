"""What reproduces a run: model, examples, settings, seeds and rounds, as plain JSON."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from razor.adapters.base import Adapter
from razor.examples import Example, Split, Task
from razor.growth import Growth
from razor.history import State

FORMAT = "razor-recipe-1"
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


def _split_entry(split: Split) -> dict[str, dict]:
    return {name: {"n": len(examples), "sha256": _hash(examples)} for name, examples in vars(split).items()}


def _hash(examples: Sequence[Example]) -> str:
    lines = "\n".join(f"{example.digest} {example.caption}" for example in examples)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
