"""python -m razor bench rivals: RAZOR, its ablations and every rival on the same targets, and copies in few bits.

Reproduces the shape of the paper's tables on the bundled models. A slice of the targets runs unless others are named;
results are written as they come, so that an interrupted run goes on where it stopped.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from razor import baselines, models
from razor.baselines import ABLATIONS, NAMES, Budget
from razor.bench.measure import called, chosen, code_hash, due, maker, mixed, opened, signed, wanted
from razor.gold import Between, between, never_saw
from razor.metrics import Evaluation
from razor.minicanvas import tasks
from razor.minicanvas.dataset import parse_target
from razor.robustness import Case, attack
from razor.run import unlearn

OUT = models.ASSETS / "results" / "rivals.json"
MODELS = {"clip": "mini-clip", "diffusion": "mini-sd", "vlm": "mini-vlm"}
METHODS: Mapping[str, tuple[str, ...]] = {
    **{family: ("razor", *NAMES[family]) for family in MODELS},
    "ablation": tuple(ABLATIONS),  # on mini-clip
}
PARTS = (*METHODS, "bits", "speed")
SLICE = ("object:cat", "object:boat", "style:neon", "style:sketch", "identity:mara-voss", "identity:kofi-brandt")
BUDGET = Budget(steps=48, checks=6)
SEED = 0
HEADS = ("method", "targets", "still there", "worst", "other answers lost", "worst", "neighbours lost", "passes",
         "s to tune its setting", "weights changed", "target met")  # fmt: skip
# Published figures, on other models and data: arXiv 2603.14819, tables 3 (CIFAR-10), 4 (UnlearnCanvas), 6 and 7.
PUBLISHED = {
    "clip": {
        "forgetting, retention, stability": {
            "ssd": (52.0, 25.0, 97.5),
            "salun": (97.0, 83.0, 84.5),
            "slug": (67.5, 87.5, 96.5),
            "razor": (52.5, 89.0, 100.0),
        }
    },
    "diffusion": {
        "style UA, IRA, CRA": {
            "esd-x": (99.62, 89.97, 98.86),
            "salun": (90.36, 92.33, 97.02),
            "slug": (88.20, 85.59, 91.00),
            "razor": (99.40, 98.97, 100.0),
        },
        "object UA, IRA, CRA": {
            "esd-x": (97.44, 68.47, 82.37),
            "salun": (91.06, 98.35, 99.59),
            "slug": (85.44, 79.50, 91.00),
            "razor": (98.80, 98.35, 100.0),
        },
    },
    "vlm": {"forget accuracy before and after, ten people": {"razor": (97.25, 2.2)}},
    "ablation": {
        "forgetting, retention, stability": {
            "no-retain": (52.72, 82.0, 99.0),
            "no-mismatch": (53.25, 88.0, 100.0),
            "no-forget": (96.0, 86.0, 99.0),
            "all-layers": (51.0, 78.0, 96.0),
            "no-growth": (53.0, 88.82, 100.0),
            "razor": (52.5, 89.0, 100.0),
        }
    },
}


def main(targets: str = "", out: Path | None = None, parts: str = ",".join(PARTS)) -> dict:
    """Run the parts asked for and return all results, old and new.

    Args:
        targets: comma-separated, or "all"; default SLICE.
    """
    part_names, (results, save) = chosen(parts, PARTS), opened(out or OUT, called("rivals", targets, parts))
    names = [str(target) for target in wanted(targets)] if targets else SLICE
    for part in part_names:
        run_speed(results, names, save) if part == "speed" else run_part(results, part, names, save)
    save()
    print(report(results))
    return results


def run_part(results: dict, part: str, names: Sequence[str], save: Callable[[], None]) -> None:
    """Every method of a part on every target; what this code made already is kept, unless its gold model changed."""
    adapter = models.load(MODELS.get(part, "mini-clip"))
    rows = results.setdefault(part, {})
    family = part if part in MODELS else "clip"
    code = code_hash(family, "bench.rivals", "baselines.compare", "robustness")
    by = maker(results, {"model": adapter.fingerprint(), "budget": vars(BUDGET), "seed": SEED, "code": code})
    for name in names:
        task = tasks.task(parse_target(name))
        row, methods = rows.setdefault(name, {}), ("razor",) if part == "bits" else METHODS[part]
        never = never_saw(adapter, task) if part != "bits" else None
        mark = never and never.fingerprint()
        missing = [m for m in methods if due(row, m, by) or row[m].get("gold_model") != mark]
        gold = between(adapter, task) if never and missing else None
        for method in missing:
            result = baselines.run(method, adapter, task, BUDGET, seed=SEED)
            made = _bits(adapter, task, result) if part == "bits" else _row(result, gold)
            row[method] = signed(by, results["command"]) | made | ({"gold_model": mark} if mark else {})
            save()
            print(f"{part:10} {name:24} {method:18} {_line(row[method])}", flush=True)


def run_speed(results: dict, names: Sequence[str], save: Callable[[], None]) -> None:
    """RAZOR and SLUG from the examples to a chosen edit, one after the other on mini-clip.

    RAZOR at its default settings; SLUG with all of its search, which is how it finds its layer and length. Either
    measures on the search split as it goes, which counts; the test split does not.
    """
    adapter, rows = models.load("mini-clip"), results.setdefault("speed", {})
    by = maker(results, {"model": adapter.fingerprint(), "seed": SEED, "code": code_hash("clip", "baselines.compare")})
    for name in names:
        if not due(rows, name, by):
            continue
        task = replace(tasks.task(parse_target(name)))  # a copy, for which nothing is known or shared yet
        ours, theirs = unlearn(adapter, task), baselines.run("slug", adapter, task, BUDGET)
        seconds = {
            "razor": sum(ours.seconds[phase] for phase in ("encode", "score", "rounds")),
            "slug": sum(theirs.seconds[phase] for phase in ("encode", "tuning")),
        }
        met = {"razor": ours.reached, "slug": theirs.reached}
        rows[name] = signed(by, results["command"]) | {
            "seconds": {k: round(v, 2) for k, v in seconds.items()},
            "met": met,
        }
        save()
        print(f"speed      {name:24} {_speed_line(rows[name])}", flush=True)


def _speed_line(row: dict) -> str:
    seconds = row["seconds"]
    return (
        f"RAZOR {seconds['razor']:.1f} s, SLUG {seconds['slug']:.1f} s, ratio {seconds['razor'] / seconds['slug']:.2f}"
    )


def _row(result: baselines.Result, gold: Between | None) -> dict:
    chosen = result.chosen
    return {
        "before": result.before.to_json(),
        "after": result.after.to_json() if result.after else None,
        "reached": result.reached,
        "setting": dict(chosen.setting) if chosen else None,
        "settings": len(result.trials),
        "passes": chosen.passes if chosen else result.passes,
        "seconds": round(chosen.seconds if chosen else result.seconds["tuning"], 2),
        "all_seconds": round(result.seconds["tuning"], 2),
        "parameters_edited": result.parameters_edited,
        "gold": gold.distance(result.patch).to_json() if gold and result.after else None,
    }


def _bits(adapter, task, result: baselines.Result) -> dict:
    """The edit and its copies in few bits, each beside the unedited model's."""
    case = Case(adapter, task, result.patch)
    found = list(attack("quantise", case))
    return {
        "before": case.before.to_json(),
        "after": case.edited.to_json(),
        "copies": [f.to_json() for f in found],
    }


