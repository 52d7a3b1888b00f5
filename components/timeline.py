"""The growth timeline: a tree of rounds, one branch of it in full, and what forgetting and retention did meanwhile."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import Any

import gradio as gr

from components.events import field, whole_number
from components.theme import plotly_head, script
from razor.history import MAX_NAME

CURVES = ("forget", "retain", "neighbour")
KINDS = ("start", "round")
ACTIONS = ("switch", "new", "rename", "delete", "compare")
SCRIPTS = ("timeline_branches.js", "timeline_rounds.js", "timeline_curves.js", "timeline.js")  # one scope, in order

_revisions = count(1)


def timeline(elem_id: str = "timeline") -> gr.HTML:
    """The widget. Prop: `value` (see `timeline_value`). Events: `round_pick` {id} (see `round_picked`) and
    `branch_change` {action, name, to, node} (see `branch_changed`)."""
    return gr.HTML(
        value=timeline_value([], branches=[], branch="", current=0),
        html_template='<div class="timeline" data-ready="false"></div>',
        head=plotly_head(),
        js_on_load="\n".join(script(name) for name in SCRIPTS),
        apply_default_css=False,
        elem_id=elem_id,
    )


def timeline_value(
    nodes: Sequence[Mapping[str, Any]],
    *,
    branches: Sequence[Mapping[str, Any]],
    branch: str,
    current: int,
    target: float | None = None,
    finding: str = "",
    compared: Sequence[str] = (),
    draft: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `value` takes.

    A point is None or a mapping of value, low, high (shares of 1) and n.

    Args:
        nodes: id (0 is the unedited model), parent (None for that one), kind (one of KINDS), index (round number on
            its path), unit (None for the start), by_hand, accepted, reason, note, seconds, added (unit, phi, pressure,
            separation, rank of each unit that joined), trials (step, length, forget, retain, cost of each step
            tried), chosen (0 for none), won (one sentence on what it took and cost) and the points forget, retain and
            neighbour. A rejected round carries what was measured before it was taken back.
        branches: name, tip (the id it ends at), locks and bans (how many).
        branch: the name of the branch shown in full.
        current: the id shown everywhere now; it lies on that branch.
        target: the forget accuracy to reach, a share of 1; None draws no line.
        finding: one sentence that says what the curves show.
        compared: names of up to two branches chosen for comparison, first and second.
        draft: changes by hand on top of the current node: text, busy, and the points; None for none.

    Raises:
        ValueError: the nodes are no tree, or a name or an id is none of those given.
    """
    clean = {one["id"]: one for one in map(_node, nodes)}
    paths = {str(one["name"]): _path(clean, one["tip"]) for one in branches}
    if clean and branch not in paths:
        raise ValueError(f"No branch named {branch!r}. Pick one of {', '.join(paths)}.")
    if clean and current not in paths[branch]:
        raise ValueError(f"Node {current} does not lie on the branch {branch!r}.")
    return {
        "rev": next(_revisions),  # equal values are news too: they take back a pick that was turned down
        "nodes": list(clean.values()),
        "branches": [_branch(one) | {"path": paths[str(one["name"])]} for one in branches],
        "forks": _forks(paths, branch),
        "branch": branch,
        "current": current,
        "target": _number(target),
        "finding": finding,
        "compared": [name for name in compared if name in paths][:2],
        "draft": None if draft is None else _draft(draft),
    }


# ---------------------------------------------------------------- the tree


def _path(nodes: Mapping[int, Mapping[str, Any]], tip: int) -> list[int]:
    """Ids from the start to the tip."""
    path: list[int] = []
    at: int | None = tip
    while at is not None:
        if at not in nodes or at in path:
            raise ValueError(f"The rounds are no tree: the path to {tip} leads to {at}, which is not a new node.")
        path.append(at)
        at = nodes[at]["parent"]
    return path[::-1]


def _forks(paths: Mapping[str, Sequence[int]], branch: str) -> dict[str, list[str]]:
    """Node id -> names of the other branches that part from this one there. The ids are text, as JSON keys are."""
    forks: dict[str, list[str]] = {}
    for name, path in paths.items():
        shared = [one for one in path if one in paths.get(branch, ())]
        if name != branch and shared:
            forks.setdefault(str(shared[-1]), []).append(name)
    return forks


