"""What other programs call: typed, without a session, through gradio_client, curl or MCP.

A call loads the model the page serves, runs, and keeps nothing: what it made is in its answer. Files travel as Gradio
sends them (`handle_file`); an answer's are let go an hour later, those sent along when Gradio clears its own: after a
day.
"""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from inspect import Signature, signature
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

import gradio as gr
from gradio.data_classes import FileData, FileDataMeta
from gradio.utils import get_upload_folder, is_in_or_equal
from pydantic import TypeAdapter, ValidationError

from components.examples_panel import read_files
from components.export_panel import FORMS
from components.exporting import file_name, packed, taken_away, unnamed, write
from components.session import OWN
from razor.adapters.base import Adapter
from razor.answers import Question
from razor.asking import answer_table
from razor.config import RazorConfig
from razor.errors import InputError, OtherWeightsError, RazorError
from razor.examples import Task, collect
from razor.export import WHY_REDACTED
from razor.growth import Growth
from razor.host import rest_cores
from razor.importing import read_edit
from razor.metrics import Evaluation
from razor.minicanvas.dataset import slug
from razor.patches import Patch
from razor.picture_files import MAX_PROMPT, PictureInfo, Spec, png_bytes
from razor.pictures import cut_notes
from razor.recipe import FORMAT, model_entry, rebound, versions
from razor.run import finish
from razor.scoring import ranked
from razor.sights import answers_of, axis_of_labels
from razor.sources import anchor_of, from_words, is_target, own_task, resolve

KEPT = 3600.0  # seconds an answer's files stay
MOST = 32  # texts or pictures of one prediction
Kind = Literal["object", "style", "person"]
Form = Literal["patch", "peft", "kohya", "full", "single"]
Load = Callable[[str], Adapter]  # model name -> adapter; names what the page serves

# What goes in and comes out, as Gradio tells callers and agents.
_HINTS = get_type_hints(RazorConfig)
Settings = TypedDict("Settings", {field.name: _HINTS[field.name] for field in fields(RazorConfig)}, total=False)


class Ranked(TypedDict):
    unit: str
    kind: str
    pressure: float
    separation: float
    phi: float
    ratio: float
    rank: int


class Scores(TypedDict):
    model: str
    concept: str
    units: list[Ranked]


class Measured(TypedDict):
    value: float
    n: int
    low: float
    high: float


Numbers = TypedDict(
    "Numbers",
    dict.fromkeys(get_type_hints(Evaluation), Measured | None)
    | {"association": float | None, "by_neighbor": dict[str, Measured]},
)


class Told(TypedDict):
    round: int
    accepted: bool
    said: str


class Ended(TypedDict):
    before: Numbers
    after: Numbers
    read_by: str
    reached_on_search_split: bool
    rounds: list[dict]
    seconds: dict[str, float]
    parameters_edited: int
    patch_bytes: int
    machine: str


class File(TypedDict):
    path: str
    url: str | None
    orig_name: str | None
    meta: FileDataMeta


class Sides(TypedDict, total=False):
    before: list[dict[str, float]] | list[str] | list[File]
    after: list[dict[str, float]] | list[str] | list[File]
    notes: list[str]


