"""What drawn pictures say: the values of the pairs and the sheet, findings, costs, and what a file tells of itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from gradio.utils import get_upload_folder
from PIL import Image

from components.pairs import pairs_value, sheet_value
from components.theme import status_html
from razor import pictures
from razor.adapters.diffusion import DiffusionAdapter
from razor.edit_set import MAX_STRENGTH
from razor.examples import Task
from razor.judges import Judge
from razor.picture_files import Kept, PictureInfo, Spec, image_url
from razor.picture_grid import GridAxis, GridPlan
from razor.pictures import CONCEPT, GROUPS, Prompt
from razor.recipe import task_entry
from razor.sources import is_target
from razor.wording import capital, read_by

AXIS_NAMES = {"seed": "Seed", "strength": "Strength of the edit", "round": "Growth round", "branch": "Branch",
              "guidance": "Guidance", "steps": "Steps"}  # fmt: skip
NO_GRID = "Choose what changes along each axis and press Draw grid."
SKETCH = 128  # pixels of a picture under way
_BAD = ("still drawn", "changed")  # verdicts that come first


def picture_folder() -> Path:
    """Where Gradio serves files from without being told to; see `address`."""
    return Path(get_upload_folder())


def address(kept: Kept) -> str:
    """Where the page finds a picture of `picture_folder`; relative, so that it works below any path."""
    return f"gradio_api/file={quote(kept.path.as_posix(), safe='/:')}"


def sketch_address(image: Image.Image) -> str:
    """The same of a picture under way, which is not worth a file."""
    return image_url(image, SKETCH)


# Pairs ---------------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """One prompt and its two pictures, as far as they are drawn."""

    prompt: Prompt
    spec: Spec
    shown: list[str | None] = field(default_factory=lambda: [None, None])  # addresses, of sketches too
    saw: list[Mapping[str, str] | None] = field(default_factory=lambda: [None, None])  # None while not drawn

    @property
    def whole(self) -> bool:
        """Both pictures are finished."""
        return None not in self.saw

    def verdict(self, task: Task) -> str:
        return pictures.verdict(self.prompt, task, *self.saw) if self.whole else ""

    def take(self, at: int, kept: Kept) -> None:
        """A picture is finished."""
        self.shown[at], self.saw[at] = address(kept), kept.saw

    def sketch(self, at: int, image: Image.Image) -> None:
        """A picture is under way."""
        self.shown[at] = sketch_address(image)

    def let_go(self) -> None:
        """Drop sketches of pictures that will not be finished."""
        self.shown = [url if saw is not None else None for url, saw in zip(self.shown, self.saw, strict=True)]


@dataclass(frozen=True)
class Shown:
    """What the pairs stand for, to tell when the edit has moved on."""

    sides: tuple[str, str]  # as chosen in the menus
    edits: tuple[str, str]  # Patch.key of each


def pairs_shown(
    rows: Sequence[Row],
    task: Task,
    names: tuple[str, str],
    *,
    judge: Judge | None = None,
    original: bool = True,
    progress: Mapping | None = None,
) -> dict:
    """The pairs as the widget takes them; once nothing is being drawn, with the finding and the worst first.

    Args:
        original: the left side is the unedited model.
    """
    groups = []
    for name in ("own", *GROUPS):
        mine = [row for row in rows if row.prompt.group == name]
        if progress is None:
            mine.sort(key=lambda row: row.verdict(task) not in _BAD)
        if mine:
            found = [_pair(row, task) for row in mine]
            groups.append({**_heading(name, task), "kind": pictures.KINDS[name], "pairs": found})
    said = "" if progress else finding(rows, task, names, judge=judge, original=original)
    judged = {"judged": read_by(judge)} if judge else {}
    return pairs_value(groups, said, sides=names, forget_label=task.concept, progress=progress, **judged)


def _pair(row: Row, task: Task) -> dict:
    before, after = (pictures.seen_words(row.prompt, task, saw or {}) for saw in row.saw)
    return {
        "id": row.prompt.key,
        "prompt": row.prompt.text,
        "seed": row.spec.seed,
        "before": row.shown[0],
        "after": row.shown[1],
        "saw_before": before,
        "saw_after": after,
        "verdict": row.verdict(task),
    }


def _heading(name: str, task: Task) -> dict[str, str]:
    near = ", ".join(task.neighbours)
    others = {"object": "Other objects", "style": "Other styles", "identity": "Other people"}
    title, note = {
        "own": ("Your own prompts", ""),
        "target": (f"Target: {task.concept}", "test prompts; suppressed is what was asked for"),
        "paraphrase": ("In other words", "the same asked for in sentences the edit was not made on"),
        "neighbour": ("Nearest neighbours", f"the first to suffer: {near}"),
        "other": (others.get(task.axis, "Others of its kind"), "should be drawn as before"),
        "unrelated": ("Unrelated", "should be drawn as before"),
    }[name]
    return {"title": title, "note": note}


def finding(
    rows: Sequence[Row], task: Task, names: tuple[str, str], *, judge: Judge | None, original: bool = True
) -> str:
    """One sentence over the pairs that are whole; "" where nobody can say what they show."""
    whole = [row for row in rows if row.whole]
    if judge is None or not whole:
        return ""
    verdicts = [row.verdict(task) for row in whole]
    asked, gone = sum(v in ("suppressed", "still drawn") for v in verdicts), verdicts.count("suppressed")
    others, kept = sum(v in ("kept", "changed") for v in verdicts), verdicts.count("kept")
    never = sum(not v and row.prompt.kind in CONCEPT for v, row in zip(verdicts, whole, strict=True))
    parts = []
    if asked and original:
        parts.append(f"{task.concept} is suppressed in {gone} of {asked} picture{'s' if asked > 1 else ''}")
    elif asked:
        drawn = [sum(row.saw[at].get(task.axis) == task.concept for row in whole) for at in range(2)]
        times = [f"{count} time{'' if count == 1 else 's'}" for count in drawn]
        parts.append(f"{names[0]} draws {task.concept} {times[0]} and {names[1]} draws it {times[1]}")
    if others:
        many = "others keep" if others > 1 else "other keeps"
        parts.append(f"{kept} of {others} {many} what {'they show' if others > 1 else 'it shows'}")
    if never:
        parts.append(f"{never} prompt{'s' if never > 1 else ''} did not draw {task.concept} on either side")
    return f"{capital('; '.join(parts))}. {capital(read_by(judge))}." if parts else ""


def notes_html(problems: Sequence[str], remarks: Sequence[str]) -> str:
    """What a person should know of the pairs besides, a line each."""
    return "".join([*(status_html(said, "problem") for said in problems), *map(status_html, remarks)])


def done_text(fresh: int, found: int, total: int, seconds: float, stopped: bool) -> str:
    """What the drawing did and what it took."""
    again = f", {found} known already" if found else ""
    if stopped and fresh + found < total:
        return f"Stopped: {fresh + found} of {total} pictures are drawn and kept."
    many = "1 picture" if fresh == 1 else f"{fresh} pictures"
    return f"{many} drawn in {duration(seconds)}{again}." if fresh else "All pictures were known already."


def duration(seconds: float) -> str:
    """A time in words."""
    if seconds < 1:
        return "less than a second"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def about(seconds: float) -> str:
    """An estimate in words."""
    return f"about {duration(seconds)}" if seconds >= 1 else duration(seconds)


# The grid ------------------------------------------------------------------------------------------------------------


def no_sheet() -> dict:
    """The sheet before anything is drawn."""
    return pairs_value([], empty=NO_GRID)


def cost_text(plan: GridPlan, seconds: float | None) -> str:
    """How many pictures a grid takes and how long that is."""
    passes = sum(pictures.passes(steps, guidance) for steps, guidance, _ in plan.denoised())
    many = "1 picture" if plan.count == 1 else f"{plan.count} pictures"
    took = "" if seconds is None else f": {about(seconds)}"
    return f"{many}, {passes:,} denoiser passes{took}."


@dataclass
class Cell:
    """One picture of a grid, as far as it is drawn."""

    shown: str | None = None  # its address, of a sketch too
    saw: Mapping[str, str] | None = None  # None while not drawn


def sheet_shown(
    plan: GridPlan,
    cells: Mapping[tuple[int, int, int], Cell],
    task: Task,
    progress: Mapping | None = None,
    judge: Judge | None = None,
) -> dict:
    """The grid as the widget takes it; every cell says what a judge saw."""
    prompt = Prompt(plan.prompt, "own", "grid")
    tables, rows, columns = plan.shape

    def cell(place: tuple[int, int, int]) -> dict:
        found = cells.get(place, Cell())
        return {"image": found.shown, "caption": pictures.seen_words(prompt, task, found.saw or {})}

    grid = [[[cell((z, y, x)) for x in range(columns)] for y in range(rows)] for z in range(tables)]
    x, y, z = (_axis_shown(axis) for axis in (plan.x, plan.y, plan.z))
    settings = {
        "seed": f"seed {plan.settings.seed}",
        "steps": f"{plan.settings.steps} steps",
        "guidance": f"guidance {plan.settings.guidance:g}",
    }
    changing = {axis.name for axis in plan.axes}
    note = capital(", ".join(said for name, said in settings.items() if name not in changing)) + "."
    note += f" What a picture shows is {read_by(judge)}." if judge else ""
    sheet = sheet_value(plan.prompt, x, y or {"name": "", "values": [""]}, z, grid, note)
    return sheet | {"progress": pairs_value([], progress=progress)["progress"]}


def _axis_shown(axis: GridAxis | None) -> dict | None:
    if axis is None:
        return None
    write = {"strength": "{:.0%}", "round": "round {}", "guidance": "{:g}"}.get(axis.name, "{}")
    return {"name": AXIS_NAMES[axis.name].lower(), "values": [write.format(value) for value in axis.values]}


# Pictures read back --------------------------------------------------------------------------------------------------


def strengths(info: PictureInfo) -> tuple[float, float]:
    """Of the whole edit, and of the cell of a grid, as the picture's recipe gives them; 1 where it does not."""
    told = _dict(info.recipe, "edit_set").get("strength"), info.recipe.get("strength")
    good = [isinstance(s, int | float) and not isinstance(s, bool) and 0 <= s <= MAX_STRENGTH for s in told]
    whole, cell = (float(s) if fits else 1.0 for s, fits in zip(told, good, strict=True))
    return whole, cell