# ---------------------------------------------------------------- plain values


def _node(one: Mapping[str, Any]) -> dict[str, Any]:
    kind, unit, parent = one["kind"], one.get("unit"), one.get("parent")
    if kind not in KINDS:
        raise ValueError(f"No kind of node named {kind!r}. Pick one of {', '.join(KINDS)}.")
    return {
        "id": int(one["id"]),
        "parent": None if parent is None else int(parent),
        "kind": kind,
        "index": int(one["index"]),
        "unit": None if unit is None else str(unit),
        "accepted": bool(one["accepted"]),
        "seconds": _number(one.get("seconds")),
        "chosen": int(one.get("chosen") or 0),
        "added": [_added(unit) for unit in one.get("added") or ()],
        "trials": [
            _numbers(trial, ("step", "length", "forget", "retain", "cost")) for trial in one.get("trials") or ()
        ],
        **{name: str(one.get(name) or "") for name in ("by_hand", "reason", "note", "won")},
        **{name: _point(one.get(name)) for name in CURVES},
    }


def _added(unit: Mapping[str, Any]) -> dict[str, Any]:
    return {"unit": str(unit["unit"])} | _numbers(unit, ("phi", "pressure", "separation", "rank"))


def _branch(one: Mapping[str, Any]) -> dict[str, Any]:
    counts = {name: int(one.get(name) or 0) for name in ("locks", "bans")}
    return {"name": str(one["name"]), "tip": int(one["tip"])} | counts


def _draft(draft: Mapping[str, Any]) -> dict[str, Any]:
    points = {name: _point(draft.get(name)) for name in CURVES}
    return {"text": str(draft.get("text") or ""), "busy": bool(draft.get("busy"))} | points


def _point(point: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if point is None or _number(point.get("value")) is None:
        return None
    n = point.get("n")
    return _numbers(point, ("value", "low", "high")) | {"n": None if n is None else int(n)}


def _numbers(fields: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    return {name: _number(fields.get(name)) for name in names}


def _number(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(number)


# ---------------------------------------------------------------- events


def round_picked(evt_data: Any, ids: Collection[int]) -> int:
    """The node id in a `round_pick` event, checked against the ids there are.

    Raises:
        ValueError: there is no such node; anyone can send an event.
    """
    picked = field(evt_data, "id")
    if not whole_number(picked) or picked not in ids:
        raise ValueError("A picked round must be one of the rounds on the timeline.")
    return picked


def branch_changed(
    evt_data: Any, names: Collection[str], ids: Collection[int]
) -> tuple[str, str, str | None, int | None]:
    """(action, name, to, node) of a `branch_change` event, checked against the branches and nodes there are.

    `name` is the branch acted on; for "new" it is the one shown when the new one was asked for. `to` is the new name
    for "new" and "rename", `node` the id a new branch starts at; both are None for the other actions.

    Raises:
        ValueError: a field is missing, unknown, taken or out of range; anyone can send an event.
    """
    action, name, to, node = (field(evt_data, key) for key in ("action", "name", "to", "node"))
    if action not in ACTIONS:
        raise ValueError(f"A change of branches must ask for one of {', '.join(ACTIONS)}.")
    if not isinstance(name, str) or name not in names:
        raise ValueError("There is no branch of that name.")
    if action == "delete" and len(names) < 2:
        raise ValueError("The last branch cannot be deleted.")
    if action == "new" and (not whole_number(node) or node not in ids):
        raise ValueError("A new branch must start at one of the rounds on the timeline.")
    named = _branch_name(to, names) if action in ("new", "rename") else None
    return action, name, named, node if action == "new" else None


def _branch_name(to: Any, names: Collection[str]) -> str:
    name = " ".join(to.split()) if isinstance(to, str) else ""
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError(f"A branch name must be 1 to {MAX_NAME} printable characters.")
    if name in names:
        raise ValueError("There is already a branch of that name.")
    return name
