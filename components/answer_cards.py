"""Answers about pictures before and after an edit: what a model said, what it says now, and how likely the name is."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from components.pairs import SOURCES
from components.theme import script

KINDS = ("forget", "paraphrase", "check", "neighbour", "retain", "neutral", "own")
VERDICTS = ("suppressed", "still named", "not named before either", "kept", "changed", "names it", "")
DIFFERENCES = ("same", "gone", "new")
EMPTY = "Ask some questions, and each appears here with its answers before and after the edit."
LEAST = -1000.0  # nats; the page writes what is no more likely as minus infinity, which JSON does not know
_ROUNDING = 1e-3  # nats by which the log-probability of a certain token may pass 0


def answer_cards(elem_id: str, value: dict[str, Any] | None = None, visible: bool = True) -> gr.HTML:
    """The widget. Prop: `value` (see `answers_value`)."""
    return gr.HTML(
        value=value or answers_value([]),
        visible=visible,
        html_template='<div class="answers" data-ready="false"></div>',
        js_on_load=script("answers.js"),
        apply_default_css=False,
        elem_id=elem_id,
    )


def answers_value(
    groups: Sequence[Mapping[str, Any]],
    finding: str = "",
    empty: str = EMPTY,
    sides: tuple[str, str] = ("original", "edited"),
    name: str = "",
    progress: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `value` takes.

    Args:
        groups: title, kind (one of KINDS), note, and answers in the order to show them: image (see `cards.image_url`;
            "" for none), question, right (the right answers, as far as known), before and after (what was said; None
            while not answered), difference (see `answers.compare`), flags (of before and of after, see
            `answers.flags`), verdict (one of VERDICTS) and tokens of the forgotten name: token, before and after, its
            log-probability as the answer in nats (None while not known).
        finding: one sentence that says what the answers show.
        empty: what to do next, shown while there are no answers.
        sides: what before and after are called.
        name: the forgotten name.
        progress: done and total, how many questions are answered, and a note; None while none is being asked.

    Raises:
        ValueError: a kind, a verdict, a difference or an address is none the page can show, flags are not of two
            sides, a log-probability is none, or more is done than there is.
    """
    return {
        "groups": [_clean_group(group) for group in groups],
        "finding": finding,
        "empty": empty,
        "sides": [str(side) for side in sides],
        "name": str(name),
        "progress": None if progress is None else _clean_progress(progress),
    }


# ---------------------------------------------------------------- plain values


def _clean_group(group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": str(group["title"]),
        "kind": _one_of(group.get("kind", "own"), KINDS, "kind of group"),
        "note": str(group.get("note") or ""),
        "answers": [_clean_answer(answer) for answer in group["answers"]],
    }


def _clean_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    question, flags = str(answer["question"]), answer.get("flags") or ((), ())
    if len(flags) != 2:
        raise ValueError(f"The flags of {question!r} must be two lists, before and after; got {len(flags)}.")
    return {
        "image": _address(answer.get("image")),
        "question": question,
        "right": [str(text) for text in answer.get("right") or ()],
        **{side: None if (text := answer.get(side)) is None else str(text) for side in ("before", "after")},
        "difference": [
            [_one_of(kind, DIFFERENCES, "difference"), str(words)] for kind, words in answer.get("difference") or ()
        ],
        "flags": [[str(flag) for flag in side] for side in flags],
        "verdict": _one_of(answer.get("verdict") or "", VERDICTS, "verdict"),
        "tokens": [_clean_token(token) for token in answer.get("tokens") or ()],
    }


def _clean_token(token: Mapping[str, Any]) -> dict[str, Any]:
    text = str(token["token"])
    return {"token": text} | {side: _logprob(text, token.get(side)) for side in ("before", "after")}


def _logprob(token: str, value: Any) -> float | None:
    if value is None:
        return None
    if not value <= _ROUNDING:  # NaN too
        raise ValueError(f"The log-probability of {token!r} must be 0 or less, in nats; got {value}.")
    return max(LEAST, min(0.0, float(value)))


def _clean_progress(progress: Mapping[str, Any]) -> dict[str, Any]:
    done, total = int(progress["done"]), int(progress["total"])
    if not 0 <= done <= total:
        raise ValueError(f"Progress must be 0 to {total} of {total} questions, got {done}.")
    return {"done": done, "total": total, "note": str(progress.get("note") or "")}


def _address(url: Any) -> str:
    if url and not str(url).startswith(SOURCES):
        raise ValueError(f"The page shows no picture from {str(url)[:60]!r}. Start it with {' or '.join(SOURCES)}.")
    return str(url or "")


def _one_of(word: str, words: Sequence[str], what: str) -> str:
    if word not in words:
        raise ValueError(f"No {what} named {word!r}. Pick one of {', '.join(filter(None, words))}.")
    return word
