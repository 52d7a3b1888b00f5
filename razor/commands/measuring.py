"""Commands that measure an edit: evaluate, report and compare."""

import argparse
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from razor.commands.given import as_in, check_free, patch_of, pictures_of, prepare, print_metrics
from razor.errors import InputError, RazorError
from razor.progress import bar, note
from razor.writing import check_place, write_text


def _evaluate(args: argparse.Namespace) -> None:
    from razor import jsonio
    from razor.adapters.base import watched
    from razor.gates import judged
    from razor.membership import membership
    from razor.patches import Patch
    from razor.robustness import Case
    from razor.sharing import bench_for
    from razor.step import evaluate
    from razor.telling import gold_text, membership_text

    made = args.patch.recipe if args.patch else {}
    _gates(args, made)
    adapter, task, config = prepare(args)
    attacks = _attacks(args.attacks, adapter, task)
    patch = patch_of(args, adapter)
    note(f"Reading what {adapter.name} makes of {pictures_of(task)}.")
    bench = bench_for(adapter, task, batch=config.batch, mismatch_weight=config.mismatch_weight, seed=config.seed)
    with bar("Drawing to measure") as drawn, watched(bench, drawn):
        note("Measuring the unedited model.")
        tested = [evaluate(adapter, bench, Patch(), "test")]
        if patch.deltas:
            note("Measuring it with the patch.")
        tested.append(evaluate(adapter, bench, patch, "test"))
    before, after = (found.to_json() for found in tested)
    print_metrics(before, after, bench.read_by)
    case = Case(adapter, task, patch, bench=bench, seed=config.seed)
    findings, missed = _attacked(attacks, case) if attacks else ([], {})
    said = _verdicts(args, made, attacks, task, tested, findings, missed)
    _print_verdicts(said, task.concept)
    gold = _beside(adapter, task, patch)
    if gold is not None:
        print(f"\n{gold_text(gold, task.concept)}")
    member = None
    if patch.deltas:
        note("Looking whether the patch gives its examples away.")
        never_saw = case.gold and (case.gold.adapter, case.gold.bench)
        member = membership(adapter, bench, patch, gold=never_saw)
    if member is not None:
        print(f"\n{membership_text(member, task.concept)}")
    if args.json:
        found = {"model": adapter.name, "concept": task.concept, "read_by": bench.read_by}
        found["membership"] = member and member.to_json()
        back = [finding.to_json() for finding in findings]
        found |= {"not tried": missed} | (judged(said) if said else {})
        jsonio.write(
            args.json, {**found, "before": before, "after": after, "attacks": back, "gold": gold and gold.to_json()}
        )


def _gates(args: argparse.Namespace, made: dict, chance: float = 1.0) -> tuple:
    """The gates of a recipe, or the usual ones, at the limits of --gate. What is wrong is so at any chance of guessing.

    Raises:
        InputError: a limit that is none, or of a gate there is none of.
    """
    from razor.gates import limits_from, with_limits
    from razor.recipe import gates_of

    return with_limits(gates_of(made, chance), limits_from(args.gate))


def _verdicts(args: argparse.Namespace, made: dict, attacks: Sequence[str], task, tested, findings, missed) -> list:
    """What the evidence says to every gate, where anything was attacked or a limit given; else nothing."""
    from razor.gates import verdicts
    from razor.robustness import too_few

    if not attacks and not args.gate:
        return []
    gates = _gates(args, made, task.chance)
    unasked = {gate.attack: "It was not asked for." for gate in gates if gate.attack and gate.attack not in attacks}
    return verdicts(gates, *tested, findings, too_few(task) | unasked | missed)


def _print_verdicts(said: Sequence, concept: str) -> None:
    """The overall word and what it comes to, then gate by gate; nothing where there is none."""
    from razor.gates import overall
    from razor.telling import HEADLINE
    from razor.wording import capital

    if not said:
        return
    print(f"\n{capital(overall(said))}: {capital(HEADLINE[overall(said)].format(concept))}")
    for verdict in said:
        print(f"  {verdict.said:14}{verdict.gate.words} {verdict.why}")


