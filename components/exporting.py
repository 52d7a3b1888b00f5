"""What screen 5 does: write the edit in a form other programs load, load it again, and say how exact it is."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import gradio as gr

from components import edit_panel
from components.compare_panel import NOW
from components.desk import Desk, handler
from components.export_panel import FORMS, LONGEST, NOTHING
from components.session import Session
from components.theme import status_html
from razor import export, report, telling
from razor import recipe as recipes
from razor.adapters.base import Adapter
from razor.config import RazorConfig
from razor.errors import InputError, ModelError, OtherWeightsError, PatchError, RazorError
from razor.examples import Task
from razor.export import Check, Written
from razor.growth import Growth, Plan
from razor.importing import by_unit, read_edit
from razor.minicanvas import tasks
from razor.minicanvas.dataset import parse_target, slug
from razor.models import BUNDLED, on_this_machine
from razor.patches import Patch
from razor.sights import sights
from razor.sources import is_target
from razor.stack import Stack, set_aside
from razor.writing import remove

LIMITS_SET = "What it has to stand is set on screen 4."


class Exporting(Desk):
    """Handlers of the export panel."""

    @handler(lambda page: page.export.status)
    def write_export(self, session: Session, form: str, rank: float | None, redacted: bool) -> Iterator[dict]:
        """The whole edit as it stands, the stack's other concepts included, as one file to save."""
        growth, panel, patch = session.growth, self.page.export, self.side(session, NOW)
        if growth is None or not patch.deltas:
            raise InputError(NOTHING)
        if form not in FORMS or growth.adapter.family not in FORMS[form][1]:
            raise InputError(f"There is no form {form!r} for {growth.adapter.name}; choose one of those shown.")
        session.begin()
        hidden = gr.update(visible=False)  # the file before goes
        yield {panel.status: status_html("Writing the edit and loading it again", "busy"), panel.file: hidden}
        recipe = session.stack.recipe(self._gated(session), session.grown_on)
        patch = patch.bound_to(growth.adapter.model).with_recipe(recipe)
        name = unnamed(growth.adapter) if redacted and form in ("full", "single") else file_name(growth)
        options = {"rank": int(rank) or None} if rank else {}
        with taken_away(session.new_folder("export")) as home:
            made = write(growth.adapter, patch, home, name, form, options, redacted, session.stop.is_set)
            path = packed(made[0].path) if made else None
        if made is None:
            yield {panel.status: status_html("Stopped; nothing was written.")}
            return
        session.uploads.add(str(path))
        names = recipes.stacked(recipe)
        together = f" It holds the edits of {names} together, in this order." if names else ""
        yield {
            panel.status: status_html(told(*made) + together),
            panel.file: gr.update(value=str(path), label=f"Save {path.name}", visible=True),
        }

    @handler(lambda page: page.export.report_status)
    def write_report(self, session: Session, reason: str, pictures: bool) -> Iterator[dict]:
        """One page on the edit as it stands, with what was checked of it, and a section for a model card."""
        growth, panel, status = session.growth, self.page.export, self.page.export.report_status
        hidden = dict.fromkeys((panel.report_file, panel.card_file), gr.update(visible=False))
        yield {status: "", **hidden}
        if growth is None or not growth.patch.deltas:
            raise InputError(NOTHING)
        if len(reason or "") > LONGEST:
            raise InputError(f"The reason has {len(reason):,} characters; up to {LONGEST:,} fit.")
        session.begin()
        revision = session.revision
        before, after = yield from self.measured(session, growth, status)
        shown = []
        if pictures:
            patch, near = self.side(session, NOW), growth.bench.neighbours
            work = partial(sights, growth.adapter, growth.task, patch, near, stop=session.stop.is_set)
            shown = yield from self.told(status, "Looking at cases before and after", lambda tell: work(report=tell))
        if session.growth is not growth or session.revision != revision:
            raise InputError("The edit was changed meanwhile; write the report again.")
        check = session.found.get("check")
        found, findings, gold = [], [], None
        if check is not None and check.done and check.revision == revision:
            findings, gold = check.findings, check.gold
            found = check.verdicts
        stack = session.stack.recipe(recipes.recipe(growth), session.grown_on).get("stack", ())
        told_of = report.Report(
            growth, before, after, shown, found, findings, gold, (reason or "").strip(), stack, self.fixed(session)
        )
        name = file_name(growth)
        with taken_away(session.new_folder("report")) as home:
            files = {home / f"{name}.html": report.html, home / f"{name}.md": report.model_card}
            for path, text in files.items():
                path.write_text(text(told_of), "utf-8")
        page, card = map(str, files)
        session.uploads |= {page, card}
        session.found["report"] = revision
        unchecked = "" if found else " Nothing was checked on screen 4, and it says so."
        yield {
            status: status_html(f"{Path(page).stat().st_size / 1000:,.0f} kB, opens in any browser.{unchecked}"),
            panel.report_file: gr.update(value=page, visible=True),
            panel.card_file: gr.update(value=card, visible=True),
        }

    @handler(lambda page: page.export.bring_status)
    def bring_in(self, session: Session, file: str | None, anyway: bool, *settings) -> Iterator[dict]:
        """An edit from a file becomes a round of its own; a recipe alone sets what repeats it."""
        status = self.page.export.bring_status
        if not file:
            raise InputError("Choose a file first: a patch or a LoRA, or a recipe.")
        session.uploads.add(file)
        session.begin()
        path = Path(file)
        if path.suffix.lower() != ".safetensors":
            made = recipes.read(path)
            if self.may_take_up(session, made) and recipes.of(made) != (session.model, session.target):
                yield {status: status_html(f"Loading {recipes.of(made)[0]}", "busy")}
                yield from self.take_up(session, made, path.name)
                yield {self.page.tabs: gr.Tabs(selected="edit")}
            else:
                yield self._repeat(session, made, path.name)
            return
        yield {status: status_html("Getting model and pictures ready", "busy")}
        growth = self.start(session, settings)
        patch = _read(path, growth, anyway)
        limits = self._limits(patch.recipe, growth.task)
        changes = by_unit(patch, growth.every.values(), growth.adapter.model)
        if not growth.showable:
            yield {status: status_html(f"Scoring {len(growth.units)} units", "busy")}
            growth.scores()
        yield {status: status_html("Measuring the edit on the search split", "busy")}
        done = growth.bring_in(changes, path.name)
        if session.growth is not growth:
            yield self.current(session)
            return
        session.edited()
        self.sessions.save(session)
        said = status_html(" ".join([done.reason, *_remarks(patch, growth), *([LIMITS_SET] if limits else [])]))
        yield {
            **self.drawn(session, growth),
            **self.uncompared(),
            **limits,
            status: said,
            self.page.edit.status: said,
            self.page.tabs: gr.Tabs(selected="edit"),
        }

    @handler(lambda page: page.export.bring_status)
    def make_link(self, session: Session) -> Iterator[dict]:
        """What opens the page at what repeats this run."""
        growth = session.need_growth()
        if growth.adapter.name not in BUNDLED or not is_target(growth.task.origin.get("forget", "")):
            raise InputError("A link repeats runs of bundled models on bundled targets; take the recipe as a file.")
        yield {self.page.export.link: f"?recipe={recipes.to_link(self._gated(session))}"}

    @handler(lambda page: page.export.bring_status)
    def follow_link(self, session: Session, link: str) -> Iterator[dict]:
        """Open the page at what repeats a run: its model, its target, its settings."""
        if not link:
            return
        made = recipes.from_link(link)
        name, target = recipes.of(made)
        if name not in BUNDLED or not is_target(target):
            raise InputError(f"This link is of {name!r} and {target!r}, not both bundled; bring the recipe as a file.")
        yield {self.page.export.bring_status: status_html(f"Loading {name}", "busy")}
        yield from self.take_up(session, made, "the linked recipe")
        yield {self.page.tabs: gr.Tabs(selected="edit")}

    def may_take_up(self, session: Session, made: Mapping) -> bool:
        """Whether model and target of a recipe can be chosen here, and nothing of the visitor's goes by that."""
        if session.growth is not None or session.task is not None or session.stack.concepts:
            return False
        name, target = recipes.of(made)
        return is_target(target) and (name == session.model or on_this_machine(name))

    def take_up(self, session: Session, made: Mapping, said: str) -> Iterator[dict]:
        """Set model, target and settings of a run of a bundled target; the page stays on its screen.

        Args:
            said: what the recipe is called.

        Returns:
            How a person repeats it, in words.

        Raises:
            InputError: it is of other weights or another task; before anything is changed.
        """
        page, (name, target) = self.page, recipes.of(made)
        stack = session.stack if name == session.model else Stack()
        _repeatable(made, self.load(name), _beside(stack, tasks.task(parse_target(target))))  # before anything goes
        if name != session.model:
            yield from self.choose_model.work(self, session, name)
        session.start_over()
        session.target = target
        settings = self._repeat(session, made, said) if "config" in made else {}
        settings.pop(page.tabs, None)
        chosen = status_html(f"{name} and {target} are chosen.")
        yield {
            **self._examples(session),
            **self.blank(session),
            **settings,
            page.model.name: name,
            page.examples.target: target,
            page.examples.status: settings.get(page.edit.status, chosen),
        }
        return _again(made, session.planned, begun=False) if settings else ""

    def _gated(self, session: Session) -> dict:
        """The recipe of the edit as it stands, with the gates that its check fixed."""
        return recipes.with_gates(recipes.recipe(session.growth), self.fixed(session))

    def _limits(self, made: Mapping, task: Task) -> dict:
        """The limits of a recipe on screen 4, to be moved until a check fixes them; nothing where it has none."""
        return self.page.check.at(recipes.gates_of(made, task.chance), interactive=True) if "gates" in made else {}

    def _repeat(self, session: Session, made: Mapping, name: str) -> dict:
        """The settings of a recipe on the page. Raises InputError as `_repeatable` does."""
        adapter, page = self.model_of(session), self.page
        growth = session.growth
        task = growth.task if growth else _beside(session.stack, self.task_of(session))
        config, limits = _repeatable(made, adapter, task), self._limits(made, task)
        shown = edit_panel.settings_shown(page.edit, config, adapter)
        ours = edit_panel.config_from(*(shown[widget] for widget in page.edit.settings()))
        ours, asked = (edit_panel.fitting(c, adapter) for c in (ours, replace(config, towers=ours.towers)))
        session.planned = recipes.planned(made)
        rounds, members = made.get("rounds", []), made.get("edit_set", {}).get("members", [])
        said = [
            f"The settings of {name} are set: it edited {telling.names(members) or 'nothing'} in {len(rounds)} "
            f"round{'s' if len(rounds) != 1 else ''}.",
            _again(made, session.planned, growth is not None),
            _no_widget(asked, ours),
            *recipes.left_out(made),
            LIMITS_SET if limits else "",
        ]
        if growth is not None:
            growth.still()
            growth.history.branch_from(growth.history.free_name(), 0)  # a repetition begins at the unedited model
            session.settle(ours)
            growth.plan(session.planned)
            session.edited()
            said.append(f"It is on {growth.history.position.branch}, by itself; Undo returns to the edit before.")
        if other := recipes.other_versions(made):
            said.append(f"It was {other}, so numbers may differ.")
        status = status_html(" ".join(filter(None, said)))
        return {
            **({**self.drawn(session, growth), **self.uncompared()} if growth is not None and growth.showable else {}),
            **shown,
            **limits,
            page.export.bring_status: status,
            page.edit.status: status,
            page.tabs: gr.Tabs(selected="edit"),
        }


