"""The examples panel: what to forget, what to keep, and the pictures of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio as gr

from components.cards import cards, cards_value
from razor.errors import ExampleError
from razor.examples import Example, Loaded, Task, collect, load_examples, read_table, shared_pictures
from razor.minicanvas.dataset import AXES, Target, neighbours, parse_target, slug, targets
from razor.minicanvas.tasks import example
from razor.picture_files import image_url
from razor.sources import WORLD, made_of, own_and_drawn
from razor.words import GENERAL

SHOWN = 9  # pictures of each set in the gallery; one row on a wide page


@dataclass(frozen=True)
class WordsPanel:
    """The widgets of forgetting from words alone; shown for models that draw."""

    box: gr.Accordion
    concept: gr.Textbox
    kind: gr.Dropdown
    anchor: gr.Textbox
    keep: gr.Textbox
    suggest: gr.Button
    use: gr.Button
    stop: gr.Button


@dataclass(frozen=True)
class ExamplesPanel:
    """The widgets this panel owns."""

    target: gr.Dropdown
    story: gr.Button
    stop: gr.Button
    status: gr.HTML
    offer: gr.Column
    offer_text: gr.HTML
    take_back: gr.Button
    discard: gr.Button
    token: gr.BrowserState
    gallery: gr.HTML
    forget_files: gr.File
    retain_files: gr.File
    concept: gr.Textbox
    labels: gr.Textbox
    own_anchor: gr.Textbox
    own_kind: gr.Dropdown
    own_named: gr.Checkbox
    captions: gr.Dataframe
    own_suggest: gr.Button
    use_own: gr.Button
    use_bundled: gr.Button

    def fitted(self) -> list[gr.components.Component]:
        """What is shown for models that draw, and some of it for those that answer."""
        return [self.own_anchor, self.own_kind, self.own_named, self.own_suggest]


def build_offer() -> tuple:
    """Rounds of an earlier page of this browser, offered back; hidden while there are none."""
    with gr.Column(visible=False, elem_id="offer", elem_classes="panel") as offer:
        text = gr.HTML(apply_default_css=False)
        with gr.Row():
            take = gr.Button("Take them back", variant="primary", size="sm", elem_id="take-back")
            drop = gr.Button("Discard", size="sm", elem_id="discard")
    return offer, text, take, drop, gr.BrowserState("", storage_key="razor-studio", secret="razor-studio")


def offer_html(note: Mapping[str, str]) -> str:
    """What is offered back."""
    rounds = f"{note['rounds']} round{'' if int(note['rounds']) == 1 else 's'}"
    more = " and one under way" if note.get("under_way") else ""
    stack = f", with {note['stack']} on the stack" if note.get("stack") else ""
    said = f"You left {rounds}{more} on forgetting {note['concept']} in {note['model']}{stack}."
    return f'<p class="offer"><strong>Go on where you were?</strong> {escape(said)}</p>'


def build_target(target: str = "object:cat") -> tuple[gr.Dropdown, gr.Button, gr.Button, gr.HTML]:
    """What to forget and the one primary button."""
    with gr.Column(elem_classes="panel"):
        menu = gr.Dropdown(
            choices=[(f"{t.name}  ({t.axis})", str(t)) for t in targets()],
            value=target,
            label="Make it forget",
            info="Anything of the bundled world; your own pictures below",
            elem_id="target",
            filterable=True,
        )
        story = gr.Button(story_label(target), variant="primary", elem_classes="primary-action", elem_id="story")
        stop = gr.Button("Stop", size="sm", elem_id="story-stop")
        status = gr.HTML(apply_default_css=False, elem_id="story-status")
    return menu, story, stop, status


def build_own() -> tuple:
    """Own pictures: files, concept, labels, editable captions."""
    with gr.Accordion("Use your own pictures", open=False, elem_id="own"):
        gr.Markdown(
            "Ten or more pictures of what to forget work best; three are the least. Captions come from a "
            "`metadata.jsonl` or `metadata.csv`, else from the file names, and can be edited below. "
            "Pictures stay on this machine and go when you leave."
        )
        types = ["image", ".zip", ".csv", ".jsonl"]
        with gr.Row():
            forget = gr.File(file_count="multiple", file_types=types, label="Forget pictures", elem_id="own-forget")
            retain = gr.File(
                file_count="multiple", file_types=types, label="Retain pictures (optional)", elem_id="own-retain"
            )
        with gr.Row():
            concept = gr.Textbox(
                label="What the forget pictures show", placeholder="red bicycle", elem_id="own-concept"
            )
            anchor = gr.Textbox(
                GENERAL["object"],
                label="Draw instead",
                placeholder="Nothing: left out",
                visible=False,
                elem_id="own-anchor",
            )
            kind = gr.Dropdown(
                [*GENERAL],
                value="object",
                label="What it is",
                info="Decides in which words the model is asked",
                visible=False,
                elem_id="own-kind",
            )
        labels = gr.Textbox(
            label="Labels to tell it from (optional)",
            placeholder="red bicycle, blue bicycle, scooter",
            info="Comma-separated. Default: the retain captions, else the bundled world or what the model draws",
            elem_id="own-labels",
        )
        named = gr.Checkbox(
            False,
            label="Draw it from its name too",
            info="The model draws what it knows of the name, to forget beside your pictures, and of labels to keep",
            visible=False,
            elem_id="own-named",
        )
        captions = gr.Dataframe(
            headers=["set", "file", "caption"],
            datatype=["str", "str", "str"],
            type="array",
            static_columns=[0, 1],
            interactive=True,
            visible=False,
            wrap=True,
            label="Captions",
            elem_id="own-captions",
        )
        with gr.Row(elem_classes="actions"):
            suggest = gr.Button("Suggest labels", size="md", visible=False, elem_id="own-suggest")
            use = gr.Button("Use these pictures", size="md", elem_id="use-own")
            back = gr.Button("Back to the bundled world", size="md", elem_id="use-bundled")
    return forget, retain, concept, labels, anchor, kind, named, captions, suggest, use, back


def build_words(visible: bool = False) -> WordsPanel:
    """A name is enough: the model draws what it knows of it, and of what must stay."""
    with gr.Accordion("Forget from words alone", open=False, visible=visible, elem_id="words") as box:
        gr.Markdown(
            "Name it; the model draws the pictures to work with, of the concept and of what must stay, and says so. "
            "The suggested neighbours are the names its text encoder finds most alike; edit them as you like."
        )
        with gr.Row():
            concept = gr.Textbox(label="Forget", placeholder="neon", elem_id="words-concept")
            kind = gr.Dropdown(
                [("Object or animal", "object"), ("Style or artist", "style"), ("Person", "person")],
                value="object",
                label="It is",
                elem_id="words-kind",
            )
            anchor = gr.Textbox(
                GENERAL["object"],
                label="Draw instead",
                placeholder="Nothing: left out",
                elem_id="words-anchor",
            )
        keep = gr.Textbox(
            label="Keep",
            placeholder="Suggested when empty",
            info="Names, separated by commas; the first to suffer come first",
            elem_id="words-keep",
        )
        with gr.Row(elem_classes="actions"):
            suggest = gr.Button("Suggest neighbours", size="md", elem_id="words-suggest")
            use = gr.Button("Draw pictures and use them", size="md", elem_id="words-use")
            stop = gr.Button("Stop drawing", size="md", elem_id="words-stop")
    return WordsPanel(box, concept, kind, anchor, keep, suggest, use, stop)


def story_label(target: str) -> str:
    """The primary button's words."""
    return f"Forget {parse_target(target).name} and compare"


