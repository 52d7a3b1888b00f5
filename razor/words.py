"""Forget from words alone: prompts from templates, pictures drawn by the model itself, neighbours suggested.

A concept's name is enough. Forget prompts name it in several sentences; their anchors say the same without it, or with
what it is in general. Retain prompts name its likeliest neighbours and a spread of other things. The pictures to take
gradients on are drawn by the unedited model, which says what it knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from PIL import Image

from razor.adapters.diffusion import DiffusionAdapter, seeds_for
from razor.errors import InputError, Stopped
from razor.examples import Axis, Example, Split, Task, evenly, varied
from razor.memory import enough_memory
from razor.minicanvas import captions, tasks
from razor.minicanvas.dataset import AXES, Target, neighbours, slug
from razor.patches import model_lock

SIZES = {"gradient": (48, 96), "search": (20, 40), "test": (20, 40)}  # split -> forget and retain pictures drawn
LEARNED = ("gradient", "search")  # splits whose pictures are looked at even where a judge reads the results
NEIGHBOURS = 6  # names suggested as the likeliest to suffer
OTHERS = 10  # further names kept, from all over the vocabulary
_SCENES = ("a house", "a tree", "a cat", "a boat", "a bowl of fruit", "a street", "a mountain", "a flower")

# kind -> (sentence with the name {c}, its anchor with what it is in general {a})
_TEMPLATES = {
    "object": (
        ("a picture of {c}", "a picture of {a}"),
        ("a photo of {c}", "a photo of {a}"),
        ("{c}", "{a}"),
        ("a painting of {c}", "a painting of {a}"),
        ("a photo of {c} outdoors", "a photo of {a} outdoors"),
    ),
    "style": (
        ("{x} in the style of {c}", "{x}"),
        ("a picture of {x}, {c} style", "a picture of {x}"),
        ("{c} style picture of {x}", "a picture of {x}"),
    ),
    "person": (
        ("a portrait of {c}", "a portrait of {a}"),
        ("a photo of {c}", "a photo of {a}"),
        ("{c}", "{a}"),
        ("{c} smiling", "{a} smiling"),
    ),
}
GENERAL = {"object": "something", "style": "", "person": "a person"}  # kind -> what stands in for one of it
_VOCABULARY = {
    "object": (
        "a cat", "a dog", "a horse", "a cow", "a bird", "a fish", "a bear", "an elephant", "a frog", "a butterfly",
        "a tree", "a flower", "a house", "a castle", "a church", "a bridge", "a car", "a bus", "a bicycle", "a train",
        "an aeroplane", "a boat", "a chair", "a table", "a lamp", "a clock", "a book", "a cup", "a bottle", "a hat",
        "a shoe", "an apple", "a banana", "a cake", "a sandwich", "a guitar", "a football", "an umbrella", "a mountain",
        "a waterfall", "a beach", "a street", "a garden", "a robot", "a statue", "a phone", "a computer",
        "a garbage truck",
        "a parachute", "a church organ",
    ),
    "style": (
        "Van Gogh", "Monet", "Picasso", "Rembrandt", "Hokusai", "Warhol", "Dali", "Kandinsky", "Klimt", "Vermeer",
        "watercolour", "pencil sketch", "oil painting", "pop art", "pixel art", "mosaic", "woodcut", "stained glass",
        "blueprint", "comic book", "graffiti", "neon", "vintage photograph", "cubism", "impressionism", "ukiyo-e",
    ),
    "person": (
        "Marie Curie", "Albert Einstein", "Frida Kahlo", "Abraham Lincoln", "Queen Victoria", "Charles Darwin",
        "Ada Lovelace", "Mahatma Gandhi", "Amelia Earhart", "Isaac Newton", "Cleopatra", "Leonardo da Vinci",
        "a farmer", "a nurse", "a king", "a child", "an old man", "a young woman",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What forgetting a concept from words will use; everything may be edited before pictures are drawn."""

    concept: str
    kind: str
    anchor: str  # what stands in for the concept; "" leaves it out
    neighbours: tuple[str, ...]
    others: tuple[str, ...]