def _again(made: Mapping, plan: Plan, begun: bool) -> str:
    """How a person repeats the rounds of a recipe, and which moves by hand come with it."""
    rounds = made.get("rounds", [])
    if not plan.steps:
        counts = [(len(names), word) for names, word in ((plan.locked, "lock"), (plan.banned, "ban")) if names]
        held = " and ".join(f"{count} {word}{'s' if count > 1 else ''}" for count, word in counts)
        grown = any(entry.get("added") for entry in rounds)
        grow = "Grow to target repeats it, but for what was done by hand." if grown else ""
        grow = grow if rounds or recipes.left_out(made) else "Grow to target repeats it."
        return " ".join(filter(None, [grow, f"Its {held} are set." if held else ""]))
    if not rounds:
        there = "What was done by hand is done again" if begun else "Score does again what was done by hand"
        return f"{there}, each unit by one step from the scores."
    by_hand = any(step.moves for step in plan.steps)
    count = f"Grow one round {len(rounds)} times" if len(rounds) > 1 else "Grow one round"
    more = ", with what was done by hand" if by_hand else ""
    return f"Grow to target repeats it{more}; if it was stopped before its target, {count} does."


def _no_widget(config: RazorConfig, ours: RazorConfig) -> str:
    """Which settings of a recipe the page cannot be given; "" for none."""
    lost = [f"{name} {value}" for name, value in vars(config).items() if value != getattr(ours, name)]
    if not lost:
        return ""
    return f"The page has no setting for {', '.join(lost)}, so it grows otherwise: unlearn --recipe repeats that too."


