"""What a command line names: model, examples, settings, patch and recipe; where its results may go; its table.

Heavy modules are imported inside the functions, so that --help answers at once.
"""

import argparse
from pathlib import Path

from razor.errors import InputError
from razor.progress import bar, note
from razor.writing import check_place

NO_JUDGE = (
    "Nothing here can say what its pictures show, so numbers come from the denoiser's predictions; name a CLIP with "
    "--judge to have pictures drawn and looked at."
)


def check_table(out: Path, option: str) -> None:
    """Refuse a file of results that cannot be written, before any work; one that is there is written anew."""
    if out.is_dir():
        raise InputError(f"{out} is a folder; name the file that {option} is to write.")
    check_place(out)
    out.parent.mkdir(parents=True, exist_ok=True)


def check_free(out: Path, replace: bool) -> None:
    """Refuse a file that is there or cannot be written, before any work."""
    if out.exists() and not replace:
        raise InputError(f"{out} exists already; choose another name, or --replace.")
    check_place(out)


def prepare(args: argparse.Namespace):
    """Adapter, task and settings named on the command line. Settings first: they are the cheapest to get wrong."""
    config = config_of(args)
    from razor import models, sources

    if not args.forget and not args.concept.strip():
        raise InputError("Say what to forget: --forget object:cat, --forget PICTURES, or --concept 'Van Gogh'.")
    labels = [label.strip() for label in args.labels.split(",") if label.strip()]
    chosen = {"concept": args.concept, "labels": labels, "seed": config.seed, "kind": args.kind, "anchor": args.anchor}
    named, kept = {**chosen, "drawn_too": args.drawn_too}, args.retain not in (None, "", sources.WORLD)
    # Beside own forget pictures alone the model says what labels are: classes of the bundled world, or what it draws.
    later = bool(labels) and not kept and not sources.is_target(args.forget or "")
    if args.forget:  # before the model, which takes longer to load
        task, warnings = sources.resolve(args.forget, args.retain, **named | ({"labels": ()} if later else {}))
        for warning in warnings:
            note(warning)
    adapter = models.load(args.model, device=args.device, dtype=args.dtype, bits=args.bits)
    if args.judge:
        adapter = models.with_judge(adapter, args.judge)
    if args.forget:
        beside = sources.drawn_beside(adapter, args.concept, kept=kept, drawn_too=args.drawn_too)
        if later or beside or sources.asks_kind(adapter):
            with bar("Drawing what it knows") as drawn:
                task, _ = sources.resolve(args.forget, args.retain, **named, adapter=adapter, on_picture=drawn)
    else:
        if adapter.family == "diffusion":
            note(f"{adapter.name} draws what it knows of {args.concept!r}.")
        with bar("Drawing what it knows") as drawn:
            task = sources.from_words(adapter, **chosen, on_picture=drawn)
    for said in _of_examples(args, adapter, task):
        note(said)
    return adapter, task, config


def _of_examples(args: argparse.Namespace, adapter, task) -> list[str]:
    """What to know of the examples: what they are made of, what was drawn to keep, what of them is not read."""
    from razor import pictures, sources

    said = [sources.made_of(task)]
    if not said[0] and (drawn := sources.drawn_to_keep(task)):
        how = " Name others with --labels."
        said.append(drawn + (how if sources.draws_its_own(adapter) and not args.labels else ""))
    if args.drawn_too and args.forget and not sources.is_target(args.forget):
        said.append(sources.unnamed(adapter, args.concept))
    if (
        args.command != "score"
        and adapter.family == "diffusion"
        and not (adapter.judge and adapter.judge.reads(task.axes))
    ):
        said.append(NO_JUDGE)
    return [*filter(None, said), *pictures.cut_captions(adapter, task)]


def config_of(args: argparse.Namespace):
    """The settings named on the command line, on top of those of its --method."""
    from razor.config import PAPER, RazorConfig

    given = {name: getattr(args, name, None) for name in vars(RazorConfig())}
    for name in ("towers", "granularity"):
        if given[name]:
            given[name] = tuple(part.strip() for part in given[name].split(","))
    named = {name: value for name, value in given.items() if value is not None}
    return RazorConfig(**(PAPER if getattr(args, "method", "") == "paper" else {}) | named)


def recipe_of(args: argparse.Namespace) -> dict:
    """The recipe to repeat, if one is named; what it says becomes the arguments that were not given."""
    from razor import recipe as recipes
    from razor.config import RazorConfig

    if not args.recipe:
        if not args.model:
            raise InputError("Say which model to edit: --model mini-clip, or --recipe for a run to repeat.")
        return {}
    made = recipes.read(args.recipe)
    as_in(args, made)
    for name, value in vars(RazorConfig.from_json(dict(made.get("config", {})))).items():
        if getattr(args, name, None) is None:
            setattr(args, name, ",".join(value) if isinstance(value, tuple) else value)
    return made


def as_in(args: argparse.Namespace, made: dict) -> None:
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


def patch_of(args: argparse.Namespace, adapter):
    """The edit of --patch, which was read before, for this model; none where none is given.

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


def pictures_of(task) -> str:
    """How many examples a task has, in words."""
    forget, retain = (len(side.all()) for side in (task.forget, task.retain))
    return f"{forget} examples of {task.concept!r} and {retain} of what is kept"


def print_metrics(before: dict, after: dict, read_by: str) -> None:
    """Who read the answers or pictures, then `print_table`."""
    print(f"Read by {read_by}.")
    print_table(before, after)


def print_table(before: dict, after: dict) -> None:
    """One line a measure, as Evaluation.to_json gives them."""
    print(f"{'':22}{'before':>8}{'after':>8}   95 % interval     n")
    for name, now in after.items():
        if isinstance(now, dict) and now.get("n") and before[name]:
            form, label = (".4f", "neutral KL, nats") if name == "neutral_kl" else (".1%", name.replace("_", " "))
            was, value, low, high = (format(v, form) for v in (before[name]["value"], *(now[k] for k in _MEASURE)))
            print(f"{label:22}{was:>8}{value:>8}   {low:>6} to {high:>6}  {now['n']:4}")


_MEASURE = ("value", "low", "high")