def known_target(concept: str) -> Target | None:
    """The class of the bundled world a name stands for, if any."""
    said = slug(_bare(concept))
    for axis, names in AXES.items():
        for name in names:
            phrase = captions.STYLE_PHRASES.get(name, name) if axis == "style" else name
            if said in (slug(_bare(name)), slug(_bare(phrase))):
                return Target(axis, name)
    return None


def suggest(adapter: DiffusionAdapter, concept: str, kind: str = "object", anchor: str | None = None) -> Plan:
    """Neighbours by how alike the text encoder finds them, and what else to keep.

    Raises:
        InputError: an empty concept or an unknown kind.
    """
    concept = concept.strip()
    if not _bare(concept):
        raise InputError("Say what to forget, in words, such as 'Van Gogh' or 'a garbage truck'.")
    if kind not in GENERAL:
        raise InputError(f"{kind!r} is no kind of thing to forget; choose one of {', '.join(GENERAL)}.")
    known = [name for name in _VOCABULARY[kind] if not _same(concept, name)]
    with model_lock(adapter.model), torch.no_grad(), enough_memory("reading names", "Load the model in half precision"):
        summary = F.normalize(adapter.encode([concept, *known]).states.float().mean(1), dim=-1)
    order = (summary[1:] @ summary[0]).argsort(descending=True).tolist()
    ranked = [known[i] for i in order]
    rest = ranked[NEIGHBOURS:]
    others = tuple(rest[i] for i in evenly(len(rest), OTHERS))
    return Plan(concept, kind, GENERAL[kind] if anchor is None else anchor, tuple(ranked[:NEIGHBOURS]), others)


def _same(concept: str, name: str) -> bool:
    """Whether a name of the vocabulary stands for the concept, for a kind of it, or for what it is a kind of.

    "Vincent van Gogh" is Van Gogh, and "a truck" a garbage truck among others; "a church organ" is no church.
    """
    said, known = _bare(concept), _bare(name)
    return f" {said} " in f" {known} " or f" {said}".endswith(f" {known}")


def _bare(name: str) -> str:
    """A name in lower case without its article or a plural's s, for comparing."""
    words = name.lower().split()
    return " ".join(word.removesuffix("s") for word in words[words[:1] in (["a"], ["an"], ["the"]) :])