def restored_text(
    info: PictureInfo,
    adapter: DiffusionAdapter,
    fingerprint: str,
    task: Task,
    edits: Mapping[str, str],
    weaker: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, str]:
    """What a picture said of itself, and what of that is not as it is here.

    Args:
        fingerprint: of this session's model.
        edits: Patch.key of the edit as it stands and of every branch -> what it is called.
        weaker: the same of these edits at the strengths of the picture.

    Returns:
        The sentences, and the tone of status_html.
    """
    set_now = "Prompt, seed, steps, guidance and size are set"
    differs = [*_model_differs(info, adapter, fingerprint), *_task_differs(info, task)]
    here = not differs
    differs += _edit_differs(info, {**edits, **weaker}) if here else []
    if differs:
        return " ".join([f"{set_now}.", *differs, *_way_back(info, here)]), "problem"
    same = "Model and task are the same as here"
    if info.edit in weaker and info.edit not in edits:
        whole, cell = strengths(info)
        return (
            f"{set_now}. {same}, and its edit is {weaker[info.edit]} at a strength of {whole * cell:.0%}: with that "
            "strength of the whole edit on screen 2, Draw both sides repeats the picture."
        ), "ready"
    shown = f"its edit is {edits[info.edit]} here" if info.edit else "it shows the unedited model"
    return f"{set_now}. {same}, and {shown}: Draw both sides repeats the picture.", "ready"


