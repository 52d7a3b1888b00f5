"""Pairs of pictures a model drew before and after an edit, same prompt and same noise, and sheets of drawn pictures.

One widget shows both. How it compares (side by side, wipe, flip, difference) is the visitor's choice and stays in the
browser, so a stream of new values can never take it back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from components.theme import script

KINDS = ("forget", "paraphrase", "neighbour", "retain", "own")
VERDICTS = ("suppressed", "still drawn", "kept", "changed", "")
SOURCES = ("gradio_api/file=", "data:image/png;base64,", "data:image/webp;base64,")  # the page shows no others
EMPTY = "Draw some prompts, and each appears here before and after the edit."

# In this order: the last file starts the widget with what the others declare.
SCRIPTS = ("pairs_parts.js", "pairs_difference.js", "pairs_dialog.js", "pairs_sheet.js", "pairs_views.js", "pairs.js")


def pairs(elem_id: str, value: dict[str, Any] | None = None, visible: bool = True) -> gr.HTML:
    """The widget. Prop: `value` (see `pairs_value` and `sheet_value`)."""
    return gr.HTML(
        value=value or pairs_value([]),
        visible=visible,
        html_template='<div class="pairs" data-ready="false"></div>',
        js_on_load="\n".join(script(name) for name in SCRIPTS),
        apply_default_css=False,
        elem_id=elem_id,
    )


def pairs_value(
    groups: Sequence[Mapping[str, Any]],
    finding: str = "",
    empty: str = EMPTY,
    sides: tuple[str, str] = ("original", "edited"),
    forget_label: str | None = None,
    progress: Mapping[str, Any] | None = None,
    judged: str = "read by the judge",
) -> dict[str, Any]:
    """What `value` takes.

    Args:
        groups: title, kind (one of KINDS), note, and pairs in the order to show them: id (no two pairs share one),
            prompt, seed, before and after (addresses that begin with one of SOURCES; None while not drawn),
            saw_before and saw_after (what a judge saw, "neon, cat"; empty where it was not asked) and verdict (one of
            VERDICTS).
        finding: one sentence that says what the pairs show.
        empty: what to do next, shown while there are no pairs.
        sides: what before and after are called.
        forget_label: the concept to forget; marked wherever the judge saw it.
        progress: done and total, how many pictures are drawn, and a note; None while nothing is being drawn.
        judged: how what a picture shows came to be known.

    Raises:
        ValueError: a kind, a verdict or an address is none the page can show, two pairs share an id, or more is done
            than there is.
    """
    clean = [_clean_group(group) for group in groups]
    ids = [pair["id"] for group in clean for pair in group["pairs"]]
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        raise ValueError(f"Every pair needs an id of its own; more than one has {twice[0]!r}.")
    return {
        "groups": clean,
        "sheet": None,
        "finding": finding,
        "empty": empty,
        "sides": [str(side) for side in sides],
        "forget_label": forget_label,
        "progress": None if progress is None else _clean_progress(progress),
        "judged": judged,
    }


def sheet_value(
    title: str,
    x: Mapping[str, Any],
    y: Mapping[str, Any],
    z: Mapping[str, Any] | None,
    cells: Sequence[Sequence[Sequence[Mapping[str, Any]]]],
    note: str = "",
) -> dict[str, Any]:
    """What `value` takes to show a sheet: a table of pictures for each value of z.

    Args:
        x, y, z: name and values of what changes along a row, down a column and from table to table; z may be None.
        cells: cells[z][y][x], each an image (an address as in `pairs_value`; None while not drawn) and a caption.
            Without z there is one table, cells[0].
        note: one sentence under the title.

    Raises:
        ValueError: the cells do not fit the values, or an address is none the page can show.
    """
    across, down = _clean_axis(x), _clean_axis(y)
    deep = None if z is None else _clean_axis(z)
    tables = [[[_clean_cell(cell) for cell in row] for row in table] for table in cells]
    wanted = (1 if deep is None else len(deep["values"]), len(down["values"]), len(across["values"]))
    fits = len(tables) == wanted[0] and all(
        len(table) == wanted[1] and all(len(row) == wanted[2] for row in table) for table in tables
    )
    if not fits:
        tall, wide = ({len(table) for table in tables}, {len(row) for table in tables for row in table})
        raise ValueError(
            f"The cells of sheet {title!r} must be {wanted[0]} tables of {wanted[1]} rows of {wanted[2]} cells; "
            f"got {len(tables)} tables of {sorted(tall)} rows of {sorted(wide)} cells."
        )
    sheet = {"title": str(title), "x": across, "y": down, "z": deep, "cells": tables, "note": str(note)}
    return pairs_value([]) | {"sheet": sheet}


# ---------------------------------------------------------------- plain values


def _clean_group(group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": str(group["title"]),
        "kind": _one_of(group.get("kind", "own"), KINDS, "kind of group"),
        "note": str(group.get("note") or ""),
        "pairs": [_clean_pair(pair) for pair in group["pairs"]],
    }


def _clean_pair(pair: Mapping[str, Any]) -> dict[str, Any]:
    seed = pair.get("seed")
    return {
        "id": str(pair["id"]),
        "prompt": str(pair["prompt"]),
        "seed": "" if seed is None else str(seed),  # as text: browsers round whole numbers of 64 bits
        "before": _address(pair.get("before")),
        "after": _address(pair.get("after")),
        "saw_before": str(pair.get("saw_before") or ""),
        "saw_after": str(pair.get("saw_after") or ""),
        "verdict": _one_of(pair.get("verdict") or "", VERDICTS, "verdict"),
    }


def _clean_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {"image": _address(cell.get("image")), "caption": str(cell.get("caption") or "")}


def _clean_axis(axis: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": str(axis["name"]), "values": [str(value) for value in axis["values"]]}


def _clean_progress(progress: Mapping[str, Any]) -> dict[str, Any]:
    done, total = int(progress["done"]), int(progress["total"])
    if not 0 <= done <= total:
        raise ValueError(f"Progress must be 0 to {total} of {total} pictures, got {done}.")
    return {"done": done, "total": total, "note": str(progress.get("note") or "")}


def _address(url: Any) -> str | None:
    if url is not None and not str(url).startswith(SOURCES):
        raise ValueError(f"The page shows no picture from {str(url)[:60]!r}. Start it with {' or '.join(SOURCES)}.")
    return None if url is None else str(url)


def _one_of(word: str, words: Sequence[str], what: str) -> str:
    if word not in words:
        raise ValueError(f"No {what} named {word!r}. Pick one of {', '.join(filter(None, words))}.")
    return word