def _beside(adapter, task, patch):
    """The edit's place between the model and one that never saw the concept, where there is one."""
    from razor.gold import beside, bundled

    if bundled(adapter, task):
        note(f"Comparing with a model that never saw {task.concept!r}.")
    return beside(adapter, task, patch)


def _report(args: argparse.Namespace) -> None:
    from razor import jsonio, recipe, report
    from razor.gates import judged
    from razor.robustness import Case
    from razor.run import taken_up
    from razor.sights import sights

    if not args.run_folder.is_dir():
        raise InputError(f"{args.run_folder} is no run's folder; give the one that unlearn wrote.")
    made = recipe.read(args.run_folder)
    _gates(args, made)
    as_in(args, made)
    outs = [out for out in (args.out, args.card) if out is not None]
    if len({out.resolve() for out in outs}) < len(outs):
        raise InputError("--out and --card name the same file; give each its own.")
    for out in outs:
        if out.is_dir():
            raise InputError(f"{out} is a folder; name the file to write.")
        check_free(out, args.replace)
        out.parent.mkdir(parents=True, exist_ok=True)
    adapter, task, _ = prepare(args)
    attacks = _attacks(args.attacks, adapter, task)
    note(f"Taking up the run in {args.run_folder}, with {pictures_of(task)}.")
    growth, before, after = taken_up(adapter, task, args.run_folder)
    case = Case(adapter, task, growth.patch, bench=growth.bench, seed=growth.config.seed)
    findings, missed = _attacked(attacks, case) if attacks else ([], {})
    found = _verdicts(args, made, attacks, task, (before, after), findings, missed)
    fixed = _gates(args, made, task.chance) if args.gate or "gates" in made else ()
    shown = []
    if not args.no_pictures:
        note("Looking at cases before and after.")
        with bar("Cases") as looked:
            shown = sights(adapter, task, growth.patch, growth.bench.neighbours, report=looked)
    gold = _beside(adapter, task, growth.patch)
    made = report.Report(growth, before, after, shown, found, findings, gold, args.reason, gates=fixed)
    for out, text in ((args.out, report.html), (args.card, report.model_card)):
        if out is not None:
            write_text(out, text(made))
            print(f"{out.stat().st_size / 1000:,.0f} kB in {out}")
    if args.json:
        sides = {"before": before.to_json(), "after": after.to_json()}
        told = {"files": [str(out) for out in outs], "gates": []} | (judged(found) if found else {})
        jsonio.write(args.json, {**sides, "attacks": [finding.to_json() for finding in findings], **told})


def _attacks(names: str | None, adapter, task) -> list[str]:
    """The attacks named on the command line; a wrong name is told before anything is measured."""
    from razor.robustness import find, possible

    chosen = [name.strip() for name in (names or "").split(",") if name.strip()]
    chosen = possible(adapter, task) if chosen == ["all"] else chosen
    for name in chosen:
        find(name, adapter.family)
    return chosen


def _attacked(names: Sequence[str], case) -> tuple[list, dict[str, str]]:
    """Run the attacks, print what each got back, and give the findings and why others failed."""
    from razor.telling import beside_gold_text

    case.beside_gold()
    golden = f"{'never saw':>10}" if case.gold else ""
    print(f"\n{'attack':12}{'setting':30}{'edited':>8}{'attacked':>9}{'unedited':>9}{golden}   95 % interval     n")
    found_all, missed = [], {}
    for found in _tried(names, case, missed):
        control = f"{found.control.value:9.1%}" if found.control else f"{'':9}"
        control += f"{found.gold.value:10.1%}" if found.gold else ""
        now = found.attacked
        print(
            f"{found.attack:12}{found.setting:30}{found.edited.value:8.1%}{now.value:9.1%}{control}"
            f"   {now.low:6.1%} to {now.high:6.1%}  {now.n:4}",
            flush=True,
        )
        if found.note:
            print(f"{'':12}{found.note}")
        found_all.append(found)
    if told := beside_gold_text(found_all):
        print(told)
    return found_all, missed