def bundled_gallery(target: Target) -> dict:
    """Some forget pictures, the neighbours and other retain pictures of a bundled target; draws only these."""
    forget = [example(labels, "gradient", i) for labels, i in _kinds(target, target.name, SHOWN)]
    half = SHOWN // 2
    counts = zip(neighbours(target), (SHOWN - half, half), strict=True)
    near = [example(labels, "gradient", i) for name, n in counts for labels, i in _kinds(target, name, n)]
    others = [name for name in AXES[target.axis] if name != target.name and name not in neighbours(target)]
    rest = [example(labels, "gradient", i) for name in others[:SHOWN] for labels, i in _kinds(target, name, 1)]
    return gallery_value(
        [
            ("Forget set", "forget", f"pictures of {target.name}", forget),
            ("Nearest neighbours", "neighbour", "most likely to suffer: " + ", ".join(neighbours(target)), near),
            ("Retain set", "retain", "everything else of the bundled world", rest),
        ],
        f"Forget {target.name}; keep {sum(map(len, AXES.values())) - 1} other objects, styles and people.",
    )


def drawn_by(task: Task | None) -> str:
    """The model that drew pictures of this task, which mean nothing to another; "" where none did."""
    origin = task.origin if task else {}
    drawn = [said for side in ("retain", "named") if (said := origin.get(side, "")).startswith("drawn by ")]
    return drawn[0].removeprefix("drawn by ").removesuffix(" itself") if drawn else ""


def task_gallery(task: Task) -> dict:
    """The sets of a task that is not the bundled world's: a person's own, or what a model drew for a name."""
    own = not task.origin.get("forget", "").startswith("drawn from")
    return own_gallery(task) if own else drawn_gallery(task, drawn_by(task))


def own_gallery(task: Task) -> dict:
    """The person's own sets, with how they are cut."""
    split, model, named = task.forget, drawn_by(task), made_of(task)
    own, drawn = own_and_drawn(task)
    counts = f"{len(split.gradient)} for gradients, {len(split.search)} for step search, {len(split.test)} for results"
    retain = () if task.origin.get("retain") == WORLD else task.retain.all()
    note = f"{len(retain)} pictures{f' drawn by {model} itself' if model and not named else ''}"
    kept = "" if retain else " What is kept is the bundled world, as rendered."
    whole = f"{len(own)} pictures to forget, cut into three sets that share none.{kept}"
    return gallery_value(
        [
            ("Forget set", "forget", f"{len(own)} pictures{'' if named else f': {counts}'}", own[:SHOWN]),
            ("Drawn from the name", "forget", f"{len(drawn)} prompts drawn by {model} itself", drawn[:SHOWN]),
            ("Retain set", "retain", note, retain[:SHOWN]),
        ],
        named or whole,
    )


