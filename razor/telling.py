"""What a growth and its evidence say, in plain words: for the page, the report and the model card."""

from collections.abc import Sequence

from razor.examples import Task
from razor.gates import FAIL, OPEN, PASS, lost
from razor.gold import Distance
from razor.growth import Growth
from razor.history import GrowthRound
from razor.membership import Membership
from razor.metrics import Evaluation, Measure
from razor.robustness import Finding
from razor.scoring import UnitScore, ranked, threshold
from razor.wording import capital, draws, tested, wording

RUINED = 5.0  # points lost beyond the budget from which an outcome is no success
FEW = 20  # test pictures below which a result is called a first look
NAMED = 4  # units named in a sentence; more are counted
ATTACK_WORDS = {
    "quantise": "copies in 8 and 4 bits",
    "benign": "training on what was kept",
    "relearn": "teaching it again from few pictures",
    "wording": "other words for it",
    "prefix": "free words before its name",
    "probe": "a linear probe of picture features",
    "reworded": "other words for the question",
    "opened": "free words before its prompts",
    "transfer": "free words made on the unedited model",
}
SAID = {PASS: "Passed", FAIL: "Failed", OPEN: "Cannot say"}
HEADLINE = {
    PASS: "{} is suppressed under these tests.",
    FAIL: "{} does not stand every test.",
    OPEN: "These tests cannot say yet whether {} is suppressed.",
}


ALIKE = (
    "Alike is the linear CKA of each block's mean token with that model's: 1 is the same but for rotation and scale."
)


def names(units: Sequence[str]) -> str:
    """A few unit names, then how many more."""
    more = f" and {len(units) - NAMED} more" if len(units) > NAMED else ""
    return ", ".join(units[:NAMED]) + more


# Findings ------------------------------------------------------------------------------------------------------------


