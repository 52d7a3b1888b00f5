"""What the page says of a growth, in plain words: findings, tiles, the card of a unit, the price of a choice."""

from collections.abc import Mapping
from html import escape

from components.compare_panel import ORIGINAL, branch_of
from components.glossary import term
from components.session import Measured
from components.theme import note_html, status_html, tile_html, tiles_html
from razor.edit_set import describe_changes
from razor.gates import lost
from razor.growth import Growth
from razor.metrics import Evaluation, Measure
from razor.scoring import UnitScore, threshold
from razor.telling import change, counted_points, names, won_text
from razor.trust import AloneEffect
from razor.units import Unit
from razor.wording import capital, draws, judge_of, tested, wording

NBSP = "\u00a0"
OVERSHOT = -0.25  # association below which the concept is said to be pushed further than forgetting needs


# Estimates -----------------------------------------------------------------------------------------------------------


def estimate_text(before: Evaluation, after: Evaluation) -> str:
    """What a choice did: "forget 12.0 % -> 4.0 %, retain -0.3, nearest neighbour dog -1.1"."""
    forget = f"forget {before.forget_accuracy.value:.1%} \u2192 {after.forget_accuracy.value:.1%}".replace("%", " %")
    parts = [forget, f"retain {signed(change(before, after, 'retain_accuracy'))}"]
    if worst := _worst_neighbour(before, after):
        parts.append(f"nearest neighbour {worst[0]} {signed(100 * worst[1].value)}")
    return ", ".join(parts)


def estimate_evidence(before: Evaluation, after: Evaluation) -> str:
    """The 95 % intervals behind it, each with its n."""
    was, now = before.forget_accuracy, after.forget_accuracy
    parts = [f"forget {_between(was)} \u2192 {_between(now)}, n{NBSP}={NBSP}{now.n:,}"]
    moved = [("retain", lost(after.retain_accuracy, before.retain_accuracy))]
    if worst := _worst_neighbour(before, after):
        moved.append(worst)
    return "; ".join([*parts, *(f"{name}{NBSP}{_points(change)}" for name, change in moved)])


def _worst_neighbour(before: Evaluation, after: Evaluation) -> tuple[str, Measure] | None:
    """The neighbour that lost most, and the change of its answers; None where the task has none."""
    shifts = {name: lost(m, before.by_neighbor[name]) for name, m in after.by_neighbor.items()}
    return min(shifts.items(), key=lambda found: found[1].value, default=None)


def _between(share: Measure) -> str:
    """The interval of a share, which no line ends within."""
    return f"{100 * share.low:.1f} to {100 * share.high:.1f} %".replace(" ", NBSP)


def _points(change: Measure) -> str:
    """The interval of a change in points, with its n."""
    return counted_points(change).replace("-", "\u2212").replace(" ", NBSP).replace(f",{NBSP}", ", ")


def signed(points: float) -> str:
    """Points with their sign; a change too small to print is 0."""
    return "0" if abs(points) < 0.05 else f"{points:+.1f}".replace("-", "\u2212")


def estimate_html(
    growth: Growth,
    before: Measured | None,
    after: Evaluation | None,
    look: Evaluation | None = None,
) -> str:
    """The line under the map: what the last change by hand did, or that it is being estimated.

    Args:
        before: the edit shown before; where it was of another state, the change is against the state as it was left.
        look: a first look at some of the pictures, shown while `after` is None.
    """
    at, left, search = growth.history.position, growth.history.state, wording(growth).search
    if before is None or before.state != at.state:
        before = Measured(at.state, left.edit_set, left.evaluation)
    done = describe_changes(before.edit_set, at.edit_set) or "The edit as it stands"
    if after is None and look is not None:
        forget, retain = look.forget_accuracy, look.retain_accuracy
        seen = f"forget {forget.value:.0%}, retain {retain.value:.1%}".replace("%", " %")
        known = f"forget {_between(forget)}, n = {forget.n:,}; retain {_between(retain)}, n = {retain.n:,}"
        said = status_html(f"{capital(done)}: at a first look {seen}; estimating on all {search}", "busy")
        return said + note_html(f"95 % intervals: {known}.")
    if after is None:
        return status_html(f"{capital(done)}: estimating on the {search}", "busy")
    said = f"{capital(done)}: {estimate_text(before.evaluation, after)}, against the edit before."
    known = f"95 % intervals, {search}: {estimate_evidence(before.evaluation, after)}."
    return status_html(said + overshoot(after, growth.adapter.family)) + note_html(known)


def overshoot(now: Evaluation, family: str = "clip") -> str:
    """A caution where the concept was pushed further away than pictures of other things ever were."""
    if family != "clip" or now.association is None or not now.association < OVERSHOT:
        return ""
    return " The concept now lies further from its pictures than from unrelated ones: more than forgetting needs."


# Tiles ---------------------------------------------------------------------------------------------------------------