def _beside(stack: Stack, task: Task) -> Task:
    """The task as it is grown beside a stack, see Desk.start."""
    return set_aside(task, [c.task for c in stack.concepts if c.on and c.name != task.concept])


def _repeatable(made: Mapping, adapter: Adapter, task: Task) -> RazorConfig:
    """The settings of a recipe, where it is of this model and task.

    Raises:
        InputError: it is not, or the settings cannot be read; says which.
    """
    recipes.check(made, adapter, task, load="load it on screen 1")
    return RazorConfig.from_json(dict(made.get("config") or {}))


def _remarks(patch: Patch, growth: Growth) -> list[str]:
    """What to know of an edit that was brought in: what it was made for, and where the one before it is."""
    task = patch.recipe.get("task")
    then = task.get("concept") if isinstance(task, Mapping) else None
    said = [f"It was made to forget {then!r}."] if then and then != growth.task.concept else []
    if names := recipes.stacked(patch.recipe):
        said.append(f"It holds the edits of {names} together, in this order; here they are one round.")
    if len(growth.history.branches) > 1:
        said.append(f"It is on {growth.history.position.branch}, by itself; Undo returns to the edit before.")
    return said


def _read(path: Path, growth: Growth, anyway: bool) -> Patch:
    """The edit in a file; where it is another model's, the sentence says whose."""
    try:
        return read_edit(path, growth.adapter, anyway=anyway)
    except PatchError as error:
        try:
            made = recipes.read(path)
        except RazorError:
            raise error from None
        model, task = made.get("model") or {}, made.get("task") or {}
        whose = f"Its recipe says {model.get('name')!r}, to forget {task.get('concept')!r}."
        if isinstance(error, OtherWeightsError):
            whose += " To take it all the same, tick the box for patches of other weights."
        raise PatchError(f"{error} {whose}") from error