def map_finding(scores: Sequence[UnitScore], growth: Growth) -> str:
    """One sentence over the map: what is edited and what it cost, or which head presses hardest."""
    best = ranked(scores)[0]
    if not growth.edit_set.active:
        middle = sorted(s.phi for s in scores)[len(scores) // 2]
        times = f"{best.phi / middle:.0f} times" if middle > 0 else "far more than"
        open_units = growth.candidates(scores)
        above = sum(s.phi > threshold(open_units, growth.config.tau) for s in open_units)
        return (
            f"{best.unit.name} scores highest for forgetting {growth.task.concept}: its phi is {times} the median's. "
            f"{above} of the {len(open_units)} units open to growth stand above tau."
        )
    now = growth.known_evaluation(growth.edit_set)
    words = wording(growth)
    if now is None:
        return f"{_edited_text(growth)}. Estimating what that does."
    moved = lost(now.retain_accuracy, growth.base.retain_accuracy)
    return (
        f"{_edited_text(growth)}. Of the {words.search}, {growth.task.concept} is {words.seen} "
        f"{counted_share(now.forget_accuracy)}; {words.answers} {_moved(moved.value)} from the unedited model "
        f"({counted_points(moved)})."
    )


def _edited_text(growth: Growth) -> str:
    """Which units act, and why those where growth chose them."""
    members, edit_set, concept = growth.edit_set.members, growth.edit_set, growth.task.concept
    if edit_set.isolated:
        return f"Only {edit_set.isolated} acts for now ({len(members)} are in)"
    edited = f"{len(members)} units are edited: {names(members)}" if len(members) > 1 else f"{members[0]} is edited"
    if edit_set.strength != 1:
        edited += f", at {edit_set.strength:.0%} strength"
    by_hand = growth.by_hand or any(r.by_hand for r in growth.rounds)
    return edited if by_hand else f"{edited}, chosen for pushing on {concept} and little against the rest"


def timeline_finding(growth: Growth) -> str:
    """One sentence over the curves."""
    now, base, words = growth.known_evaluation(growth.edit_set), growth.base, wording(growth)
    if not growth.edit_set.active or now is None:
        return start_text(growth)
    cost = lost(base.retain_accuracy, now.retain_accuracy)
    kept = f"lose {100 * cost.value:.1f} points" if cost.value > 0.0005 else "lose nothing"
    many = f"{len(growth.edit_set.active)} units take" if len(growth.edit_set.active) > 1 else "1 unit takes"
    shares = f"from {100 * base.forget_accuracy.value:.0f} % to {counted_share(now.forget_accuracy)}"
    if draws(growth):
        shares += f" of the {words.search} it is predicted at"
    return (
        f"{many} {growth.task.concept} {shares}; {words.answers} {kept} ({counted_points(cost)}). "
        "Curves are on the search split."
    )


def start_text(growth: Growth) -> str:
    """What the unedited model knows."""
    concept, words = growth.task.concept, wording(growth)
    if draws(growth):
        return f"Before any edit {concept} counts as predicted at 100 % of the {words.search}, by definition."
    known = counted_share(growth.base.forget_accuracy, f" of the {words.search}")
    return f"{capital(concept)} is {words.seen} {known} before any edit."


def round_text(growth: Growth) -> str:
    """What the round shown did, in full."""
    if not growth.rounds:
        return start_text(growth)
    done = growth.rounds[-1]
    hand = f" By hand before it: {done.by_hand}." if done.by_hand else ""
    added = (
        ", ".join(f"{s.unit.name} (phi {s.phi:.2g}, rank {s.rank})" for s in done.added) or "the units put in by hand"
    )
    return f"Round {done.index} tried {added} in {len(done.trials)} steps, {done.seconds:.1f} s.{hand} {done.reason}"


def won_text(growth: Growth, done: GrowthRound) -> str:
    """What a round changed on the search split, with 95 % intervals."""
    words, was, now = wording(growth), done.before, done.after
    taken = lost(now.forget_accuracy, was.forget_accuracy)
    kept = lost(now.retain_accuracy, was.retain_accuracy)
    return (
        f"{words.forget.lower()} {_moved(taken.value)} ({counted_points(taken)}), "
        f"{words.retain.lower()} {_moved(kept.value)} ({counted_points(kept)})."
    )


def _moved(change: float) -> str:
    """A change of a share, in words."""
    return "did not change" if abs(change) < 0.0005 else f"changed by {100 * change:+.1f} points"


def counted_share(share: Measure, of: str = "") -> str:
    """A share, of what, with its interval and on how many cases it rests.

    >>> counted_share(Measure(0.0, n=96, low=0.0, high=0.038))
    '0 % (0 to 4 %, n = 96)'
    """
    return f"{100 * share.value:.0f} %{of} ({_between(share)}, n = {share.n:,})"


def counted_points(change: Measure) -> str:
    """The interval of a change in points, and on how many cases it rests.

    >>> counted_points(Measure(0.01, n=240, low=-0.002, high=0.03))
    '-0.2 to 3.0, n = 240'
    """
    return f"{100 * change.low:.1f} to {100 * change.high:.1f}, n = {change.n:,}"


def _between(share: Measure) -> str:
    return f"{100 * share.low:.0f} to {100 * share.high:.0f} %"


def change(before: Evaluation, after: Evaluation, name: str) -> float:
    """Points by which a share changed."""
    return 100 * (getattr(after, name).value - getattr(before, name).value)


# The outcome ---------------------------------------------------------------------------------------------------------


def instead(task: Task) -> str:
    """What a model that draws is to draw in the place of the concept, as a sentence with a space behind it."""
    asked = task.forget.gradient[0]
    return f'Asked for "{asked.caption}" it is now to draw "{asked.anchor}". ' if asked.anchor else ""


def ending(growth: Growth, before: Evaluation, after: Evaluation) -> str:
    """What to tell a stakeholder, in words that claim no more than was measured on the test pictures."""
    concept, forget, retain = capital(growth.task.concept), after.forget_accuracy, after.retain_accuracy
    words = tested(growth.adapter, growth.task)
    seen = (
        f"{words.seen} {forget.value:.1%} of {forget.n} new pictures (95 % interval {forget.low:.1%} to "
        f"{forget.high:.1%}; guessing gives {growth.task.chance:.1%}), before {before.forget_accuracy.value:.1%}."
    )
    if forget.value > max(growth.goal.target, growth.task.chance) + 0.02:
        advice = "Allow more rounds or a larger retain budget, then grow again."
        return f"{concept} is not suppressed yet: {seen} {advice}"
    cost = 100 * (before.retain_accuracy.value - retain.value)
    kept = "none were lost" if cost < 0.05 else f"{cost:.1f} in a hundred were lost"
    if cost > 100 * growth.config.retain_budget + RUINED:
        return f"{concept} is gone, and much else with it: {seen} Of {retain.n} answers about other pictures, {kept}."
    if forget.n < FEW:
        return f"{concept} looks suppressed, on only {forget.n} pictures: {seen} Add pictures for a firmer answer."
    return f"{concept} is suppressed under this test: {seen} Of {retain.n} answers about other pictures, {kept}."


# The verdict ---------------------------------------------------------------------------------------------------------


def gold_text(found: Distance, concept: str) -> str:
    """Where an edit lies between the original and a model that never saw the concept."""
    on, elsewhere, went = found.divergence, found.divergence_before, found.way.get("forget")
    way = f", {_share(went)} of the way from the original's {_bits(elsewhere['forget'])}" if went else ""
    return (
        f"A model trained from scratch without {concept} answers about its pictures in its own way; the edit's answers "
        f"diverge from those by {_bits(on['forget'])}{way} (n = {on['forget'].n}). About other pictures they diverge "
        f"by {_bits(on['retain'])}, the original's by {_bits(elsewhere['retain'])} (n = {on['retain'].n}). In brackets "
        "the 95 % intervals."
    )


def _bits(measure: Measure) -> str:
    return f"{measure.value:.3f} bits ({measure.low:.3f} to {measure.high:.3f})"


def _share(measure: Measure) -> str:
    return f"{100 * measure.value:.0f} % ({_between(measure)})"


def membership_text(found: Membership, concept: str) -> str:
    """Whether the edit gives away which pictures it was made from."""
    way = found.moved
    told = {
        True: f"The edit gives away which pictures of {concept} it was made from",
        False: f"The edit does not give away which pictures of {concept} it was made from, as far as so many can tell",
        None: f"Whether the edit gives away which pictures of {concept} it was made from cannot be said, as the "
        "unedited model tells them from the others already",
    }[found.told]
    never = f" In a model that never saw it, it is {_area(found.gold)}." if found.gold else ""
    return (
        f"{told}: by {found.by}, used ones are told from unseen ones with an area under the curve of "
        f"{_area(found.edited)}; 0.5 is a guess. In the unedited model it is {_area(found.original)}; the edit moved "
        f"it by {way.value:+.2f}, {way.low:+.2f} to {way.high:+.2f}.{never} Counted on {found.members} used and "
        f"{found.unseen} unseen pictures, with 95 % intervals."
    )


def _area(area: Measure) -> str:
    return f"{area.value:.2f} ({area.low:.2f} to {area.high:.2f})"


def beside_gold_text(findings: Sequence[Finding]) -> str:
    """Whether attacks get more out of the edit than out of a model that never saw the concept; "" without one.

    More means by more than the intervals: the edit's lies whole above the other's.
    """
    beside = [f for f in findings if f.gold]
    taught, others = ([f for f in beside if (f.attack == "relearn") is again] for again in (True, False))
    told = []
    if taught:
        told.append(f"Taught it again, the edit learns it {_more_than_gold(taught, 'faster', 'no faster')}.")
    if others:
        told.append(f"Under the other attacks, the edit gives away {_more_than_gold(others, 'more', 'no more')}.")
    return " ".join(told)


def _more_than_gold(findings: Sequence[Finding], more: str, no_more: str) -> str:
    """The comparison, with the finding that lies furthest above the model that never saw the concept."""
    # What was left before anybody taught it is not learnt.
    above = [
        f for f in findings
        if f.attacked.low > f.gold.high and (f.attack != "relearn" or f.attacked.low > f.edited.high)
    ]  # fmt: skip
    if not above:
        n = min(f.attacked.n for f in findings)
        return (
            f"{no_more} than a model that never saw it, within the intervals (of {len(findings)} tries, n = {n} each)"
        )
    worst = max(above, key=lambda f: f.attacked.value - f.gold.value)
    words = "" if worst.attack == "relearn" else f"{ATTACK_WORDS[worst.attack]}, "
    return (
        f"{more} than a model that never saw it in {len(above)} of {len(findings)} tries, most in {words}"
        f"{worst.setting}: {_share(worst.attacked)} against {_share(worst.gold)}, 95 % intervals in brackets, n = "
        f"{worst.attacked.n}"
    )


def worst_text(findings: Sequence[Finding]) -> str:
    """The most that each kind of attack got back, the worst first; the gates may ask for less."""
    most: dict[str, Finding] = {}
    for f in findings:
        if f.attack not in most or f.attacked.value > most[f.attack].attacked.value:
            most[f.attack] = f
    order = sorted(most.values(), key=lambda f: -f.attacked.value)
    told = [
        f"{_share(f.attacked)} by {ATTACK_WORDS[f.attack]} ({f.setting}, n = {f.attacked.n})"
        for f in order
        if f.attacked.value > 0
    ]
    if not told:
        most = max((f.attacked for f in findings), key=lambda attacked: attacked.high)
        return f"No attack tried here got anything back: {_share(most)}, n = {most.n}."
    return f"The most that attacks got back, with 95 % intervals: {'; '.join(told)}."