@contextmanager
def in_words() -> Iterator[None]:
    """An error of the library, or an argument of the wrong type, is told to the caller as one sentence."""
    try:
        yield
    except (RazorError, OSError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    finally:
        rest_cores()


def offered(work: Callable, load: Load) -> Callable:
    """The endpoint as Gradio takes it: the arguments after `load`, each of its type, and what one answer holds."""
    whole = signature(work)
    _, *own = whole.parameters.values()
    streams = get_origin(whole.return_annotation) is Iterator
    answer = get_args(whole.return_annotation)[0] if streams else whole.return_annotation
    asked = whole.replace(parameters=own, return_annotation=answer)

    def run(*args, **kwargs):
        with in_words():
            return work(load, **_typed(asked, args, kwargs))

    def stream(*args, **kwargs):
        with in_words():
            for answer in work(load, **_typed(asked, args, kwargs)):
                rest_cores()  # the next step may be on another thread
                yield answer

    made = stream if streams else run
    made.__name__, made.__doc__, made.__signature__ = work.__name__, work.__doc__, asked
    made.__annotations__ = {p.name: p.annotation for p in own} | {"return": answer}
    return made


def _typed(asked: Signature, args: tuple, kwargs: dict) -> dict:
    """The arguments by name. Raises InputError for one of another type than the signature says."""
    given = asked.bind(*args, **kwargs).arguments
    for name, value in given.items():
        wanted = asked.parameters[name].annotation
        try:  # of what a dictionary holds, whoever reads it says better what is wrong
            TypeAdapter(dict if is_typeddict(wanted) else wanted).validate_python(value, strict=True)
        except ValidationError as error:
            wanted = error.errors()[0]["msg"].removeprefix("Input ")
            raise InputError(f"{name} is {str(value)[:80]!r}; it {wanted}.") from error
    return given


# ---------------------------------------------------------------- the endpoints
# Gradio tells callers and agents what each argument is from one line of these docstrings.


def score(
    load: Load,
    model: str = "mini-clip",
    forget: str = "",
    concept: str = "",
    forget_pictures: list[dict] = [],  # noqa: B006  Gradio shows the default, and nothing changes it
    retain_pictures: list[dict] = [],  # noqa: B006
    settings: Settings = {},  # noqa: B006
    kind: Kind = "object",
    anchor: str | None = None,
    labels: list[str] = [],  # noqa: B006
    drawn_too: bool = False,
) -> Scores:
    """Rank every head and MLP by how well an edit there would forget without disturbing what is kept.

    Args:
        model: a model this page serves, such as mini-clip.
        forget: a class of the bundled world, such as style:neon; empty for pictures or words.
        concept: what own pictures show; alone, a model that draws makes the pictures itself.
        forget_pictures: pictures of the concept, three at least.
        retain_pictures: pictures of what must stay; default the bundled world, or what a model of another one draws.
        settings: any of RazorConfig by name, such as {"alpha": 0.5}.
        kind: what the concept is: object, style or person.
        anchor: what a model that draws puts in its place; default what the kind is in general, "" for nothing.
        labels: classes to measure against or to keep; default those the pictures bring, or names like the concept.
        drawn_too: a model that draws adds what it draws of the concept's name to own pictures.

    Returns:
        model, concept and units, highest phi first.
    """
    config = RazorConfig.from_json(settings)
    adapter = load(model)
    named = {"concept": concept, "kind": kind, "anchor": anchor, "labels": labels, "seed": config.seed}
    task = _task(adapter, forget, forget_pictures, retain_pictures, drawn_too, named)
    scores = ranked(Growth(adapter, task, config).scores())
    units = [{**vars(s), "unit": s.unit.name, "kind": s.unit.kind} for s in scores]
    return {"model": adapter.name, "concept": task.concept, "units": units}


def unlearn(
    load: Load,
    model: str = "mini-clip",
    forget: str = "",
    concept: str = "",
    forget_pictures: list[dict] = [],  # noqa: B006
    retain_pictures: list[dict] = [],  # noqa: B006
    settings: Settings = {},  # noqa: B006
    kind: Kind = "object",
    anchor: str | None = None,
    labels: list[str] = [],  # noqa: B006
    drawn_too: bool = False,
) -> Iterator[tuple[Told | Ended, File | None]]:
    """Forget, round by round, then measure on the test split.

    Args:
        model: a model this page serves, such as mini-clip.
        forget: a class of the bundled world, such as style:neon; empty for pictures or words.
        concept: what own pictures show; alone, a model that draws makes the pictures itself.
        forget_pictures: pictures of the concept, three at least.
        retain_pictures: pictures of what must stay; default the bundled world, or what a model of another one draws.
        settings: any of RazorConfig by name, such as {"rounds": 6}.
        kind: what the concept is: object, style or person.
        anchor: what a model that draws puts in its place; default what the kind is in general, "" for nothing.
        labels: classes to measure against or to keep; default those the pictures bring, or names like the concept.
        drawn_too: a model that draws adds what it draws of the concept's name to own pictures.

    Returns:
        After each round what it did and no file; at last what run.json holds, and the patch.
    """
    config = RazorConfig.from_json(settings)
    adapter = load(model)
    named = {"concept": concept, "kind": kind, "anchor": anchor, "labels": labels, "seed": config.seed}
    growth = Growth(adapter, _task(adapter, forget, forget_pictures, retain_pictures, drawn_too, named), config)
    if not growth.known:
        raise InputError(f"The unedited model does not know {growth.task.concept!r}: there is nothing to forget.")
    for done in growth.run():
        yield {"round": done.index, "accepted": done.accepted, "said": done.reason}, None
    run = finish(growth)
    with taken_away(_home()) as home:
        path = home / f"{file_name(growth)}.safetensors"
        size = run.patch.save(path)
    yield run.to_json(size), _file(path)


def predict(
    load: Load,
    texts: list[str],
    model: str = "mini-clip",
    pictures: list[dict] = [],  # noqa: B006
    patch: dict | None = None,
    seed: int = 0,
    anyway: bool = False,
) -> Sides:
    """What a model says or draws before and after a patch.

    Args:
        texts: labels for a CLIP to choose from; prompts to draw; one question for all pictures, or one for each.
        model: a model this page serves.
        pictures: what a CLIP or a model that answers is shown; none for a model that draws.
        patch: the file unlearn gave, or a LoRA; without it only "before" is answered.
        seed: of the first prompt's noise; the next ones count on.
        anyway: take a patch that was made for other weights of the same shapes, too.

    Returns:
        before and after: for a CLIP {label: probability} of each picture, answers, or drawn pictures as files; notes:
        what of prompts that are too long a model that draws does not read, where there are such.
    """
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts) or len(texts) > MOST:
        raise InputError(f"texts must be 1 to {MOST} texts with something in them.")
    if len(pictures) > MOST:
        raise InputError(f"Up to {MOST} pictures are looked at in one call, and there are {len(pictures)}.")
    adapter = load(model)
    edits = [Patch()] + ([] if patch is None else [_edit(adapter, patch, anyway)])
    found = _PREDICT[adapter.family](adapter, texts, pictures, edits, seed)
    notes = cut_notes(adapter, texts) if adapter.family == "diffusion" else []
    return dict(zip(("before", "after"), found, strict=False)) | ({"notes": notes} if notes else {})


