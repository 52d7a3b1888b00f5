"""python -m razor bench readme: writes the README's tables from assets/results, between their markers.

A table stands between `<!-- table: NAME -->` and `<!-- end: NAME -->`; what is written around it stays. Published
figures stand in a column or row of their own, as theirs.
"""

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from razor import models
from razor.bench import clip, diffusion, rivals, vlm
from razor.bench.means import losses, ratios, shares
from razor.bench.measure import mixed
from razor.errors import InputError
from razor.minicanvas.dataset import AXES

README = Path(__file__).parents[2] / "README.md"
RESULTS = models.ASSETS / "results"
PAPER = "arXiv 2603.14819"
NOTHING = "–"
THEIRS = {**dict.fromkeys(("clip", "ablation"), "forgotten, kept, stable"), "vlm": "before, after"}  # of PUBLISHED
MISSING = "not measured"

Rows = Mapping[str, Mapping]


def main(readme: Path = README, results: Path = RESULTS) -> None:
    """Write the tables into the README.

    Raises:
        InputError: a marker is missing or names no table, or results cannot be read.
    """
    text = readme.read_text("utf-8")
    written = filled(text, results)
    readme.write_text(written, "utf-8")
    print(f"{readme}: {'its tables were up to date' if written == text else 'its tables were written'}.")


def filled(text: str, results: Path = RESULTS) -> str:
    """The README's text with every table as the results have it."""
    named = re.findall(r"<!-- table: (\S+) -->", text)
    if unknown := sorted(set(named) - set(TABLES)):
        raise InputError(f"The README asks for a table {unknown[0]!r}; there are {', '.join(TABLES)}.")
    if missing := [name for name in TABLES if name not in named]:
        raise InputError(f"The README has no place for the table {missing[0]!r}; put <!-- table: {missing[0]} --> in.")
    for name in named:
        begin, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
        before, _, rest = text.partition(begin)
        if end not in rest:
            raise InputError(f"The README's table {name!r} has no {end} below it.")
        family, table = TABLES[name]
        lines = table(_read(results / f"{family}.json"))
        text = "\n".join([before + begin, *lines, end + rest.partition(end)[2]])
    return text


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no results ({error}); run the bench that writes it.") from error


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows)]


def _kinds(rows: Rows) -> dict[str, list[Mapping]]:
    """Axis -> its rows, those of a kind together."""
    kinds = {axis: [row for name, row in rows.items() if name.startswith(axis + ":")] for axis in AXES}
    return {axis: mine for axis, mine in kinds.items() if mine}


def _side(rows: Sequence[Mapping], key: str, when: str = "after") -> list[Mapping]:
    """One measure of each row; where a method diverged, the unedited model's."""
    found = [(row[when] or row["before"])[key] for row in rows]
    return [measure for measure in found if measure and measure["n"]]


def _lost(rows: Sequence[Mapping], key: str, digits: int = 2) -> str:
    before, after = _side(rows, key, "before"), _side(rows, key)
    return losses(before, after).text(digits) if before else NOTHING


def _worst_lost(rows: Sequence[Mapping]) -> str:
    sides = zip(_side(rows, "retain_accuracy", "before"), _side(rows, "retain_accuracy"), strict=True)
    return f"{max(100 * (before['value'] - after['value']) for before, after in sides):.2f}"


def _highest(found: Sequence[Mapping]) -> str:
    return f"{100 * max(measure['value'] for measure in found):.1f}"


def _mean(rows: Sequence[Mapping], key: str, form: str) -> str:
    return format(statistics.fmean(row[key] for row in rows), form)


# ---------------------------------------------------------------- mini-clip


def _clip(results: Mapping) -> list[str]:
    heads = ("kind (targets)", "answers about them", "forget before", "forget after", "worst", "chance", "retain drop",
             "neighbour drop", "retrieval stability", "s per run", "parameters edited")  # fmt: skip
    lines = []
    for axis, rows in _kinds(results["targets"]).items():
        still = shares(_side(rows, "forget_accuracy"))
        lines.append([
            f"{axis} ({len(rows)})",
            f"{still.answers:,}",
            shares(_side(rows, "forget_accuracy", "before")).text(),
            still.text(),
            _highest(_side(rows, "forget_accuracy")),
            f"{100 * rows[0]['chance']:.1f}",
            _lost(rows, "retain_accuracy"),
            _lost(rows, "neighbor_accuracy"),
            ratios(_side(rows, "retrieval_stability")).text(),
            _mean(rows, "seconds", ".1f"),
            _mean(rows, "parameters_edited", ",.0f"),
        ])  # fmt: skip
    goal = clip.GOALS
    lines.append(["goal", "", "", goal["forget accuracy"], "", "", goal["retain drop"], goal["neighbour drop"],
                  goal["retrieval stability"], "", ""])  # fmt: skip
    return _table(heads, lines)


