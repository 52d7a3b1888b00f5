"""The guided run: one button, the whole way from pictures to a compared result, told as it happens."""

from collections.abc import Iterator
from dataclasses import dataclass

from components.measure_panel import MEASURE
from components.theme import status_html
from razor.growth import Growth
from razor.telling import instead
from razor.wording import draws, judge_of, read_by, unedited, wording

STEPS = ("Pictures", "Score", "Grow", "Check")


@dataclass(frozen=True)
class Told:
    """One moment of the story: a sentence, which step it belongs to, and whether the page should redraw."""

    step: int
    sentence: str
    redraw: bool = False


def told_text(told: Told) -> str:
    """The moment in words."""
    return f"{told.step + 1} of {len(STEPS)}  {STEPS[told.step]}: {told.sentence}"


def told_html(told: Told) -> str:
    """The moment as the status line shows it."""
    return status_html(told_text(told), "busy")


def grow_story(growth: Growth, stop) -> Iterator[Told]:
    """Score and grow to the target, one sentence per event."""
    task = growth.task
    yield Told(1, f"asking every head how hard it pushes on {task.concept} and whom it would hurt")
    growth.scores()
    yield Told(1, unedited(growth), redraw=True)
    yield Told(2, f"editing the best {growth.config.start_units} units in small steps")
    for done in growth.run(stop):
        yield Told(2, f"round {done.index}. {done.reason}", redraw=True)


def nothing_to_forget(growth: Growth) -> str:
    """Why there is nothing to do, or "" when there is: a model that only guesses has nothing to lose."""
    base = growth.base.forget_accuracy
    if growth.known:
        return ""
    if draws(growth):
        return (
            f"There is nothing to forget: asked for {growth.task.concept}, the unedited model draws it no more often "
            f"than by chance, {read_by(judge_of(growth))}. Try another concept, or other words for it."
        )
    return (
        f"There is nothing to forget: the unedited model {wording(growth).knows} {growth.task.concept} in "
        f"{base.value:.0%} of {base.n} pictures, and guessing gives {growth.task.chance:.0%}. "
        "Try another concept, other labels or a larger model."
    )


def drawn_ending(growth: Growth) -> str:
    """What growth came to in a model that draws, before its pictures are looked at."""
    now, base = growth.now, growth.base
    met = "The target is met" if growth.reached else "The target was not met within the retain budget"
    words = wording(growth)
    count = f", and {MEASURE} on the second counts more" if judge_of(growth) else ""
    kept = f"{now.retain_accuracy.value:.1%} of {now.retain_accuracy.n} {words.answers} are predicted as before"
    return (
        f"{met}: {growth.task.concept} is {words.seen} {now.forget_accuracy.value:.1%} of {now.forget_accuracy.n} "
        f"{words.search}, by definition {base.forget_accuracy.value:.0%} before; {kept}. {instead(growth.task)}No "
        f"picture is counted in that: the third screen shows some{count}."
    )