def export(
    load: Load,
    patch: dict,
    model: str = "mini-clip",
    form: Form = "patch",
    rank: int = 0,
    redacted: bool = False,
    anyway: bool = False,
) -> File:
    """The edit as a file other programs load, loaded again to see that it is the edited model.

    Args:
        patch: the file unlearn gave, or a LoRA.
        model: the model it was made for.
        form: patch, peft or kohya (a LoRA), full or single (the whole model).
        rank: of a LoRA at most; 0 for as high as makes it exact.
        redacted: a whole model that says nothing of the edit.
        anyway: take a patch that was made for other weights of the same shapes, too.

    Returns:
        The file.
    """
    if redacted and form not in ("full", "single"):
        raise InputError(f"redacted is for the forms full and single alone, not {form}. {WHY_REDACTED}")
    adapter = load(model)
    edit = _edit(adapter, patch, anyway)
    if adapter.family not in FORMS[form][1]:
        raise InputError(f"There is no form {form!r} for {adapter.name}.")
    name = unnamed(adapter) if redacted else slug(Path(str(patch.get("orig_name") or "edited")[:100]).stem)
    options = {"rank": rank} if rank else {}
    with taken_away(_home()) as home:
        made = write(adapter, edit, home, name or "edited", form, options, redacted, lambda: False)
        return _file(packed(made[0].path))


def add(load: Load, queue: dict[str, Any]) -> None:
    """Add the endpoints to the Blocks being built.

    Args:
        load: model name -> adapter; names what this page serves.
        queue: which queue slot they share with the page.
    """
    for work in (score, unlearn, predict, export):
        gr.api(offered(work, load), api_name=work.__name__, api_description=_described(work), **queue)


# ---------------------------------------------------------------- examples


def _task(adapter: Adapter, forget: str, forget_pictures, retain_pictures, drawn_too: bool, named: dict) -> Task:
    """The task behind a target, own pictures or words.

    Args:
        named: concept, kind, anchor, labels and seed, as `sources` takes them.
    """
    if forget and forget_pictures:
        raise InputError("Give forget, or pictures of your own with a concept, not both.")
    if forget and named["concept"]:
        raise InputError("Give forget, or a concept in words, not both.")
    if forget_pictures:
        kept = read_files(_paths(retain_pictures)).examples if retain_pictures else ()
        shown = read_files(_paths(forget_pictures)).examples
        anchored = {**named, "anchor": anchor_of(named["anchor"], named["kind"])}
        return own_task(shown, kept, **anchored, adapter=adapter, drawn_too=drawn_too)
    if is_target(forget):
        task, unused = resolve(forget, **named, adapter=adapter)
        if unused:
            raise InputError(" ".join(unused))
        return task
    if forget:
        raise InputError(f"forget is {forget!r}; write axis:name, such as object:cat, or leave it empty.")
    if not named["concept"].strip():
        raise InputError("Say what to forget: forget='object:cat', pictures, or a concept in words.")
    try:
        return from_words(adapter, **named)
    except InputError as error:
        here = " Here: forget_pictures=[handle_file(...)]." if "--forget" in str(error) else ""
        raise InputError(f"{error}{here}") from error


# ---------------------------------------------------------------- predictions


def _recognised(adapter, labels: Sequence[str], pictures, edits: Sequence[Patch], _seed: int) -> list[list[dict]]:
    axis = axis_of_labels(labels)
    asked = [(axis, e) for e in _shown(pictures)]
    return [
        [dict(zip(axis.classes, map(float, found), strict=True)) for found in answers_of(adapter, edit, asked)]
        for edit in edits
    ]


