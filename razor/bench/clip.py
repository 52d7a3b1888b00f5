"""python -m razor bench clip: forgetting on every bundled target, scoring against its floor, and a real-size model.

Results are written as they come, so that an interrupted run goes on where it stopped.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from razor import models
from razor.bench.measure import (
    called,
    card,
    chosen,
    code_hash,
    due,
    keep_size,
    maker,
    mixed,
    opened,
    peak_mib,
    reset_peak,
    signed,
    wanted,
)
from razor.config import RazorConfig
from razor.minicanvas.dataset import AXES, Target, parse_target
from razor.minicanvas.tasks import task

OUT = models.ASSETS / "results" / "clip.json"
PARTS = ("targets", "scoring", "size")
# what a mean over every target of a kind should reach, in points
GOALS = {
    "forget accuracy": "<= chance + 2",
    "retain drop": "<= 1",
    "neighbour drop": "<= 3",
    "retrieval stability": ">= 99",
}


def main(targets: str = "", out: Path | None = None, parts: str = ",".join(PARTS)) -> dict:
    """Run the parts asked for and return all results, old and new."""
    part_names, (results, save) = chosen(parts, PARTS), opened(out or OUT, called("clip", targets, parts))
    if "targets" in part_names:
        run_targets(results, targets, save)
    if "scoring" in part_names:
        results["scoring"] = scoring()
    if "size" in part_names:
        keep_size(results, real_size)
    save()
    print(report(results))
    return results


def run_targets(results: dict, names: str, save: Callable[[], None]) -> None:
    """Unlearn every target with the default settings; those this code made already are kept."""
    from razor.run import unlearn

    adapter, config = models.load("mini-clip"), RazorConfig()
    rows = results.setdefault("targets", {})
    made_by = {"model": adapter.fingerprint(), "config": config.to_json(), "code": code_hash("clip", "bench.clip")}
    by = maker(results, made_by)
    for target in wanted(names):
        if not due(rows, str(target), by):
            continue
        run = unlearn(adapter, task(target), config)
        rows[str(target)] = {
            **signed(by, results["command"]),
            "before": run.before.to_json(),
            "after": run.after.to_json(),
            "chance": task(target).chance,
            "rounds": len(run.rounds),
            "reached": run.reached,
            "units": run.recipe["edit_set"]["members"],
            "parameters_edited": run.patch.parameters_edited,
            "seconds": round(run.seconds["total"], 2),
        }
        save()
        print(_row_line(target, rows[str(target)]), flush=True)


def summary(rows: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Means over the targets of each kind, in points (shares of 100)."""
    table = {}
    for axis in AXES:
        mine = [row for name, row in rows.items() if name.startswith(axis + ":")]
        if mine:
            drop = lambda row, key: 100 * (row["before"][key]["value"] - row["after"][key]["value"])  # noqa: E731
            table[axis] = {
                "targets": len(mine),
                "chance": 100 * mine[0]["chance"],
                "forget before": _mean(100 * r["before"]["forget_accuracy"]["value"] for r in mine),
                "forget accuracy": _mean(100 * r["after"]["forget_accuracy"]["value"] for r in mine),
                "worst forget": max(100 * r["after"]["forget_accuracy"]["value"] for r in mine),
                "retain drop": _mean(drop(r, "retain_accuracy") for r in mine),
                "neighbour drop": _mean(drop(r, "neighbor_accuracy") for r in mine),
                "retrieval stability": _mean(100 * r["after"]["retrieval_stability"]["value"] for r in mine),
                "seconds": _mean(r["seconds"] for r in mine),
                "parameters": _mean(r["parameters_edited"] for r in mine),
            }
    return table


def scoring(repeats: int = 5) -> dict:
    """Seconds of scoring over the floor, and peak memory over the lean bound, on mini-clip.

    The floor is the two forwards and two backwards of the same batches with weight gradients for the same
    parameters, each gradient dropped as soon as it exists. The lean bound is what that adds to the process, plus one
    gradient of those parameters.
    """
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        timed = pool.apply(_timed_scoring, (repeats,))
        peak = {name: pool.apply(_peak, (name,)) for name in ("floor", "score")}
    bound = peak["floor"]["peak"] + peak["floor"]["gradient"]
    return {
        **timed,
        "peak_mib": peak["score"]["peak"],
        "lean_bound_mib": bound,
        "memory_ratio": peak["score"]["peak"] / bound,
    }