def _line(row: dict) -> str:
    if row["after"] is None:
        return "diverged in every setting"
    before, after = (Evaluation.from_json(row[side]) for side in ("before", "after"))
    return (
        f"still there {after.forget_accuracy.value:.1%}, other answers {before.retain_accuracy.value:.1%} -> "
        f"{after.retain_accuracy.value:.1%}"
    )


# ---------------------------------------------------------------- the report


def summary(rows: Mapping[str, Mapping[str, dict]]) -> dict[str, dict[str, float]]:
    """Method -> means over its targets, in points; a method that diverged on a target counts as having done nothing."""
    found = {}
    for method in dict.fromkeys(name for row in rows.values() for name in row):
        mine = [row[method] for row in rows.values() if method in row]
        still = [100 * (r["after"] or r["before"])["forget_accuracy"]["value"] for r in mine]
        lost = [_lost(r, "retain_accuracy") for r in mine]
        near = [_lost(r, "neighbor_accuracy") for r in mine if r["before"]["neighbor_accuracy"]]
        found[method] = {
            "targets": len(mine),
            "still there": statistics.fmean(still),
            "worst still there": max(still),
            "lost": statistics.fmean(lost),
            "worst lost": max(lost),
            "neighbours lost": statistics.fmean(near) if near else math.nan,
            "passes": statistics.fmean(r["passes"] for r in mine),
            "seconds": statistics.fmean(r["seconds"] for r in mine),
            "parameters": statistics.fmean(r["parameters_edited"] for r in mine),
            "met": sum(r["reached"] for r in mine),
            "diverged": sum(r["after"] is None for r in mine),
        }
    return found


def _counted(points: float) -> str:
    return "none counted" if math.isnan(points) else f"{points:.2f}"