def taken_up_text(info: PictureInfo, model: str, target: str, again: str) -> str:
    """What a picture said of itself, once its model and target are chosen.

    Args:
        again: how a person repeats the edit on screen 2.
    """
    chosen = f"Prompt, seed, steps, guidance and size are set, and {model} and {target} with them"
    if not info.edit:
        return f"{chosen}. It shows the unedited model: Draw both sides repeats the picture."
    whole, cell = strengths(info)
    weaker = "" if whole * cell == 1 else f", at a strength of {whole * cell:.0%}"
    return (
        f"{chosen}, as are the settings of its run. Once its edit is there{weaker}, Draw both sides repeats the "
        f"picture. On screen 2: {again}"
    )


def _model_differs(info: PictureInfo, adapter: DiffusionAdapter, fingerprint: str) -> list[str]:
    if info.fingerprint == fingerprint:
        return []
    if not info.fingerprint:
        return ["The picture does not say which weights drew it."]
    theirs, ours = f"{info.model} ({info.fingerprint[:8]})", f"{adapter.name} ({fingerprint[:8]})"
    return [f"The model differs: {theirs} drew it, and {ours} is loaded here."]


def _task_differs(info: PictureInfo, task: Task) -> list[str]:
    theirs, ours = _dict(info.recipe, "task"), task_entry(task)
    if not theirs:
        return ["The picture carries no task."]
    if (theirs.get("concept"), theirs.get("axis")) != (ours["concept"], ours["axis"]):
        return [f"The task differs: its model forgets {theirs.get('concept')!s:.80}, here {task.concept}."]
    sets = [
        f"{side} {split}"
        for side, splits in ours["examples"].items()
        for split, entry in splits.items()
        if _dict(theirs, "examples", side, split).get("sha256") != entry["sha256"]
    ]
    if not sets:
        return []
    return [f"The task differs in its pictures ({', '.join(sets)} sets), though both forget {task.concept}."]


def _edit_differs(info: PictureInfo, edits: Mapping[str, str]) -> list[str]:
    if not info.edit or info.edit in edits:
        return []
    rounds, members = info.recipe.get("rounds"), _dict(info.recipe, "edit_set").get("members")
    counted = [(found, word) for found, word in ((members, "unit"), (rounds, "round")) if isinstance(found, list)]
    size = [f"{len(found)} {word}{'' if len(found) == 1 else 's'}" for found, word in counted]
    what = f" ({', '.join(size)})" if size else ""
    return [f"Model and task are the same, but the edit that drew it{what} is none there is here."]


def _way_back(info: PictureInfo, here: bool) -> list[str]:
    """How to get the edit that drew a picture again; nothing where its file does not say.

    Args:
        here: model and task are those of the picture.
    """
    target = str(_dict(info.recipe, "task", "origin").get("forget"))
    from_words = target.startswith("drawn from")
    if not info.edit or not (here or is_target(target) or from_words):
        return []
    concept = str(_dict(info.recipe, "task").get("concept"))
    named = f"let it draw {concept:.80} from words alone" if from_words else f"{target:.80}"
    first = "" if here else f"choose {info.model} and {named} on screen 1, then "
    return [f"To grow its edit again, {first}give this file to Bring one back on screen 5: it sets what repeats it."]


def _dict(found: Any, *path: str) -> Mapping:
    """A mapping inside what a file held; empty where there is none."""
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