def tiles_of(growth: Growth, measured: tuple[Evaluation, Evaluation] | None) -> str:
    """Metric tiles: measured on the test split once it has been, and saying so."""
    now = growth.known_evaluation(growth.edit_set)
    if measured is None and now is None:
        return ""
    before, after = measured or (growth.base, now)
    total = sum(p.numel() for p in growth.adapter.model.parameters())
    edited = growth.patch.parameters_edited
    size = f"{edited:,} of {total / 1e6:.1f} M; {sum(growth.seconds.values()):.1f} s"
    cost = tile_html("Parameters edited", f"{edited / total:.1%}", "", size, "edited")
    split = tested(growth.adapter, growth.task) if measured else None
    note = split.note if split else wording(growth).note
    return tiles_html([*_tiles(growth, before, after, split and split.what), cost]) + note_html(note)


def side_tiles(growth: Growth, sides: tuple[str, str]) -> str:
    """Metric tiles of the two sides of a comparison, on the search split, where every branch has been measured."""
    measured = []
    for side in sides:
        branch = branch_of(side)
        now = growth.base if side == ORIGINAL else growth.now
        measured.append(growth.history.states[growth.history.branches[branch]].evaluation if branch else now)
    return tiles_html(_tiles(growth, *measured, None))


def _tiles(growth: Growth, before: Evaluation, after: Evaluation, split: str | None) -> list[str]:
    """Tiles of two evaluations on a named split; None for the search split."""
    if split and judge_of(growth):
        return _drawn_tiles(before, after, split)
    words = wording(growth)
    split = split or words.search
    answers = split if draws(growth) else f"answers about {split}"
    tiles = [
        _tile(words.forget, before.forget_accuracy, after.forget_accuracy, "forget", split),
        _tile(words.retain, before.retain_accuracy, after.retain_accuracy, "retain", answers),
    ]
    if before.neighbor_accuracy and after.neighbor_accuracy:
        tiles.append(_tile("Nearest neighbours", before.neighbor_accuracy, after.neighbor_accuracy, "neighbour", split))
    if after.retrieval_stability:
        tiles.append(_tile("Retrieval stability", None, after.retrieval_stability, "original", split))
    if after.prediction_stability:
        tiles.append(_tile("Prediction stability", None, after.prediction_stability, "original", split))
    if before.affirmed and after.affirmed:
        tiles.append(_tile("Yes said to its name", before.affirmed, after.affirmed, "forget", split))
    if before.granted and after.granted:
        tiles.append(_tile("Yes said to others' own names", before.granted, after.granted, "retain", split))
    if after.neutral_kl:
        tiles.append(_drift_tile(after.neutral_kl))
    return tiles


def _drift_tile(drift: Measure) -> str:
    """How far answers to neutral questions moved, which is no share."""
    interval = f"KL of the next word\n95 % interval {drift.low:.3f} to {drift.high:.3f}\nn = {drift.n:,}"
    return tile_html("Drift on neutral questions", f"{drift.value:.3f} nats", "", interval, "original")


def _drawn_tiles(before: Evaluation, after: Evaluation, split: str) -> list[str]:
    """UnlearnCanvas's three, and the neighbours, of drawn pictures; what the task cannot say is left out."""
    shown = [
        ("Unlearning accuracy (UA)", "unlearning_accuracy", "forget", split),
        ("In-domain retain accuracy (IRA)", "in_domain_retain_accuracy", "retain", split),
        ("Cross-domain retain accuracy (CRA)", "cross_domain_retain_accuracy", "retain", f"answers about {split}"),
        ("Nearest neighbours", "neighbor_accuracy", "neighbour", split),
    ]
    measures = [(label, getattr(before, name), getattr(after, name), kind, what) for label, name, kind, what in shown]
    return [_tile(label, was, now, kind, what) for label, was, now, kind, what in measures if was and now]


def _tile(label: str, before: Measure | None, after: Measure, kind: str, split: str) -> str:
    if after.n == 0:
        return tile_html(label, "not measured", "", f"none of the {split} can be counted", kind)
    was = f"{before.value:.1%}" if before else ""
    small = [f"95{NBSP}%{NBSP}interval {_between(after)}", *([f"before {_between(before)}"] if before else [])]
    return tile_html(label, f"{after.value:.1%}", was, "\n".join([*small, f"n = {after.n:,} {split}"]), kind)


# The unit looked at --------------------------------------------------------------------------------------------------


def no_unit_html() -> str:
    """The card while no unit is looked at."""
    return (
        '<section class="unit-card"><h3>No unit chosen</h3>'
        "<p>Click a cell of the map to see why it scores as it does.</p></section>"
    )