def _clip_size(results: Mapping) -> list[str]:
    heads = ("model", "units", "on", "encode", "score", "one round", "peak memory")
    lines = [
        [
            found["model"].removesuffix(", random weights"),
            str(found["units"]),
            found["device"],
            *(f"{found[f'{phase}_seconds']:.1f} s" for phase in ("encode", "score", "round")),
            f"{found['peak_mib']:,.0f} MiB",
        ]
        for found in results["size"].values()
    ]
    return _table(heads, lines)


# ---------------------------------------------------------------- rivals


def _rivals(part: str) -> Callable[[Mapping], list[str]]:
    published = next(iter(rivals.PUBLISHED[part].values()))

    def lines(results: Mapping) -> list[str]:
        found, made = results.get(part, {}), []
        heads = ("method (targets)", "still there", "worst", "other answers lost", "worst", "neighbours lost", "passes",
                 "weights changed", "target met", "way to gold, %", f"published: {THEIRS[part]}")  # fmt: skip
        for method in rivals.METHODS[part]:
            rows = [row[method] for row in found.values() if method in row]
            theirs = ", ".join(f"{value:g}" for value in published.get(method, ())) or NOTHING
            made.append([f"{method} ({len(rows)})", *_rival(rows), theirs])
        return [*_table(heads, made), *_below(found)]

    return lines


def _rival(rows: Sequence[Mapping]) -> list[str]:
    if not rows:
        return [MISSING, *[NOTHING] * 8]
    still = _side(rows, "forget_accuracy")
    places = [row["gold"]["place"]["forget"] for row in rows if row.get("gold")]
    diverged = sum(row["after"] is None for row in rows)
    return [
        shares(still).text(),
        _highest(still),
        _lost(rows, "retain_accuracy"),
        _worst_lost(rows),
        _lost(rows, "neighbor_accuracy"),
        _mean(rows, "passes", ".0f"),
        _mean(rows, "parameters_edited", ",.0f"),
        f"{sum(row['reached'] for row in rows)} of {len(rows)}" + (f", {diverged} diverged" if diverged else ""),
        f"{100 * statistics.fmean(place or 0.0 for place in places):.0f}" if places else NOTHING,
    ]


def _drawn_rivals(results: Mapping) -> list[str]:
    """Of one kind of target, as the published figures are."""
    found, made = results.get("diffusion", {}), []
    published = rivals.PUBLISHED["diffusion"]["style UA, IRA, CRA"]
    heads = ("method (targets)", *diffusion.KEYS, "pictures of the target", "others", "neighbours lost", "passes",
             "weights changed", "target met", "published: UA, IRA, CRA")  # fmt: skip
    for method in rivals.METHODS["diffusion"]:
        rows = [row[method] for row in found.values() if method in row]
        theirs = ", ".join(f"{value:g}" for value in published.get(method, ())) or NOTHING
        made.append([f"{method} ({len(rows)})", *_drawn_rival(rows), theirs])
    return [*_table(heads, made), *_below(found)]


def _drawn_rival(rows: Sequence[Mapping]) -> list[str]:
    if not rows:
        return [MISSING, *[NOTHING] * 8]
    means = [shares(_side(rows, key)) for key in diffusion.KEYS.values()]
    others = shares(_side(rows, "retain_accuracy")).answers
    return [
        *(mean.text() for mean in means), str(means[0].answers), str(others), *_rival(rows)[4:8],
    ]  # fmt: skip


def _below(found: Mapping[str, Rows]) -> list[str]:
    """What a table of methods rests on."""
    rows = [row for methods in found.values() for row in methods.values()]
    targets = ", ".join(name.partition(":")[2] for name in found)
    return ["", f"Targets: {targets}. Last column: theirs, on other models and data ({PAPER}).", *mixed(rows)]


def _speed(results: Mapping) -> list[str]:
    rows, made = results["speed"], []
    for name, row in rows.items():
        ours, theirs = row["seconds"]["razor"], row["seconds"]["slug"]
        met = ", ".join(method for method, reached in row["met"].items() if reached) or "by neither"
        made.append([name, f"{ours:.1f}", f"{theirs:.1f}", f"{ours / theirs:.2f}", met])
    mean = statistics.geometric_mean(row["seconds"]["razor"] / row["seconds"]["slug"] for row in rows.values())
    made.append(["geometric mean", "", "", f"{mean:.2f}", ""])
    made.append([f"published, Stable Diffusion 1.5 ({PAPER})", "78", "39", "2.00", ""])
    return _table(("target", "RAZOR, s", "SLUG, s", "ratio (goal <= 1)", "target met"), made)


def _bits(results: Mapping) -> list[str]:
    rows = [row["razor"] for row in results["bits"].values()]
    kinds = {"full precision": [(row["after"]["forget_accuracy"], row["after"]["retain_accuracy"]) for row in rows]}
    for row in rows:
        for copy in row["copies"]:
            kinds.setdefault(copy["setting"], []).append((copy["attacked"], copy["retain"]))
    made = []
    for name, pairs in kinds.items():
        still, right = (shares(side) for side in zip(*pairs, strict=True))
        made.append([f"{name} ({len(pairs)})", still.text(), f"{still.answers}", right.text(2), f"{right.answers:,}"])
    return _table(("copy (targets)", "still there", "answers", "other answers right", "answers"), made)


