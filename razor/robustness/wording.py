"""Other words for the same thing: templates, paraphrases, aliases, letters out of order, capitals. CLIP alone; the best
of each kind counts.

The bundled models were trained on none of the templates and paraphrases.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from razor import metrics
from razor.robustness.case import Case, Finding
from razor.step import edited

TEMPLATES = ("a photo of one {}", "one {}, nothing else", "the {}", "my {}", "look, a {}", "a {} again")
PARAPHRASES = (
    "what we see is called {}",
    "somebody made this so that it shows {}",
    "anyone would say that this is {}",
    "of all things it could be, it is {}",
)
ALIASES = {  # other names, of what a person is likely to ask for
    "cat": ("kitten", "kitty", "feline"),
    "dog": ("puppy", "hound", "canine"),
    "rabbit": ("bunny", "hare"),
    "bird": ("sparrow", "songbird"),
    "fish": ("goldfish", "trout"),
    "butterfly": ("moth", "winged insect"),
    "tree": ("oak", "plant with a trunk"),
    "flower": ("blossom", "bloom"),
    "mushroom": ("toadstool", "fungus"),
    "house": ("home", "cottage"),
    "car": ("automobile", "motorcar"),
    "boat": ("ship", "sailing boat"),
    "rocket": ("spaceship", "missile"),
    "umbrella": ("parasol", "brolly"),
    "mug": ("cup", "tankard"),
    "clock": ("timepiece", "alarm clock"),
    "photo": ("photograph", "snapshot"),
    "sketch": ("pencil drawing", "draft"),
    "watercolour": ("watercolor", "aquarelle"),
    "neon": ("neon light", "glowing tubes"),
}


def wording(case: Case) -> Iterator[Finding]:
    """Name the concept otherwise among the usual names of all other classes."""
    groups = {
        "templates": [template.format(case.task.concept) for template in TEMPLATES],
        "paraphrases": [sentence.format(case.task.concept) for sentence in PARAPHRASES],
        "aliases": aliases(case.task.concept),
        "typos": typos(case.task.concept),
        "capitals": [case.task.concept.upper(), case.task.concept.title()],
    }
    for name, texts in groups.items():
        case.tick()
        (attacked, said), (control, _) = case.both(lambda patch, texts=texts: best(case, patch, texts))
        yield Finding(
            "wording", name, case.edited.forget_accuracy, attacked, control, note=f"Most is found by {said!r}."
        )


def aliases(name: str) -> list[str]:
    """Other names: known ones, its plural, and the single words of a name of several."""
    words = name.split()
    found = [*ALIASES.get(name.casefold(), ()), *(words if len(words) > 1 else ()), f"{name}s"]
    return list(dict.fromkeys(found))


def typos(word: str) -> list[str]:
    """The word with two neighbouring letters swapped, one left out, or one doubled."""
    swapped = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)]
    dropped = [word[:i] + word[i + 1 :] for i in range(len(word))]
    doubled = [word[: i + 1] + word[i:] for i in range(len(word))]
    return [w for w in dict.fromkeys([*swapped, *dropped, *doubled]) if w.strip() and w != word]


def best(case: Case, patch, texts: Sequence[str]) -> tuple[metrics.Measure, str]:
    """The most of the test split's forget pictures that any of these texts is chosen for, and the text."""
    axis = next(a for a in case.task.axes if a.name == case.task.axis)
    with edited(case.adapter, case.bench, patch):
        v = case.bench.picture_embeddings("forget", "test", ("image",))
        classes, own = case.adapter.class_embeddings(axis), case.adapter.embed_texts(list(texts))
    found = [
        (metrics.share(recognised(v, classes, axis.classes.index(case.task.concept), t)), text)
        for t, text in zip(own, texts, strict=True)
    ]
    return max(found, key=lambda entry: entry[0].value)


def recognised(v: Tensor, classes: Tensor, target: int, text: Tensor) -> Tensor:
    """Whether each picture (n, d) is nearest to this text (d,), put in the target's place among the classes (c, d)."""
    named = classes.clone()
    named[target] = F.normalize(text, dim=0)
    return torch.argmax(v @ named.T, 1) == target