def _lost(row: dict, key: str) -> float:
    return 100 * (row["before"][key]["value"] - (row["after"] or row["before"])[key]["value"])


def report(results: dict) -> str:
    """The results as markdown, published figures below each table."""
    lines: list[str] = []
    for part in METHODS:
        if rows := results.get(part):
            lines += ["", f"**{part}** ({'mini-clip' if part == 'ablation' else MODELS[part]})", "", *_table(rows)]
            lines += ["", *_published(part), *_gold_table(rows), *_mixed(rows)]
    if rows := results.get("bits"):
        lines += ["", "**copies in few bits** (mini-clip)", "", *_bits_table(rows), *_mixed(rows)]
    if rows := results.get("speed"):
        lines += ["", "**RAZOR and SLUG from examples to edit** (mini-clip)", "", *_speed_table(rows)]
        lines += mixed(rows.values())
    return "\n".join(lines).strip()


def _speed_table(rows: Mapping[str, dict]) -> list[str]:
    lines = ["| target | RAZOR, s | SLUG, s | ratio (goal <= 1) | target met |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        razor, slug = (row["seconds"][key] for key in ("razor", "slug"))
        met = ", ".join(key for key, reached in row["met"].items() if reached) or "by neither"
        lines.append(f"| {name} | {razor:.1f} | {slug:.1f} | {razor / slug:.2f} | {met} |")
    ratio = statistics.geometric_mean(row["seconds"]["razor"] / row["seconds"]["slug"] for row in rows.values())
    return [*lines, f"| geometric mean | | | {ratio:.2f} | |"]


def _table(rows: Mapping[str, Mapping[str, dict]]) -> list[str]:
    lines = [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
    for method, m in summary(rows).items():
        lines.append(
            f"| {method} | {m['targets']} | {m['still there']:.1f} | {m['worst still there']:.1f} | {m['lost']:.2f} | "
            f"{m['worst lost']:.2f} | {_counted(m['neighbours lost'])} | {m['passes']:.0f} | {m['seconds']:.1f} | "
            f"{m['parameters']:,.0f} | {m['met']}{f', {broken} diverged' if (broken := m['diverged']) else ''} |"
        )
    return lines


def _mixed(rows: Mapping[str, Mapping[str, dict]]) -> list[str]:
    return mixed(made for row in rows.values() for made in row.values())


def _gold_table(rows: Mapping[str, Mapping[str, dict]]) -> list[str]:
    """Where the methods lie between the original (0) and a model trained without the target (100)."""
    golden = {name: row for name, row in rows.items() if any(r.get("gold") for r in row.values())}
    if not golden:
        return []
    lines = [
        "",
        f"Beside models trained from scratch without {', '.join(golden)}: how far towards their answers, in %; the "
        "divergence left, in bits, about the target's pictures and about others (the original's in brackets).",
        "",
        "| method | targets | way there | left about the target | about others |",
        "|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(name for row in golden.values() for name in row):
        mine = [row[method]["gold"] for row in golden.values() if row.get(method, {}).get("gold")]
        if not mine:
            continue
        mean = lambda key, side, mine=mine: statistics.fmean(g[key][side]["value"] for g in mine)  # noqa: E731
        way = 100 * statistics.fmean(g["place"]["forget"] or 0.0 for g in mine)
        sides = [f"{mean('divergence', s):.3f} ({mean('divergence_before', s):.3f})" for s in ("forget", "retain")]
        lines.append(f"| {method} | {len(mine)} | {way:.0f} | {' | '.join(sides)} |")
    return lines


def _published(part: str) -> list[str]:
    told = [
        f"{what}: " + "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in figures.items())
        for what, figures in PUBLISHED[part].items()
    ]
    return [f"Published, on other models (arXiv 2603.14819): {'. '.join(told)}."]


def _bits_table(rows: Mapping[str, Mapping[str, dict]]) -> list[str]:
    lines = ["| copy | targets | still there | worst | other answers right |", "|---|---|---|---|---|"]
    mine = [row["razor"] for row in rows.values()]
    kinds: dict[str, list[tuple[float, float]]] = {"full precision": []}
    for row in mine:
        after = row["after"]
        kinds["full precision"].append((after["forget_accuracy"]["value"], after["retain_accuracy"]["value"]))
        for copy in row["copies"]:
            kinds.setdefault(copy["setting"], []).append((copy["attacked"]["value"], copy["retain"]["value"]))
    for name, values in kinds.items():
        still, right = ([100 * pair[i] for pair in values] for i in range(2))
        lines.append(
            f"| {name} | {len(values)} | {statistics.fmean(still):.1f} | {max(still):.1f} | "
            f"{statistics.fmean(right):.2f} |"
        )
    return lines
