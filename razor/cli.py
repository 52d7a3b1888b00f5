"""The command line.

python -m razor score    --model mini-clip --forget style:neon
python -m razor unlearn  --model mini-clip --forget style:neon --out runs/neon
python -m razor evaluate --model mini-clip --forget style:neon --patch runs/neon/patch.safetensors
python -m razor evaluate --model mini-clip --forget style:neon --patch runs/neon/patch.safetensors --attacks all
python -m razor compare  --model mini-clip --forget style:neon --methods razor,slug,ssd --json neon.json
python -m razor carry    --from mini-clip --to mini-vlm --patch runs/neon/patch.safetensors --out runs/vlm.safetensors
python -m razor export   --model mini-clip --patch runs/neon/patch.safetensors --as full --out neon-clip
python -m razor report   runs/neon --attacks all --out neon.html
python -m razor diff     runs/neon runs/neon-2/patch.safetensors
python -m razor ask      --model ~/models/llava --questions mme.csv --rule mme --patch runs/ada/patch.safetensors
python -m razor bench clip
python -m razor app
"""

import argparse
import atexit
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from razor.arguments import parser
from razor.errors import InputError, RazorError
from razor.host import keep_memory
from razor.progress import bar, note
from razor.writing import check_place, remove, whole, write_text

# Heavy modules are imported inside the commands, so that --help answers at once.


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command. Wrong input ends with one sentence and exit code 2, Ctrl-C with 130, a kill with 143."""
    args = parser().parse_args(argv)
    keep_memory()
    try:
        with _ended_by_kill():
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                _run_together(args)
            else:
                _run(args)
    except (RazorError, OSError) as error:
        print(f"razor: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stopped:
        sys.exit(_told(stopped))


def _told(stopped: KeyboardInterrupt) -> int:
    """Say that the work was ended from outside; gives the exit code."""
    print("razor: stopped; no model was changed.", file=sys.stderr)
    return 143 if isinstance(stopped, _Killed) else 130


class _Killed(KeyboardInterrupt):
    """SIGTERM, of a container being stopped or of kill."""


@contextmanager
def _ended_by_kill() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that nothing is left half written; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():  # only there can signals be answered
        yield
        return

    def end(number: int, _frame) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise _Killed

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(args: argparse.Namespace) -> None:
    """The command that was given, once its results are known to have a place and its patch to be one."""
    for name in ("json", "csv"):
        if (out := getattr(args, name, None)) is not None:
            _check_table(out, f"--{name}")
    if getattr(args, "patch", None):
        from razor.patches import Patch

        args.patch = Patch.load(args.patch)
    commands = {
        "score": _score, "unlearn": _unlearn, "evaluate": _evaluate, "report": _report, "compare": _compare,
        "carry": _carry, "export": _export, "diff": _diff, "ask": _ask, "bench": _bench, "app": _app,
    }  # fmt: skip
    commands[args.command](args)


def _run_together(args: argparse.Namespace) -> None:
    """One command in several processes that a launcher started; all but the first print nothing but errors."""
    from razor import processes

    shared = ("targets", "words") if args.command == "bench" and args.family in ("clip", "diffusion", "vlm") else ()
    if args.command not in ("score", "unlearn") and not shared:
        raise InputError(
            f"{args.command} runs in one process; several share score, unlearn, and bench clip, diffusion and vlm."
        )
    if shared:
        from razor.bench import clip, diffusion, vlm

        known = {"clip": clip, "diffusion": diffusion, "vlm": vlm}[args.family].PARTS
        args.parts = args.parts or ",".join(part for part in known if part in shared)
        if alone := sorted({part.strip() for part in args.parts.split(",")} & set(known) - set(shared)):
            raise InputError(f"--parts {alone[0]} measures one process; start it without the others.")
    processes.join(getattr(args, "device", None))
    if not processes.first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for as long as the process runs
    _run(args)
    processes.leave()


def _check_table(out: Path, option: str) -> None:
    """Refuse a file of results that cannot be written, before any work; one that is there is written anew."""
    if out.is_dir():
        raise InputError(f"{out} is a folder; name the file that {option} is to write.")
    check_place(out)
    out.parent.mkdir(parents=True, exist_ok=True)


def _score(args: argparse.Namespace) -> None:
    from razor import jsonio, processes
    from razor.growth import Growth
    from razor.scoring import ranked

    adapter, task, config = _prepare(args)
    note(f"Reading what {adapter.name} makes of {_pictures(task)}.")
    growth = Growth(adapter, task, config)
    note(f"Scoring {len(growth.units)} units.")
    scores = growth.scores()
    print(f"{'rank':>4}  {'unit':20} {'phi':>10} {'pressure':>10} {'separation':>10} {'ratio':>8}")
    for s in ranked(scores)[: args.top]:
        print(f"{s.rank:4}  {s.unit.name:20} {s.phi:10.4f} {s.pressure:10.4f} {s.separation:10.3f} {s.ratio:8.3f}")
    if args.json and processes.first():
        entries = [{**vars(s), "unit": s.unit.name, "kind": s.unit.kind} for s in ranked(scores)]
        jsonio.write(args.json, {"model": adapter.name, "concept": task.concept, "units": entries})


def _unlearn(args: argparse.Namespace) -> None:
    from razor import jsonio, processes
    from razor import recipe as recipes
    from razor.run import FILES, unlearn

    if not args.replace and any((args.out / name).exists() for name in FILES):
        raise InputError(f"{args.out} holds a run; give another folder, or --replace.")
    check_place(args.out / FILES[0])
    made = _recipe(args)
    adapter, task, config = _prepare(args)
    if made:
        recipes.check(made, adapter, task)
        if other := recipes.other_versions(made):
            note(f"The recipe was {other}, so numbers may differ.")
        for said in recipes.left_out(made):
            note(said)
    note(f"Forgetting {task.concept!r} in {adapter.name}.")
    warnings.filterwarnings("ignore", "The unedited model", UserWarning)  # said in our own words below
    with bar("Rounds, at most") as rounds, bar("Drawing to measure") as drawn:

        def on_round(_growth, done) -> None:
            note(f"Round {done.index}: {done.reason}")
            rounds(done.index, config.rounds)

        rounds(0, config.rounds)
        run = unlearn(adapter, task, config, planned=recipes.planned(made), on_round=on_round, on_picture=drawn)
        run = _with_gates_of(made, run)
    if not run.known:
        note(f"The unedited model does not know {task.concept!r}: there was nothing to forget.")
    elif not run.reached:
        note("The target was not met within the retain budget; allow more rounds or a larger budget.")
    if not processes.first():
        return
    result = run.save(args.out)
    _print_metrics(result["before"], result["after"], run.read_by)
    print(
        f"{result['parameters_edited']:,} parameters edited; {result['patch_bytes'] / 1000:.0f} kB patch in {args.out}"
    )
    then, now = made.get("edit_set", {}).get("members"), list(run.growth.edit_set.members)
    if then is not None:
        print("The units of the recipe." if then == now else f"Not the units of the recipe: {', '.join(then)}.")
    if args.json:
        jsonio.write(args.json, {"model": adapter.name, "concept": task.concept, **result})


def _with_gates_of(made: dict, run):
    """The run with what its edit has to stand, where the recipe it repeats says so."""
    if "gates" not in made:
        return run
    kept = {**run.recipe, "gates": made["gates"]}
    return replace(run, recipe=kept, patch=run.patch.with_recipe(kept))


def _recipe(args: argparse.Namespace) -> dict:
    """The recipe to repeat, if one is named; what it says becomes the arguments that were not given."""
    from razor import recipe as recipes
    from razor.config import RazorConfig

    if not args.recipe:
        if not args.model:
            raise InputError("Say which model to edit: --model mini-clip, or --recipe for a run to repeat.")
        return {}
    made = recipes.read(args.recipe)
    _as_in(args, made)
    for name, value in vars(RazorConfig.from_json(dict(made.get("config", {})))).items():
        if getattr(args, name, None) is None:
            setattr(args, name, ",".join(value) if isinstance(value, tuple) else value)
    return made


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
    adapter, task, config = _prepare(args)
    attacks = _attacks(args.attacks, adapter, task)
    patch = _patch(args, adapter)
    note(f"Reading what {adapter.name} makes of {_pictures(task)}.")
    bench = bench_for(adapter, task, batch=config.batch, mismatch_weight=config.mismatch_weight, seed=config.seed)
    with bar("Drawing to measure") as drawn, watched(bench, drawn):
        note("Measuring the unedited model.")
        tested = [evaluate(adapter, bench, Patch(), "test")]
        if patch.deltas:
            note("Measuring it with the patch.")
        tested.append(evaluate(adapter, bench, patch, "test"))
    before, after = (found.to_json() for found in tested)
    _print_metrics(before, after, bench.read_by)
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


def _pictures(task) -> str:
    """How many examples a task has, in words."""
    forget, retain = (len(side.all()) for side in (task.forget, task.retain))
    return f"{forget} examples of {task.concept!r} and {retain} of what is kept"


def _patch(args: argparse.Namespace, adapter):
    """The edit of --patch, which `_run` has read, for this model; none where none is given.

    Raises:
        PatchError: it was made for other weights and --anyway was not given, or it edits what the model does not have.
    """
    from razor.errors import OtherWeightsError
    from razor.patches import Patch

    patch = args.patch or Patch()
    try:
        patch.check(adapter.model)
        return patch
    except OtherWeightsError as error:
        if not args.anyway:
            raise OtherWeightsError(f"{error} To apply it to these weights all the same, add --anyway.") from error
    made = patch.recipe.get("model") or {}
    maker = f"{made.get('name')!r} with the fingerprint {made.get('fingerprint')}" if made else "another model"
    note(f"The patch was made for the weights of {maker}; it is applied to those of {adapter.name} all the same.")
    return Patch(patch.deltas, patch.recipe)


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
    _as_in(args, made)
    outs = [out for out in (args.out, args.card) if out is not None]
    if len({out.resolve() for out in outs}) < len(outs):
        raise InputError("--out and --card name the same file; give each its own.")
    for out in outs:
        if out.is_dir():
            raise InputError(f"{out} is a folder; name the file to write.")
        _check_free(out, args.replace)
        out.parent.mkdir(parents=True, exist_ok=True)
    adapter, task, _ = _prepare(args)
    attacks = _attacks(args.attacks, adapter, task)
    note(f"Taking up the run in {args.run_folder}, with {_pictures(task)}.")
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


def _check_free(out: Path, replace: bool) -> None:
    """Refuse a file that is there or cannot be written, before any work."""
    if out.exists() and not replace:
        raise InputError(f"{out} exists already; choose another name, or --replace.")
    check_place(out)


def _as_in(args: argparse.Namespace, made: dict) -> None:
    """Model and examples of a recipe, where the command line names none."""
    from razor.sources import is_target

    task, origin = made.get("task") or {}, (made.get("task") or {}).get("origin") or {}
    args.model = args.model or (made.get("model") or {}).get("name", "")
    args.concept = args.concept or task.get("concept", "")
    args.drawn_too = args.drawn_too or "named" in origin
    if args.forget or str(origin.get("forget", "")).startswith("drawn from"):
        return
    if not is_target(origin.get("forget", "")):
        raise InputError(f"This run forgot own pictures of {args.concept!r}; name them again with --forget.")
    args.forget, args.concept = origin["forget"], ""
    if is_target(origin.get("retain", "")):
        args.retain = args.retain or origin["retain"]


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
    adapter, task, config = _prepare(args)
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


def _carry(args: argparse.Namespace) -> None:
    from razor import jsonio, models
    from razor.carry import carried

    if args.out.is_dir():
        raise InputError(f"--out needs the file to write, and {args.out} is a folder; add /patch.safetensors.")
    _check_free(args.out, args.replace)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    source, target = (models.load(name, device=args.device) for name in (args.source, args.target))
    found = carried(_patch(args, source), source, target)
    for said in found.notes:
        note(said)
    with whole(args.out) as (part,):
        size = found.patch.save(part)
    edited = f"{found.patch.parameters_edited:,} parameters of {target.name} edited"
    print(f"{edited}; {size / 1000:.0f} kB patch in {args.out}")
    print(f"What {target.name} forgets by it was not measured; evaluate measures it.")
    if args.json:
        told = {"from": source.name, "to": target.name, "parameters_edited": found.patch.parameters_edited}
        jsonio.write(args.json, {**told, "patch": str(args.out), "patch_bytes": size, "notes": list(found.notes)})


def _diff(args: argparse.Namespace) -> None:
    from razor import jsonio
    from razor.recipe import differences, read

    found = differences(read(args.first), read(args.second))
    for difference in found:
        print(difference)
    if not found:
        print("The two recipes are the same.")
    if args.json:
        jsonio.write(args.json, [vars(difference) for difference in found])


def _export(args: argparse.Namespace) -> None:
    from razor import export, jsonio, models
    from razor.errors import ModelError
    from razor.recipe import rebound

    fitting = {"lora": ("keys", "rank", "scale"), "full": ("single_file", "redacted")}
    for form, options in fitting.items():
        given = [name for name in options if getattr(args, name) not in (None, False)]
        if given and args.form != form:
            why = f" {export.WHY_REDACTED}" if given == ["redacted"] else ""
            raise InputError(f"--{given[0].replace('_', '-')} is for --as {form} alone, not --as {args.form}.{why}")
    _check_free(args.out, args.replace)
    adapter = models.load(args.model, device=args.device, dtype=args.dtype)
    patch = _patch(args, adapter)
    if args.anyway and not patch.base:
        patch = rebound(patch, adapter)
    options = {name: getattr(args, name) for name in fitting.get(args.form, ()) if getattr(args, name) is not None}
    write = {"patch": export.write_patch, "lora": export.write_lora, "full": export.write_full}[args.form]
    note(f"Writing {adapter.name}, edited, to {args.out}." if args.form == "full" else f"Writing {args.out}.")
    written = write(adapter, patch, args.out, replace=args.replace, **options)
    for said in written.notes:
        note(said)
    left = f"; its ranks leave out {written.residual:.1%} of the change" if written.residual else ""
    print(f"{written.bytes / 1000:,.0f} kB {_FORMS[args.form]} in {args.out}{left}")
    note("Loading it again to compare.")
    try:
        check = export.verify(adapter, patch, written.path, scale=options.get("scale", 1.0))
        if not export.sound(written, check):
            raise ModelError(f"{export.compared(check)} {written.path.name} was deleted; try another form.")
    except (RazorError, KeyboardInterrupt):
        remove(written.path)  # nobody is to take it for the edited model
        raise
    print(export.compared(check))
    if args.json:
        told = {"model": adapter.name, "form": args.form, "path": str(written.path), "bytes": written.bytes}
        told |= {"notes": list(written.notes), "residual": written.residual, "ranks": dict(written.ranks)}
        jsonio.write(args.json, {**told, "loaded_again": vars(check)})


_FORMS = {"patch": "patch", "lora": "LoRA", "full": "model"}


def _ask(args: argparse.Namespace) -> None:
    from razor import jsonio, models
    from razor.answers import normalised, read_questions, score
    from razor.asking import answer_table, table
    from razor.patches import Patch

    questions, warnings = read_questions(args.questions)
    for warning in warnings:
        note(warning)
    if args.rule:  # what will not do is told before the model is loaded
        score(args.rule, questions, [""] * len(questions))
    concept = _concept(args.forget)
    adapter = models.load(args.model, device=args.device, dtype=args.dtype, bits=args.bits)
    if adapter.family != "vlm":
        raise InputError(f"{adapter.name} answers no questions; name a vision-language model, such as LLaVA-1.5.")
    patch = _patch(args, adapter)

    def on_part(side: int, done: int) -> None:
        note(f"{done} of {len(questions)} questions answered {'with the patch' if side else 'by the unedited model'}.")

    answered = answer_table(adapter, questions, (Patch(), patch), concept=concept, on_part=on_part)
    before, after = (_scored(args.rule, concept, questions, answered, side) for side in (0, 1))
    if before:
        _print_table(before, after)
    changed = sum(normalised(a.said[0]) != normalised(a.said[1]) for a in answered)
    if args.patch:
        print(f"{changed} of {len(answered)} answers changed.")
    if args.csv:
        write_text(args.csv, table(answered, ("before", "after")))
    if args.json:
        found = {"model": adapter.name, "rule": args.rule, "before": before, "after": after, "changed": changed}
        jsonio.write(args.json, {**found, "answers": [_answer_json(a) for a in answered]})
    if not (args.csv or args.json):
        for a in answered:
            now = f" -> {a.said[1]!r}" if args.patch else ""
            print(f"{a.ask.source}  {a.ask.text.splitlines()[0]}  {a.said[0]!r}{now}")


def _scored(rule: str | None, concept: tuple[str, str] | None, questions, answered, side: int) -> dict[str, dict]:
    """Right answers of one side by the rule, and how many of them name the concept."""
    from razor.answers import NAMED, score
    from razor.metrics import share

    found = score(rule, questions, [a.said[side] for a in answered]) if rule else {}
    if concept:
        found[f"names {concept[1]}"] = share([NAMED in a.flags[side] for a in answered])
    return {name: measure.to_json() for name, measure in found.items()}


def _answer_json(answered) -> dict:
    said = {"before": answered.said[0], "after": answered.said[1]}
    likely = {"log_p_of_the_name": list(answered.likely)} if answered.name[0] else {}
    ask = answered.ask
    return {"picture": ask.source, "question": ask.text, "right": list(ask.right), **said, **likely}


def _concept(text: str | None) -> tuple[str, str] | None:
    """axis:name as a person types it; a name of the bundled world in its own letters."""
    from razor.minicanvas.dataset import AXES, slug

    if not text:
        return None
    axis, _, name = (part.strip() for part in text.partition(":"))
    if not axis or not name:
        raise InputError(f"--forget is {text!r}; write axis:name, such as identity:mara-voss.")
    return axis, next((known for known in AXES.get(axis, ()) if slug(known) == slug(name)), name)


def _bench(args: argparse.Namespace) -> None:
    from razor.bench import clip, diffusion, editing, processes, readme, rivals, vlm

    if args.family == "all":
        if args.json or args.parts:
            raise InputError("bench all writes to assets/results and runs every part; name one bench to choose.")
        for bench in (clip, diffusion, vlm, rivals):
            bench.main(args.targets)
        for bench in (editing, processes):
            bench.main(None)
        readme.main()
    elif args.family == "readme":
        readme.main()
    elif alone := {"editing": editing, "processes": processes}.get(args.family):
        alone.main(args.json)
    else:
        family = {"clip": clip, "diffusion": diffusion, "vlm": vlm, "rivals": rivals}[args.family]
        family.main(args.targets, args.json, args.parts or ",".join(family.PARTS))


def _app(args: argparse.Namespace) -> None:
    option, said = ("--auth", args.auth) if args.auth else ("RAZOR_AUTH", os.environ.get("RAZOR_AUTH", ""))
    user, _, password = said.partition(":")
    if said and not (user and password):
        raise InputError(f"{option} needs USER:PASS, such as ada:secret.")
    auth = (user, password) if said else None
    import app

    app.check_address(args.host, args.port)  # before anything is loaded
    try:
        app.launch(
            host=args.host,
            port=args.port,
            auth=auth,
            share=args.share,
            model=args.model,
            dtype=args.dtype,
            mcp=args.mcp,
        )
    except KeyboardInterrupt as stopped:
        # Visitors' work may be under way in other threads, beneath which an interpreter that ends itself may hang.
        code = _told(stopped)
        atexit._run_exitfuncs()  # these delete temporary files
        sys.stdout.flush()
        os._exit(code)


def _prepare(args: argparse.Namespace):
    """Adapter, task and settings named on the command line. Settings first: they are the cheapest to get wrong."""
    config = _config(args)
    from razor import models, sources

    if not args.forget and not args.concept.strip():
        raise InputError("Say what to forget: --forget object:cat, --forget PICTURES, or --concept 'Van Gogh'.")
    labels = [label.strip() for label in args.labels.split(",") if label.strip()]
    chosen = {"concept": args.concept, "labels": labels, "seed": config.seed, "kind": args.kind, "anchor": args.anchor}
    named = {**chosen, "drawn_too": args.drawn_too}
    if args.forget:  # before the model, which takes longer to load
        task, warnings = sources.resolve(args.forget, args.retain, **named)
        for warning in warnings:
            note(warning)
    adapter = models.load(args.model, device=args.device, dtype=args.dtype, bits=args.bits)
    if args.judge:
        adapter = models.with_judge(adapter, args.judge)
    if args.forget:
        beside = {"kept": args.retain not in (None, "", sources.WORLD), "drawn_too": args.drawn_too}
        if sources.asks_kind(adapter) or sources.drawn_beside(adapter, args.concept, **beside):
            with bar("Drawing what it knows") as drawn:
                task, _ = sources.resolve(args.forget, args.retain, **named, adapter=adapter, on_picture=drawn)
        own = args.drawn_too and not sources.is_target(args.forget)
        for said in filter(None, (sources.made_of(task), sources.unnamed(adapter, args.concept) if own else "")):
            note(said)
    else:
        if adapter.family == "diffusion":
            note(f"{adapter.name} draws what it knows of {args.concept!r}.")
        with bar("Drawing what it knows") as drawn:
            task = sources.from_words(adapter, **chosen, on_picture=drawn)
    if adapter.family == "diffusion":
        for said in _cut(adapter, task):
            note(said)
    return adapter, task, config


def _cut(adapter, task) -> list[str]:
    """What a model that draws does not read of captions that are too long for it."""
    captions = dict.fromkeys(e.caption for side in (task.forget, task.retain) for e in side.all())
    left = {caption: adapter.cut(caption) for caption in captions}
    return [f"{c!r} is too long: {adapter.name} does not read {cut!r}." for c, cut in left.items() if cut]


def _config(args: argparse.Namespace):
    from razor.config import PAPER, RazorConfig

    given = {name: getattr(args, name, None) for name in vars(RazorConfig())}
    for name in ("towers", "granularity"):
        if given[name]:
            given[name] = tuple(part.strip() for part in given[name].split(","))
    named = {name: value for name, value in given.items() if value is not None}
    return RazorConfig(**(PAPER if getattr(args, "method", "") == "paper" else {}) | named)


def _print_metrics(before: dict, after: dict, read_by: str) -> None:
    print(f"Read by {read_by}.")
    _print_table(before, after)


def _print_table(before: dict, after: dict) -> None:
    print(f"{'':22}{'before':>8}{'after':>8}   95 % interval     n")
    for name, now in after.items():
        if isinstance(now, dict) and now.get("n") and before[name]:
            form, label = (".4f", "neutral KL, nats") if name == "neutral_kl" else (".1%", name.replace("_", " "))
            was, value, low, high = (format(v, form) for v in (before[name]["value"], *(now[k] for k in _MEASURE)))
            print(f"{label:22}{was:>8}{value:>8}   {low:>6} to {high:>6}  {now['n']:4}")


_MEASURE = ("value", "low", "high")
