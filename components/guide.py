"""The guided mode: five steps in plain words over the same screens. It hides nothing; it says what to press and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import gradio as gr

from components.glossary import term
from components.session import Session
from razor.growth import Growth
from razor.wording import draws, judge_of, read_by, tested, wording


@dataclass(frozen=True)
class Step:
    """One step: what it is called, its screen, what its button says, and what it is about."""

    title: str
    tab: str
    button: str
    words: str  # HTML of our own, with glossary terms


STEPS = (
    Step(
        "Choose",
        "model",
        "Go on with these pictures",
        f"Choose what the model shall forget under <b>Make it forget</b>. The first row, the {term('forget set')}, "
        f"shows it; the second its {term('neighbour', 'nearest neighbours')}, the first to suffer from a clumsy edit; "
        f"the third what must stay, the {term('retain set')}.",
    ),
    Step(
        "Find",
        "edit",
        "Find the parts that know it",
        f"The model is a grid of small parts, mostly {term('head', 'attention heads')}. Each gets a score, "
        f"{term('phi')}: bright parts push hard on forgetting without hurting what must stay.",
    ),
    Step(
        "Edit",
        "edit",
        "Forget it",
        f"Only the brightest few parts are changed, in small steps, until the {term('search split')} says it is gone. "
        "Outlined parts are edited. Click one to take it out and read below what that does; "
        f"{term('lock', 'L locks')} it, {term('ban', 'B bans')} it.",
    ),
    Step(
        "Compare",
        "compare",
        "Compare before and after",
        "The same on both sides: a CLIP names the same pictures, a model that answers is asked the same questions, one "
        "that draws makes the same prompts from the same noise. Look for the target first, then for its neighbours: "
        "those must be as before.",
    ),
    Step(
        "Doubt",
        "edit",
        "Test the scores",
        f"A good number can be luck. This scores again on resampled examples ({term('bootstrap')}): faded parts change "
        "their score with the examples. Open <b>Can I trust the score?</b> to see which. The fourth screen then "
        "tries to get back what was forgotten, and says what came back.",
    ),
)


@dataclass(frozen=True)
class Guide:
    """The widgets of the guided mode."""

    toggle: gr.Button
    box: gr.Column
    steps: gr.Radio
    text: gr.HTML
    do: gr.Button
    next: gr.Button


def build_toggle() -> gr.Button:
    """The button in the page's first line that opens and closes the guide."""
    return gr.Button("Guide me", size="sm", elem_id="guide-toggle", min_width=120)


def build(toggle: gr.Button) -> Guide:
    with gr.Column(visible=False, elem_id="guide", elem_classes="panel") as box:
        steps = gr.Radio(
            [(f"{i + 1}  {step.title}", i) for i, step in enumerate(STEPS)],
            value=0,
            label="Five steps",
            elem_id="guide-steps",
        )
        text = gr.HTML(text_html(0, None), apply_default_css=False, elem_id="guide-text")
        with gr.Row(elem_classes="actions"):
            do = gr.Button(STEPS[0].button, variant="primary", elem_id="guide-do", min_width=220)
            following = gr.Button("Next", elem_id="guide-next", min_width=100)
    return Guide(toggle, box, steps, text, do, following)


def text_html(number: int, session: Session | None) -> str:
    """What the step is about, and what was found so far."""
    step = STEPS[number]
    seen = f'<p class="guide-seen">{escape(seen_text(number, session))}</p>' if session else ""
    return f'<section class="guide-step"><h3>{escape(step.title)}</h3><p>{step.words}</p>{seen}</section>'


def seen_text(number: int, session: Session) -> str:
    """What the step has found, or what it still needs."""
    growth = session.growth
    if number == 0:
        concept = session.task.concept if session.task else session.target.partition(":")[2]
        return f"Chosen: {concept}."
    if growth is None or not growth.showable:
        return "Nothing is scored yet." if number != 1 else "Press the button; it takes a few seconds."
    return {1: _found, 2: _edited, 3: _compared, 4: _trusted}[number](growth, session)


def _found(growth: Growth, session: Session) -> str:
    best = min(growth.shown_scores(), key=lambda s: s.rank)
    return f"{best.unit.name} scores highest of {len(growth.units)} parts."


def _edited(growth: Growth, session: Session) -> str:
    members, now = growth.edit_set.members, growth.known_evaluation(growth.edit_set)
    if not members or now is None:
        return "No part is edited yet."
    lost, words = 100 * (growth.base.retain_accuracy.value - now.retain_accuracy.value), wording(growth)
    before = f"{growth.base.forget_accuracy.value:.0%}"
    return (
        f"{len(members)} of {len(growth.units)} parts are edited. {growth.task.concept} is {words.seen} "
        f"{now.forget_accuracy.value:.0%} of the {words.search}, {'by definition ' if draws(growth) else ''}{before} "
        f"before; {max(0.0, lost):.1f} of a hundred {words.answers} were lost."
    )


def _compared(growth: Growth, session: Session) -> str:
    if session.tested is None and draws(growth):
        return "The pairs show what it draws now; nothing is counted on test prompts yet."
    if session.tested is None:
        return "The new pictures have not been asked yet."
    after, words, judge = session.tested[1].forget_accuracy, tested(growth.adapter, growth.task), judge_of(growth)
    said = f", {read_by(judge)}" if judge else ""
    return (
        f"Of {after.n} {words.what} nothing was chosen by, {growth.task.concept} is {words.seen} {after.value:.1%} "
        f"(95 % interval {after.low:.1%} to {after.high:.1%}){said}."
    )


def _trusted(growth: Growth, session: Session) -> str:
    spread = session.kept("spread")
    if not spread:
        return "Not tested yet; on the bundled CLIP it takes about fifteen seconds."
    faded = sum(s.unstable(growth.config.alpha) for s in spread)
    inside = [s.unit.name for s in spread if s.unstable(growth.config.alpha) and s.unit.name in growth.edit_set.members]
    edited = f"{', '.join(inside)} among the edited" if inside else "none of the edited"
    return f"{faded} of {len(spread)} parts change their score with the examples, {edited}."


def shown(guide: Guide, number: int, session: Session) -> Mapping:
    """The widgets at a step."""
    return {
        guide.steps: number,
        guide.text: text_html(number, session),
        guide.do: gr.update(value=STEPS[number].button),
        guide.next: gr.update(interactive=number < len(STEPS) - 1),
    }