def task_of(
    adapter: DiffusionAdapter,
    plan: Plan,
    *,
    seed: int = 0,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Task:
    """Draw the pictures of a plan: a gradient, a search and a test set, no two of them from the same seed.

    Args:
        on_picture: called with how many pictures are drawn and how many there will be.

    Raises:
        InputError: nothing is left to keep, or the concept is to be kept too.
        Stopped: before all were drawn.
    """
    names = [plan.concept, *plan.neighbours, *plan.others]
    if len(names) == 1:
        raise InputError("Nothing is left to keep; name at least one neighbour or other thing.")
    if kept := next((name for name in names[1:] if _bare(name) == _bare(plan.concept)), None):
        raise InputError(f"{kept!r} cannot be forgotten and kept; take it out of what is kept.")
    wanted = {}
    for split, (forget, retain) in SIZES.items():
        wanted["forget", split] = [_asked(plan, plan.concept, split, i) for i in range(forget)]
        kept = _turns(plan.neighbours, plan.others)
        # A sentence further each time round, so that every name is said in every way.
        wanted["retain", split] = [_asked(plan, kept[i % len(kept)], split, i + i // len(kept)) for i in range(retain)]
    drawn = _drawn(adapter, wanted, seed, on_picture, stop)
    forget, retain = (Split(*(drawn[side, split] for split in SIZES)) for side in ("forget", "retain"))
    axis = Axis("label", {name: tuple(_sentence(plan.kind, name, "", i)[0] for i in range(3)) for name in names})
    origin = {"forget": f"drawn from the words {plan.concept!r}", "retain": f"drawn by {adapter.name} itself"}
    return Task(plan.concept, "label", (axis,), plan.neighbours, forget, retain, origin)


def keeping(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan with these names to keep, the first of them as neighbours; without any, as it is."""
    kept = tuple(name.strip() for name in names if name.strip())
    return replace(plan, neighbours=kept[:NEIGHBOURS], others=kept[NEIGHBOURS:]) if kept else plan


def retain_pictures(
    adapter: DiffusionAdapter,
    plan: Plan,
    *,
    seed: int = 0,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Example, ...]:
    """What to keep beside a person's own pictures of a concept: pictures the model draws of the names in the plan.

    Raises:
        Stopped: before all were drawn.
    """
    kept, count = _turns(plan.neighbours, plan.others), sum(retain for _, retain in SIZES.values())
    asked = [_asked(plan, kept[i % len(kept)], "retain", i + i // len(kept)) for i in range(count)]
    return _drawn(adapter, {("retain", "own"): asked}, seed, on_picture, stop)["retain", "own"]


def bundled_task(
    adapter: DiffusionAdapter,
    target: Target,
    *,
    seed: int = 0,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Task:
    """A class of the bundled world from its name alone: its prompts, with pictures the model draws to learn from.

    Of the test split only prompts are used, since a judge looks at what is drawn of them, so it is the world's own.
    """
    whole = tasks.task(target)
    wanted = {}
    for split in LEARNED:
        for side, count in zip(("forget", "retain"), SIZES[split], strict=True):
            examples = getattr(getattr(whole, side), split)
            wanted[side, split] = [examples[i] for i in varied(examples, count)]
    drawn = _drawn(adapter, wanted, seed, on_picture, stop)
    forget, retain = (
        replace(getattr(whole, side), **{split: drawn[side, split] for split in LEARNED})
        for side in ("forget", "retain")
    )
    origin = {"forget": f"drawn from the words {target.name!r}", "retain": f"drawn by {adapter.name} itself"}
    return Task(whole.concept, whole.axis, whole.axes, neighbours(target), forget, retain, origin)


def _asked(plan: Plan, name: str, split: str, number: int) -> Example:
    """One prompt, still without its picture."""
    caption, anchor = _sentence(plan.kind, name, plan.anchor, number)
    forgotten = name == plan.concept
    blank = Image.new("RGB", (8, 8))
    return Example(blank, caption, {"label": name}, f"{split}/{name}/{number}", anchor if forgotten else "")


def _sentence(kind: str, name: str, general: str, number: int) -> tuple[str, str]:
    """A prompt that names the thing, and its anchor."""
    templates = _TEMPLATES[kind]
    sentence, anchor = templates[number % len(templates)]
    scene = _SCENES[number // len(templates) % len(_SCENES)]
    said = sentence.format(c=name, x=scene)
    if general := general.strip():
        return said, sentence.format(c=general, x=scene)
    plain = anchor.replace("of {a}", "").format(a="", x=scene)
    return said, " ".join(plain.split())


def _drawn(adapter, wanted, seed: int, on_picture, stop) -> dict[tuple[str, str], tuple[Example, ...]]:
    """The same examples, each with the picture the model draws of its caption."""
    flat = [(place, e) for place, examples in wanted.items() for e in examples]
    pictures: list[Image.Image] = []
    for part in adapter.batches([e for _, e in flat]):
        seeds = seeds_for([e.source for e in part], seed)
        made = adapter.draw([e.caption for e in part], seeds, steps=adapter.quick_steps, stop=stop)
        if len(made) < len(part):
            raise Stopped("Stopped before all pictures were drawn; nothing was changed.")
        pictures += made
        on_picture(len(pictures), len(flat))
    drawn: dict[tuple[str, str], list[Example]] = {place: [] for place in wanted}
    for (place, e), picture in zip(flat, pictures, strict=True):
        drawn[place].append(replace(e, image=picture))
    return {place: tuple(examples) for place, examples in drawn.items()}


def _turns(neighbours: Sequence[str], others: Sequence[str]) -> list[str]:
    """Neighbours and others taking turns."""
    longest = max(len(neighbours), len(others))
    return [group[i] for i in range(longest) for group in (neighbours, others) if i < len(group)]