@contextmanager
def taken_away(home: Path) -> Iterator[Path]:
    """A folder for what a person takes away; where the block fails, or leaves nothing in it, it goes."""
    try:
        yield home
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    if not any(home.iterdir()):
        home.rmdir()


def write(
    adapter: Adapter, patch: Patch, home: Path, name: str, form: str, options: dict, redacted: bool, stop
) -> tuple[Written, Check] | None:
    """Write one form under a folder and load it again; None where it was stopped.

    Raises:
        ModelError: what was written is not the edited model.
    """
    if form == "patch":
        written = export.write_patch(adapter, patch, home / f"{name}.safetensors")
    elif form in ("peft", "kohya"):
        place = home / (f"{name}.safetensors" if adapter.family == "diffusion" else name)
        written = export.write_lora(adapter, patch, place, keys=form, stop=stop, **options)
    else:
        single = form == "single"
        place = home / (f"{name}.safetensors" if single else name)
        written = export.write_full(adapter, patch, place, single_file=single, redacted=redacted, stop=stop)
    if written is None:
        return None
    if stop():
        remove(written.path)
        return None
    check = export.verify(adapter, patch, written.path)
    if not export.sound(written, check):
        raise ModelError(f"{export.compared(check)} The file was thrown away; try another form.")
    return written, check


def packed(path: Path) -> Path:
    """The file to hand out: a folder becomes a zip in its place."""
    if path.is_file():
        return path
    packed = Path(shutil.make_archive(str(path), "zip", path))
    shutil.rmtree(path)
    return packed


def file_name(growth: Growth) -> str:
    """What a file about an edit is called, without its ending."""
    return f"{slug(Path(growth.adapter.name).name)}-without-{slug(growth.task.concept)}"


def unnamed(adapter: Adapter) -> str:
    """What a redacted file is called: its name says as little as the file."""
    return f"{slug(Path(adapter.name).name)}-edited"


def told(written: Written, check: Check) -> str:
    """What was written, how exact it is, and what a person should know of it."""
    left = [f"Its ranks leave out {written.residual:.1%} of the change."] if written.residual else []
    return " ".join([f"{written.bytes / 1000:,.0f} kB written.", export.compared(check), *left, *written.notes])