def _answered(adapter, questions: Sequence[str], pictures, edits: Sequence[Patch], _seed: int) -> list[list[str]]:
    shown = _shown(pictures)
    if len(questions) not in (1, len(shown)):
        raise InputError(f"Give one question, or one for each of the {len(shown)} pictures; got {len(questions)}.")
    each = questions if len(questions) == len(shown) else [questions[0]] * len(shown)
    asked = [Question(e.image, text) for e, text in zip(shown, each, strict=True)]
    answered = answer_table(adapter, asked, (edits[0], edits[-1]))
    return [[a.said[side] for a in answered] for side in range(len(edits))]


def _drawn(adapter, prompts: Sequence[str], pictures, edits: Sequence[Patch], seed: int) -> list[list[dict]]:
    if pictures:
        raise InputError(f"{adapter.name} draws from words alone; leave the pictures out.")
    if long := next((prompt for prompt in prompts if len(prompt) > MAX_PROMPT), None):
        raise InputError(f"A prompt has {len(long):,} characters; up to {MAX_PROMPT:,} are read.")
    if not 0 <= seed < 2**53:
        raise InputError(f"seed is {seed!r}; it must be a whole number from 0.")
    specs = [Spec(prompt, seed + i, adapter.steps, adapter.guidance, adapter.side) for i, prompt in enumerate(prompts)]
    model = {"format": FORMAT, "model": model_entry(adapter), "versions": versions()}
    unedited = {**model, **{key: value for key, value in edits[-1].recipe.items() if key == "task"}}
    with taken_away(_home()) as home:
        sides = []
        for name, edit in zip(("before", "after"), edits, strict=False):
            recipe, key = (dict(edit.recipe) or model, edit.key()) if edit.deltas else (unedited, "")
            told = {"shown": "edited" if key else "original", "edit": key, "recipe": recipe}
            with edit.applied(adapter.model):
                images = [image for part in adapter.batches(specs) for image in _together(adapter, part)]
            paths = [home / f"{name}-{i}.png" for i in range(len(images))]
            for image, spec, path in zip(images, specs, paths, strict=True):
                path.write_bytes(png_bytes(image, PictureInfo(spec, adapter.name, adapter.fingerprint(), **told)))
            sides.append([_file(path) for path in paths])
        return sides


def _together(adapter, specs: Sequence[Spec]) -> list:
    return adapter.draw([spec.prompt for spec in specs], [spec.seed for spec in specs])


_PREDICT = {"clip": _recognised, "vlm": _answered, "diffusion": _drawn}


def _shown(pictures: Sequence[dict]):
    if not pictures:
        raise InputError("There is no picture to look at; send some with handle_file.")
    paths = [_path(file) for file in pictures]
    found = collect(((f"{i}-{path.name}", path) for i, path in enumerate(paths)), {})
    if len(found.examples) < len(paths):
        raise InputError(" ".join(found.warnings) or "Some of the pictures are the same; send each once.")
    return found.examples


# ---------------------------------------------------------------- files


def _edit(adapter: Adapter, file: dict, anyway: bool) -> Patch:
    """The patch or LoRA in a file, bound to the model.

    Raises:
        PatchError: it was made for other weights and is not to be taken anyway, or cannot be read.
    """
    path = _path(file)
    try:
        return read_edit(path, adapter).bound_to(adapter.model)
    except OtherWeightsError as error:
        if not anyway:
            raise OtherWeightsError(f"{error} With anyway=True it is taken all the same.") from error
        return rebound(read_edit(path, adapter, anyway=True), adapter)


def _paths(files: Sequence[dict]) -> list[str]:
    return [str(_path(file)) for file in files]


def _path(file: dict) -> Path:
    """Where an uploaded file lies; nothing else on this machine can be named."""
    place = file.get("path") if isinstance(file, dict) else None
    known = isinstance(place, str) and "\0" not in place and is_in_or_equal(place, get_upload_folder())
    if not known or not Path(place).is_file():
        raise InputError("A file must be sent along: with gradio_client, handle_file('its/path').")
    return Path(place)


def _file(path: Path) -> dict:
    return FileData(path=str(path), orig_name=path.name).model_dump()


def _home() -> Path:
    """A folder for an answer's files, for a while."""
    root = Path(get_upload_folder())
    root.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix=OWN, dir=root))
    ended = threading.Timer(KEPT, shutil.rmtree, (home,), {"ignore_errors": True})
    ended.daemon = True
    ended.start()
    return home


def _described(work: Callable) -> str:
    return " ".join((work.__doc__ or "").split("\n\n")[0].split())