def unit_html(growth: Growth, name: str, spread=None, alone: Mapping | None = None) -> str:
    """What is known of one unit: what it is, its scores, its state and what editing it alone does."""
    unit = growth.every[name]
    scored = {s.unit.name: s for s in growth.shown_scores()}
    s = scored.get(name)
    where = f"{capital(unit.tower)} tower, layer {unit.layer}, " + (
        _head_name(unit) if unit.kind == "head" else {"mlp": "MLP", "layer": "the whole layer"}[unit.kind]
    )
    total = sum(p.numel() for p in growth.adapter.model.parameters())
    facts = [("", "parameters", f"{growth.sizes[name]:,} ({growth.sizes[name] / total:.1%})", "")]
    if s is not None:
        facts = [
            ("phi", "phi", f"{s.phi:.3g}{_interval(name, growth, spread)}", ""),
            ("pressure", "pressure", f"{s.pressure:.3g}", ""),
            ("separation", "separation", f"{s.separation:.3f}", ""),
            ("ratio", "forget / retain", f"{s.ratio:.3g}", ""),
            ("rank", "rank", f"{s.rank} of {len(scored)}", ""),
            *facts,
        ]
    facts += _alone(alone[name]) if alone and name in alone else []
    rows = "".join(
        f"<div><dt>{term(key, label) if key else label}</dt><dd>{escape(text)}"
        f"{f'<small>{escape(small)}</small>' if small else ''}</dd></div>"
        for key, label, text, small in facts
    )
    return (
        f'<section class="unit-card"><h3>{escape(name)}</h3><p>{escape(where)}</p><dl>{rows}</dl>'
        f"<p>{escape(unit_story(growth, name, s))}</p></section>"
    )


def _alone(effect: AloneEffect) -> list[tuple[str, str, str, str]]:
    """What editing the unit alone by its trial step does, by how likely the answers are."""
    gained = lost(effect.after.forget_probability, effect.before.forget_probability)
    cost = lost(effect.before.retain_probability, effect.after.retain_probability)
    return [
        ("trial step", "alone, forget", f"{signed(100 * gained.value)} points", _points(gained)),
        ("", "alone, cost", f"{100 * effect.cost:.1f} points", _points(cost)),
    ]


def _head_name(unit: Unit) -> str:
    kind, number = unit.name.split(".")[-2:]
    return f"key-value head {number}, shared by several heads" if kind == "kv" else f"head {number}"


def unit_story(growth: Growth, name: str, s: UnitScore | None) -> str:
    """Why the unit is in or out, in one or two sentences."""
    edit_set = growth.edit_set
    if name in edit_set.banned:
        return "Banned by you: growth passes it over."
    if name in edit_set.off:
        return "Switched off by you. Its change is kept: put it in and every bit is back."
    if name not in edit_set.members:
        return _outside(growth, s)
    locked = " Locked: it stays in." if name in edit_set.locked else ""
    for done in growth.rounds:
        if done.accepted and (found := next((a for a in done.added if a.unit.name == name), None)):
            joined = f"Joined in round {done.index} with phi {found.phi:.3g}, rank {found.rank}."
            return f"{joined} In that round: {won_text(growth, done)}{locked}"
    return f"Put in by you, with one trial step of a tenth of its weights until a round moves it.{locked}"


def _outside(growth: Growth, s: UnitScore | None) -> str:
    if s is None:
        return "Not scored under these settings; allow its kind under Growth settings and score again."
    if s.pressure == 0:
        return "No forget gradient reaches it, so an edit here would do nothing."
    open_units = growth.candidates(growth.shown_scores())
    if s.unit.name not in {o.unit.name for o in open_units}:
        return "Not open to growth under these settings; you can still put it in by hand."
    level = threshold(open_units, growth.config.tau)
    return "Above tau: growth may take it." if s.phi > level else "Below tau: growth leaves it alone."


def _interval(name: str, growth: Growth, spread) -> str:
    found = next((x for x in spread or () if x.unit.name == name), None)
    if found is None:
        return ""
    alpha = growth.config.alpha
    return f" [{found.low(alpha):.2g}, {found.high(alpha):.2g}]"


# Locks and bans ------------------------------------------------------------------------------------------------------


def constraints_html(growth: Growth) -> str:
    """How many locks and bans hold, and what they turn away, as far as that is known without running the model."""
    edit_set = growth.edit_set
    if not edit_set.locked and not edit_set.banned:
        return ""
    counts = [(edit_set.locked, "locked"), (edit_set.banned, "banned")]
    held = " and ".join(f"{len(units)} {word}" for units, word in counts if units)
    passed = growth.passed_over() if growth.scored else []
    turned = f" Without bans the next round would take {names([s.unit.name for s in passed])}." if passed else ""
    return f'<p class="price">{escape(f"{capital(held)}.{turned}")}</p>'


def price_text(growth: Growth, free: str, held: str) -> str:
    """What locks and bans cost: the end of the branch around them beside that of the branch without."""
    ends = [growth.history.states[growth.history.branches[name]] for name in (free, held)]
    before, after = (state.evaluation for state in ends)
    units = [len(state.edit_set.members) for state in ends]
    seconds = [sum(s.round.seconds for s in growth.history.path(state.number) if s.round) for state in ends]
    met = "meets the target" if growth.goal.reached(after) else "does not meet the target"
    return (
        f"Around your locks and bans growth {met}: {estimate_text(before, after)}; {units[1]} units instead of "
        f"{units[0]}, {seconds[1]:.1f} s instead of {seconds[0]:.1f} s. The two plans are branches {held} and {free}. "
        f"95 % intervals: {estimate_evidence(before, after)}."
    )