def _timed_scoring(repeats: int) -> dict:
    from razor.growth import Growth

    growth = Growth(models.load("mini-clip"), task(parse_target("object:cat")), RazorConfig())
    terms, units, model = growth.bench.scoring_terms(), growth.units, growth.adapter.model
    works = {"floor": lambda: _floor(model, units, terms), "score": lambda: growth.rescore()}
    seconds: dict[str, list[float]] = {"floor": [], "score": []}
    for _ in range(repeats + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    floor, score = (statistics.median(seconds[name][1:]) for name in ("floor", "score"))
    return {"floor_seconds": floor, "score_seconds": score, "ratio": score / floor}


def _floor(model, units, terms) -> None:
    from razor.gradients import trainable
    from razor.units import parameters_of

    def drop(parameter) -> None:
        parameter.grad = None

    with trainable(model, parameters_of(units)) as parameters:
        hooks = [p.register_post_accumulate_grad_hook(drop) for p in parameters.values()]
        try:
            for side in ("forget", "retain"):
                terms[side]().backward()
        finally:
            for hook in hooks:
                hook.remove()


def _peak(name: str) -> dict[str, float]:
    """Memory one pass adds at its peak in a fresh process, MiB; and the size of one gradient of the candidates."""
    from razor.growth import Growth
    from razor.units import parameters_of

    growth = Growth(models.load("mini-clip"), task(parse_target("object:cat")), RazorConfig())
    model, terms = growth.adapter.model, growth.bench.scoring_terms()
    parameters = dict(model.named_parameters())
    gradient = sum(parameters[p].numel() * 4 for p in parameters_of(growth.units)) / 2**20
    before = reset_peak()
    _floor(model, growth.units, terms) if name == "floor" else growth.rescore()
    return {"peak": peak_mib() - before, "gradient": gradient}


def real_size() -> dict:
    """Seconds and peak memory of scoring and one growth round with random weights: ViT-L-14 on CUDA, else ViT-B-32."""
    import open_clip
    import torch

    from razor.adapters.clip import ClipAdapter
    from razor.examples import user_task
    from razor.growth import Growth

    torch.manual_seed(0)
    on = card()
    name = "ViT-L-14" if on else "ViT-B-32"
    network, _, preprocess = open_clip.create_model_and_transforms(name, device="cuda" if on else "cpu")
    adapter = ClipAdapter(network, preprocess, open_clip.get_tokenizer(name), name=f"{name}, random weights")
    cat = task(parse_target("object:cat"))
    small = user_task(cat.forget.gradient[:30], cat.retain.gradient[:60], concept="cat")
    started = time.perf_counter()
    reset_peak()
    growth = Growth(adapter, small, RazorConfig(batch=16, inner_steps=4, rounds=1))
    encoded = time.perf_counter()
    growth.scores()
    scored = time.perf_counter()
    growth.next_round()
    done = time.perf_counter()
    numbers = sum(p.numel() for p in network.parameters())
    return {
        "model": f"{name}, {numbers / 1e6:.0f} M parameters, random weights",
        "examples": "18 forget and 16 retain pictures a gradient; 4 inner steps",
        "device": on or "cpu",
        "units": len(growth.units),
        "encode_seconds": encoded - started,
        "score_seconds": scored - encoded,
        "round_seconds": done - scored,
        "peak_mib": peak_mib(),
    }


def report(results: dict) -> str:
    """The results as markdown, the goals beside them."""
    lines = []
    if rows := results.get("targets"):
        heads = (
            "kind (targets)",
            "forget before",
            "forget after",
            "worst",
            "chance",
            "retain drop",
            "neighbour drop",
            "retrieval stability",
            "s per run",
            "parameters edited",
        )
        lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        for axis, m in summary(rows).items():
            lines.append(
                f"| {axis} ({m['targets']}) | {m['forget before']:.1f} | {m['forget accuracy']:.1f} | "
                f"{m['worst forget']:.1f} | {m['chance']:.1f} | {m['retain drop']:.2f} | {m['neighbour drop']:.2f} | "
                f"{m['retrieval stability']:.1f} | {m['seconds']:.1f} | {m['parameters']:,.0f} |"
            )
        lines.append(
            f"| goal | | {GOALS['forget accuracy']} | | | {GOALS['retain drop']} | {GOALS['neighbour drop']} | "
            f"{GOALS['retrieval stability']} | | |"
        )
        lines += mixed(rows.values())
    if s := results.get("scoring"):
        lines += [
            "",
            f"Scoring takes {s['score_seconds']:.2f} s, {s['ratio']:.2f} x its floor of {s['floor_seconds']:.2f} s "
            f"(goal <= 1.15); it adds {s['peak_mib']:.0f} MiB at its peak, {s['memory_ratio']:.2f} x the lean bound.",
        ]
    for s in results.get("size", {}).values():
        lines += [
            "",
            f"{s['model']} ({s['units']} units) on {s['device']}, {s['examples']}: encode {s['encode_seconds']:.1f} s, "
            f"score {s['score_seconds']:.1f} s, one growth round {s['round_seconds']:.1f} s, "
            f"peak {s['peak_mib']:.0f} MiB.",
        ]
    return "\n".join(lines)


def _row_line(target: Target, row: dict) -> str:
    cells = []
    for key in ("forget_accuracy", "retain_accuracy", "neighbor_accuracy", "cross_accuracy"):
        if row["after"][key] and row["after"][key]["n"]:
            cells.append(f"{key.split('_')[0]} {row['before'][key]['value']:.1%} -> {row['after'][key]['value']:.1%}")
    stability = row["after"]["retrieval_stability"]["value"]
    return f"{target!s:26} {', '.join(cells)}, stability {stability:.1%}, {row['rounds']} rounds, {row['seconds']} s"


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)
