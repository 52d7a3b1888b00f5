"""Commands that make an edit, or something of one: score, unlearn, carry, export; and diff and ask."""

import argparse
import warnings
from dataclasses import replace

from razor.commands.given import check_free, patch_of, pictures_of, prepare, print_metrics, print_table, recipe_of
from razor.errors import InputError, RazorError
from razor.progress import bar, note
from razor.writing import check_place, remove, whole, write_text


def _score(args: argparse.Namespace) -> None:
    from razor import jsonio, processes
    from razor.growth import Growth
    from razor.scoring import ranked

    adapter, task, config = prepare(args)
    note(f"Reading what {adapter.name} makes of {pictures_of(task)}.")
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
    made = recipe_of(args)
    adapter, task, config = prepare(args)
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
    print_metrics(result["before"], result["after"], run.read_by)
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


def _carry(args: argparse.Namespace) -> None:
    from razor import jsonio, models
    from razor.carry import carried

    if args.out.is_dir():
        raise InputError(f"--out needs the file to write, and {args.out} is a folder; add /patch.safetensors.")
    check_free(args.out, args.replace)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    source, target = (models.load(name, device=args.device) for name in (args.source, args.target))
    found = carried(patch_of(args, source), source, target)
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
    check_free(args.out, args.replace)
    adapter = models.load(args.model, device=args.device, dtype=args.dtype)
    patch = patch_of(args, adapter)
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
    patch = patch_of(args, adapter)

    def on_part(side: int, done: int) -> None:
        note(f"{done} of {len(questions)} questions answered {'with the patch' if side else 'by the unedited model'}.")

    answered = answer_table(adapter, questions, (Patch(), patch), concept=concept, on_part=on_part)
    before, after = (_scored(args.rule, concept, questions, answered, side) for side in (0, 1))
    if before:
        print_table(before, after)
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


COMMANDS = {
    "score": _score,
    "unlearn": _unlearn,
    "carry": _carry,
    "diff": _diff,
    "export": _export,
    "ask": _ask,
}