# ---------------------------------------------------------------- mini-vlm


def _vlm(results: Mapping) -> list[str]:
    heads = ("kind (targets)", "answers about them", "named before", "named", "worst", "in other words",
             "yes to the name", "others lost", "worst", "neighbours lost", "neutral KL, nats", "s to forget",
             "parameters edited")  # fmt: skip
    made = []
    for axis, rows in _kinds(results["targets"]).items():
        named = shares(_side(rows, "forget_accuracy"))
        asked = {
            group: [shares([row["otherwise"][group][when] for row in rows]).text() for when in ("before", "after")]
            for group in vlm.OTHERWISE
        }
        made.append([
            f"{axis} ({len(rows)})",
            f"{named.answers:,}",
            shares(_side(rows, "forget_accuracy", "before")).text(),
            named.text(),
            _highest(_side(rows, "forget_accuracy")),
            *(f"{before.partition(' ')[0]}, then {after}" for before, after in asked.values()),
            _lost(rows, "retain_accuracy"),
            _worst_lost(rows),
            _lost(rows, "neighbor_accuracy"),
            f"{statistics.fmean(row['after']['neutral_kl']['value'] for row in rows):.4f}",
            _mean(rows, "seconds", ".0f"),
            _mean(rows, "parameters_edited", ",.0f"),
        ])  # fmt: skip
    made.append(["goal", "", "", vlm.GOALS["named"], *[""] * 3, vlm.GOALS["lost"], *[""] * 5])
    (before, after) = rivals.PUBLISHED["vlm"]["forget accuracy before and after, ten people"]["razor"]
    theirs = f"published, LLaVA-1.6-8B, ten people ({PAPER})"
    return _table(heads, [*made, [theirs, "", f"{before:g}", f"{after:g}", *[""] * 9]])


def _vlm_size(results: Mapping) -> list[str]:
    heads = ("model", "units", "on", "encode", "score", "one round", "peak memory")
    lines = []
    for found in results["size"].values():
        phases = [found[phase] for phase in ("encode", "score", "round")]
        peak = max(phase["peak_mib"] for phase in phases)
        seconds = [f"{phase['seconds']:.1f} s" for phase in phases]
        where = f"{found['device']}, {found['dtype']}"
        lines.append([found["model"], f"{found['units']:,}", where, *seconds, f"{peak:,.0f} MiB"])
    return _table(heads, lines)


# ---------------------------------------------------------------- mini-sd


def _diffusion(results: Mapping) -> list[str]:
    heads = ["from", "kind (targets)", "pictures of them"]
    for short in diffusion.KEYS:
        heads += [f"{short} before", short] + (["worst UA"] if short == "UA" else [])
    heads += ["distance", "s to forget", "parameters edited", "published: UA, IRA, CRA"]
    made, notes = [], []
    for part, said in (("targets", "pictures"), ("words", "the name alone")):
        notes += mixed(results[part].values(), f"Rows from {said}")
        for axis, rows in _kinds(results[part]).items():
            cells = [said, f"{axis} ({len(rows)})", f"{shares(_side(rows, diffusion.KEYS['UA'])).answers:,}"]
            for short, key in diffusion.KEYS.items():
                cells += [f"{100 * shares(_side(rows, key, 'before')).value:.1f}", shares(_side(rows, key)).text()]
                if short == "UA":
                    cells.append(f"{100 * min(measure['value'] for measure in _side(rows, key)):.1f}")
            cells += [_mean(rows, "distance", ".2f"), _mean(rows, "seconds", ".0f")]
            theirs = rivals.PUBLISHED["diffusion"].get(f"{axis} UA, IRA, CRA", {}).get("razor", ())
            made.append(
                [*cells, _mean(rows, "parameters_edited", ",.0f"), ", ".join(f"{v:g}" for v in theirs) or NOTHING]
            )
    goal = diffusion.GOALS
    made.append(["goal", "", "", "", goal["UA"], "", "", goal["IRA"], "", goal["CRA"], goal["distance"], "", "", ""])
    below = f"Last column: theirs, Stable Diffusion 3 on UnlearnCanvas ({PAPER})."
    return [*_table(heads, made), "", below, *notes]


TABLES: Mapping[str, tuple[str, Callable[[Mapping], list[str]]]] = {
    "clip": ("clip", _clip),
    "clip-size": ("clip", _clip_size),
    "rivals-clip": ("rivals", _rivals("clip")),
    "ablation": ("rivals", _rivals("ablation")),
    "bits": ("rivals", _bits),
    "speed": ("rivals", _speed),
    "rivals-diffusion": ("rivals", _drawn_rivals),
    "rivals-vlm": ("rivals", _rivals("vlm")),
    "vlm": ("vlm", _vlm),
    "vlm-size": ("vlm", _vlm_size),
    "diffusion": ("diffusion", _diffusion),
}
