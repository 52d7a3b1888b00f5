"""A growth on disk: its rounds and branches as JSON, the changes of its units as safetensors.

Holds no picture and no caption, only numbers and names. Reading needs the same model and task again; nothing is ever
unpickled, and a file that does not fit is refused in one sentence.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from razor import jsonio
from razor.config import RazorConfig
from razor.edit_set import EditSet
from razor.errors import InputError
from razor.gradients import UnitStats
from razor.growth import Growth
from razor.history import GrowthRound, History, Position, State
from razor.metrics import Evaluation
from razor.patches import Patch
from razor.scoring import UnitScore
from razor.step import Trial
from razor.writing import whole

FORMAT = "razor-growth-2"
TABLE, TENSORS = "growth.json", "growth.safetensors"


def save(growth: Growth, folder: Path, note: Mapping[str, str] | None = None) -> str:
    """Write the growth's history and position. The two files carry one mark, so that halves of two saves never mix.

    Args:
        note: what the caller wants to find again, such as the target's name.

    Returns:
        The mark.

    Raises:
        WriteError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    history, tensors = growth.history, {}
    states = [_state_json(growth, state, tensors) for state in history.states.values()]
    number = history.position.state
    placed = {*growth.edit_set.members, *growth.edit_set.off, *growth.edit_set.active}
    fresh = [n for n in sorted(placed) if n not in history.state.changes]
    by_hand = {n: _store(growth.change_of(n), f"hand/{n}", tensors) for n in fresh}
    mark = uuid4().hex
    table = {
        "format": FORMAT,
        "mark": mark,
        "note": dict(note or {}),
        "model": {"name": growth.adapter.name, "fingerprint": growth.adapter.fingerprint()},
        "concept": growth.task.concept,
        "config": growth.config.to_json(),
        "measure": growth.bench.measure,
        "states": states,
        "branches": history.branches,
        "position": {"state": number, "edit_set": growth.edit_set.to_json(), "branch": history.position.branch},
        "by_hand": by_hand,
    }
    with whole(folder / TENSORS, folder / TABLE) as parts:
        save_file(tensors, parts[0], {"mark": mark})
        parts[1].write_text(jsonio.text(table), "utf-8")
    return mark


def read_note(folder: Path) -> dict:
    """The note, concept and number of rounds of a saved growth, without reading any tensor.

    Raises:
        InputError: there is none, or it is broken.
    """
    table = _table(folder)
    return {**table["note"], "concept": table["concept"], "rounds": len(table["states"]) - 1}


def restore(growth: Growth, folder: Path) -> None:
    """Fill a fresh growth of the same model and task with a saved history.

    Raises:
        InputError: nothing saved there, a broken file, or another model or concept.
    """
    table = _table(folder)
    if table["model"]["fingerprint"] != growth.adapter.fingerprint():
        raise InputError(f"These rounds were grown on {table['model']['name']}; load that model to take them back.")
    if table["concept"] != growth.task.concept:
        raise InputError(f"These rounds forget {table['concept']}, not {growth.task.concept}; choose that target.")
    try:
        if growth.bench.measure != table["measure"]:
            growth.bench.measure = float(table["measure"])
        with safe_open(folder / TENSORS, "pt") as file:
            if (file.metadata() or {}).get("mark") != table["mark"]:
                raise ValueError("its two files are of different saves")
            read = lambda name, key: _fetch(growth, file, name, key)  # noqa: E731
            states = {entry["number"]: _state(growth, entry, read) for entry in table["states"]}
            by_hand = {name: read(name, key) for name, key in table["by_hand"].items()}
        at = table["position"]
        position = Position(at["state"], EditSet.from_json(at["edit_set"]), at["branch"])
        history = History.of(states, {str(k): int(v) for k, v in table["branches"].items()}, position)
        growth.adopt(history, by_hand, {e["number"]: _stats(growth, e["stats"]) for e in table["states"] if e["stats"]})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"The saved rounds cannot be read ({error}); start a new run.") from error


def mark_of(folder: Path) -> str:
    """The mark of a saved growth."""
    return _table(folder)["mark"]


def config_of(folder: Path) -> RazorConfig:
    """The settings of a saved growth."""
    return RazorConfig.from_json(_table(folder)["config"])


_KINDS = {"mark": str, "note": dict, "model": dict, "concept": str, "config": dict, "states": list, "branches": dict,
          "position": dict, "by_hand": dict}  # fmt: skip


def _table(folder: Path) -> dict:
    try:
        table = json.loads((folder / TABLE).read_text("utf-8"))
        if table["format"] != FORMAT:
            raise ValueError(f"format {table['format']!r}")
        for name, kind in _KINDS.items():
            if not isinstance(table[name], kind):
                raise ValueError(f"{name} is {str(table[name])[:40]!r}")
        return table
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"No saved rounds can be read there ({error}); start a new run.") from error


def _store(patch: Patch, key: str, tensors: dict) -> str:
    # Copies: a rejected round holds the very tensors of the round before it, which the file format refuses to share.
    tensors |= {f"{key}/{i}": delta.clone() for i, delta in enumerate(patch.deltas.values())}
    return key


def _fetch(growth: Growth, file, name: str, key: str) -> Patch:
    known = set(file.keys())
    found = {where: f"{key}/{i}" for i, where in enumerate(growth.every[name].slices)}
    patch = Patch({where: file.get_tensor(place) for where, place in found.items() if place in known})
    with patch.applied(growth.adapter.model):  # refuses shapes that do not fit
        return patch


def _state_json(growth: Growth, state: State, tensors: dict) -> dict:
    changes = {n: _store(p, f"{state.number}/{n}", tensors) for n, p in state.changes.items()}
    stats = growth.own_stats(state.number)
    return {
        "number": state.number,
        "parent": state.parent,
        "round": _round_json(state.round) if state.round else None,
        "edit_set": state.edit_set.to_json(),
        "changes": changes,
        "evaluation": state.evaluation.to_json(digits=None),
        "stats": [{**vars(s), "unit": s.unit.name} for s in stats] if stats else None,
    }


def _round_json(done: GrowthRound) -> dict:
    return {
        **vars(done),
        "added": [{**vars(s), "unit": s.unit.name} for s in done.added],
        "trials": [vars(t) for t in done.trials],
        "before": done.before.to_json(digits=None),
        "after": done.after.to_json(digits=None),
    }


def _state(growth: Growth, entry: dict, read) -> State:
    return State(
        number=entry["number"],
        parent=entry["parent"],
        round=_round(growth, entry["round"]) if entry["round"] else None,
        edit_set=EditSet.from_json(entry["edit_set"]),
        changes={name: read(name, key) for name, key in entry["changes"].items()},
        evaluation=Evaluation.from_json(entry["evaluation"]),
    )


def _round(growth: Growth, entry: dict) -> GrowthRound:
    read = {
        "added": tuple(UnitScore(**s | {"unit": growth.every[s["unit"]]}) for s in entry["added"]),
        "members": tuple(entry["members"]),
        "trials": tuple(Trial(**t) for t in entry["trials"]),
        "before": Evaluation.from_json(entry["before"]),
        "after": Evaluation.from_json(entry["after"]),
    }
    return GrowthRound(**entry | read)


def _stats(growth: Growth, rows: list[dict]) -> list[UnitStats]:
    return [UnitStats(**row | {"unit": growth.every[row["unit"]]}) for row in rows]