def _tried(names: Sequence[str], case, missed: dict[str, str]) -> Iterator:
    """What the attacks find, one setting after the other, under a bar of its own while each is at work.

    An attack that fails is told, put among `missed`, and the others go on.
    """
    from razor.robustness import attack

    for number, name in enumerate(names):
        findings = attack(name, case)
        while True:
            with bar(f"Attacks, now {name}") as tried:
                tried(number, len(names))
                try:
                    found = next(findings, None)
                except RazorError as error:
                    found, missed[name] = None, str(error)
                    note(f"{name} was not tried to its end: {error}")
            if found is None:
                break
            yield found


def _compare(args: argparse.Namespace) -> None:
    from razor import jsonio
    from razor.baselines import NAMES, Budget, find, run
    from razor.gold import between

    budget = Budget(args.steps, args.checks, args.seconds)
    names = [name.strip() for name in args.methods.split(",") if name.strip()]
    if args.out:
        _check_methods_free(args.out, names, args.replace)
    adapter, task, config = prepare(args)
    names = names or ["razor", *NAMES[adapter.family]]
    for name in names:
        find(name, adapter.family)
    options = {"forget_target": config.forget_target, "batch": config.batch, "seed": config.seed}
    rows, gold = [], between(adapter, task)
    print(f"{'method':18}{'forget':>16}{'retain':>16}{'settings':>10}{'passes':>8}{'seconds':>9}  chosen")
    with _ended_by_ctrl_c() as stop:
        tuned = lambda name, tell: run(name, adapter, task, budget, **options, stop=stop, progress=tell)  # noqa: E731
        for result in _results(names, tuned):
            if not rows and not result.known:
                raise InputError(f"{result.note} There is nothing to compare; choose something it knows.")
            placed = gold.distance(result.patch) if gold and result.after else None
            row = result.save(args.out / result.name) if args.out else result.to_json(0)
            rows.append(row | {"gold": placed and placed.to_json()})
            way = f"; {placed.place('forget'):.0%} of the way to gold" if placed else ""
            print(_compared(result) + way, flush=True)
            if args.json:
                jsonio.write(args.json, {"model": adapter.name, "concept": task.concept, "methods": rows})
    if stop():
        raise KeyboardInterrupt


def _results(names: Sequence[str], tuned: Callable) -> Iterator:
    """What `tuned(name, progress)` gives of the methods one after the other, under a bar, until one is stopped."""
    from razor.errors import Stopped

    for name in names:
        with bar(name) as done:
            done(0, 100)
            try:
                result = tuned(name, lambda share: done(round(100 * share), 100))
            except Stopped:  # before anything was tried
                return
        yield result
        if result.stopped:
            return


@contextmanager
def _ended_by_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks the block to end at its next step, as what it is given tells; a second one ends it at once."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def ask(number: int, _frame) -> None:
        signal.signal(number, before)
        pressed.set()
        note("Stopping after this step; Ctrl-C again ends at once.")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _check_methods_free(out: Path, names: Sequence[str], replace: bool) -> None:
    """Refuse a folder that holds results of one of these methods, of any where none is named, before any work."""
    folders = [out / name for name in names] or ([*out.iterdir()] if out.is_dir() else [])
    files = ("patch.safetensors", "run.json")
    there = [folder.name for folder in folders if any((folder / name).exists() for name in files)]
    if there and not replace:
        raise InputError(f"{out} holds results of {', '.join(sorted(there))}; give another folder, or --replace.")
    check_place(out / "run.json")


def _compared(result) -> str:
    """One line of the comparison."""
    if result.chosen is None:
        said = "diverged in every setting" + (" so far" if result.stopped else "")
        return f"{result.name:18}{said:>32}{len(result.trials):10}{result.passes:8}"
    now = result.after or result.chosen.evaluation
    sides = [
        f"{getattr(result.before, key).value:7.1%} ->{getattr(now, key).value:6.1%}"
        for key in ("forget_accuracy", "retain_accuracy")
    ]
    chosen = ", ".join(f"{key} {value}" for key, value in result.chosen.setting.items())
    met = "" if result.reached else " (target not met)"
    said = f"; {result.note}" if result.stopped else ""
    return (
        f"{result.name:18}{sides[0]:>16}{sides[1]:>16}{len(result.trials):10}{result.chosen.passes:8}"
        f"{result.chosen.seconds:9.1f}  {chosen}{met}{said}"
    )


COMMANDS = {"evaluate": _evaluate, "report": _report, "compare": _compare}