def drawn_gallery(task: Task, model: str) -> dict:
    """The sets a model drew for a name, and what in them it takes the likeliest neighbours to be."""
    near = [e for e in task.retain.all() if e.labels.get(task.axis) in task.neighbours]
    rest = [e for e in task.retain.all() if e.labels.get(task.axis) not in task.neighbours]
    own = f"drawn by {model} from the name alone"
    return gallery_value(
        [
            ("Forget set", "forget", own, task.forget.all()[:SHOWN]),
            ("Nearest neighbours", "neighbour", ", ".join(task.neighbours), near[:SHOWN]),
            ("Retain set", "retain", own.replace("the name alone", "prompts of other things"), rest[:SHOWN]),
        ],
        f"{len(task.forget.all())} pictures of {task.concept}, {len(task.retain.all())} to keep, all drawn by {model}.",
    )


def gallery_value(groups: Sequence[tuple[str, str, str, Sequence[Example]]], finding: str) -> dict:
    """Groups of (title, kind, note, examples) as the gallery shows them."""
    return cards_value(
        [
            {
                "title": title,
                "kind": kind,
                "note": note,
                "cards": [{"image": image_url(e.image, 128), "title": e.caption, "bars": []} for e in examples],
            }
            for title, kind, note, examples in groups
            if examples
        ],
        finding,
        empty="Pick a target, or use your own pictures.",
    )


def gallery(target: str = "object:cat") -> gr.HTML:
    """The gallery widget, filled for a first target."""
    return cards("gallery", bundled_gallery(parse_target(target)))


def read_files(paths: Sequence[str] | None) -> Loaded:
    """Uploaded pictures, zips and tables as one set.

    A table names pictures uploaded beside it. Nothing is extracted or copied.

    Raises:
        ExampleError: nothing usable.
    """
    files = [Path(path) for path in paths or []]
    tables = [p for p in files if p.suffix.lower() in (".csv", ".jsonl")]
    archives = [p for p in files if p.suffix.lower() == ".zip"]
    pictures = [p for p in files if p not in tables and p not in archives]
    loaded = [load_examples(archive) for archive in archives]
    captions: dict[str, str] = {}
    for table in tables:
        captions |= {
            Path(k).name: v for k, v in read_table(table.read_text("utf-8-sig", "replace"), table.name).items()
        }
    if pictures:
        loaded.append(collect(((p.name, p) for p in pictures), captions))
    if not loaded:
        raise ExampleError("No picture was uploaded; add at least three pictures, or a zip of them.")
    examples = tuple(e for part in loaded for e in part.examples)
    return Loaded(examples, tuple(w for part in loaded for w in part.warnings))


def caption_rows(forget: Sequence[Example], retain: Sequence[Example]) -> list[list[str]]:
    """Rows of the caption table; set, number and file name together tell which picture a row belongs to."""
    sets = (("forget", forget), ("retain", retain))
    return [[side, name, e.caption] for side, es in sets for name, e in zip(_numbered(es), es, strict=True)]


def with_captions(examples: Sequence[Example], rows: Sequence[Sequence[str]], side: str) -> tuple[Example, ...]:
    """The examples with the captions a person typed; rows may come in any order."""
    typed = {str(row[1]): str(row[2] or "").strip() for row in rows if len(row) >= 3 and row[0] == side}
    named = zip(_numbered(examples), examples, strict=True)
    return tuple(Example(e.image, typed.get(name) or e.caption, e.labels, e.source) for name, e in named)


def _numbered(examples: Sequence[Example]) -> list[str]:
    """File names made distinct by a number, since two folders may hold the same name."""
    return [f"{i}  {e.source}" for i, e in enumerate(examples, 1)]


def data_warnings(forget: Sequence[Example], retain: Sequence[Example]) -> list[str]:
    """What a careful colleague would say of the two sets before anything is run."""
    found = []
    if 0 < len(forget) < 10:
        found.append(f"Only {len(forget)} forget pictures: results will have wide intervals.")
    if retain and len(retain) < 10:
        found.append(f"Only {len(retain)} retain pictures: what is not shown may suffer.")
    if shared := shared_pictures(forget, retain):
        found.append(f"{len(shared)} pictures stand in both sets, {shared[0].source} among them; remove them from one.")
    return found


def _kinds(target: Target, name: str, count: int) -> list[tuple[dict[str, str], int]]:
    """(labels, index) of `count` pictures of one class, spread over the other axis."""
    if target.axis == "identity":
        return [({"identity": name}, i) for i in range(count)]
    other = "style" if target.axis == "object" else "object"
    offset = len(slug(name))  # so that a row of single pictures does not share one style
    kinds = [AXES[other][(offset + i) % len(AXES[other])] for i in range(count)]
    return [({"object": k, "style": name} if other == "object" else {"object": name, "style": k}, 0) for k in kinds]
