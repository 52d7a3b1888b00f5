"""Screen 3 for models that draw: pairs on both sides of an edit, grids, and pictures that say how they were made."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import gradio as gr

from components import compare_panel, picture_panel, picture_reading
from components.desk import Desk, handler
from components.picture_reading import Cell, Row, Shown
from components.session import Session
from components.theme import status_html
from razor import pictures, recipe
from razor.adapters.diffusion import DiffusionAdapter
from razor.errors import InputError, RazorError
from razor.examples import Task
from razor.history import State
from razor.picture_files import MAX_BYTES, PictureInfo, read_png
from razor.picture_grid import GridPlan, example_values, parse_axis, patch_of, state_of
from razor.pictures import Drawn, DrawSettings, Job, Prompt, Side, Sketch
from razor.sources import draws_its_own
from razor.wording import proxy_note

NOTHING_EDITED = "Nothing is edited yet, so both sides are the same."
NO_JUDGE = "Nothing here can say what these pictures show, so there are no verdicts: look for yourself"
NAME_ONE = ", or name a CLIP to look at them beside the model on screen 1"
ONE_PROMPT = "A grid draws one prompt, so the other lines are left out: "


class Drawing(Desk):
    """Handlers of the panel for models that draw."""

    # Pairs

    @handler(lambda page: page.pictures.status)
    def draw_both(
        self, session: Session, left: str, right: str, prompts: str, groups: list[str], count: int, *settings
    ) -> Iterator[dict]:
        """The prompts on both sides, streamed as they are drawn."""
        session.begin()
        panel = self.page.pictures
        yield {panel.status: status_html("Getting the model ready", "busy")}
        adapter = self._drawing_model(session)
        yield from self.settle_sides(session, left, right)
        if count not in picture_panel.COUNTS:
            raise InputError(
                f"{count!r} pairs cannot be suggested; choose {', '.join(map(str, picture_panel.COUNTS))}."
            )
        task = self.current_task(session)
        asked = [*pictures.own_prompts(prompts or ""), *pictures.suggested(task, count, groups or ())]
        if not asked:
            raise InputError("There is nothing to draw: write a prompt of your own, or tick a group of suggested ones.")
        yield from self._pairs(session, adapter, task, asked, picture_panel.settings_from(*settings))

    def draw_suggested(self, session: Session) -> Iterator[dict]:
        """The suggested pairs with the model's own settings; what the story and the guide end on."""
        session.begin()
        adapter, task = self._drawing_model(session), self.current_task(session)
        yield from self._pairs(session, adapter, task, pictures.suggested(task), DrawSettings.of(adapter))

    def _pairs(
        self,
        session: Session,
        adapter: DiffusionAdapter,
        task: Task,
        prompts: Sequence[Prompt],
        settings: DrawSettings,
    ) -> Iterator[dict]:
        settings.check(adapter, [prompt.text for prompt in prompts])
        panel, epoch, judge = self.page.pictures, session.epoch, pictures.judge_for(adapter, task)
        chosen = session.sides or compare_panel.SIDES
        unedited = self._unedited(session, adapter, task)
        sides = [self._side(session, unedited, side) for side in chosen]
        names, keys = tuple(side.name for side in sides), tuple(side.patch.key() for side in sides)
        rows = [Row(prompt, settings.spec(prompt)) for prompt in prompts]
        look = {"judge": judge, "original": chosen[0] == compare_panel.ORIGINAL}
        cut = pictures.cut_notes(adapter, [prompt.text for prompt in prompts])
        remarks = [NOTHING_EDITED] if not any(side.patch.deltas for side in sides) else []
        remarks += [f"{NO_JUDGE}{NAME_ONE if draws_its_own(adapter) else ''}."] if judge is None else []
        remarks += [proxy_note(judge)] if judge is not None and judge.guesses else []
        session.found["pairs"] = Shown(chosen, keys)
        first = {"done": 0, "total": 2 * len(rows), "note": f"drawing {names[0]}"}
        yield {
            panel.status: status_html(f"Drawing {len(rows)} prompts on both sides, from the same noise", "busy"),
            panel.stale: "",
            panel.notes: picture_reading.notes_html(cut, remarks),
            panel.pairs: picture_reading.pairs_shown(rows, task, names, progress=first),
        }

        def take(event: Drawn | Sketch) -> None:
            if isinstance(event, Drawn):
                row, at = event.job.place
                rows[row].take(at, event.kept)
                return
            for job, image in zip(event.jobs, event.images, strict=True):
                row, at = job.place
                rows[row].sketch(at, image)

        def shown(progress: Mapping | None) -> dict:
            return {panel.pairs: picture_reading.pairs_shown(rows, task, names, progress=progress, **look)}

        def ended() -> dict:
            for row in rows:
                row.let_go()
            return {**shown(None), **self.staleness(session)}

        jobs = pictures.pair_jobs([row.spec for row in rows], sides)
        said = yield from self._drawn(session, adapter, task, jobs, take, shown, ended)
        if session.epoch != epoch:
            yield self.current(session)
            return
        growth = session.growth
        costs = self.measurable(session, growth) if growth and growth.showable else {}  # now that the pace is known
        yield {panel.status: status_html(said), **ended(), **costs}

    # Grids

    def grid_values(self, name: str, request: gr.Request) -> str:
        """Values to start from on an axis that was just chosen."""
        growth = self.sessions.get(request.session_hash).growth
        rounds, branches = _grown(growth)
        return example_values(name, rounds=rounds, branches=branches)

    def grid_cost(self, request: gr.Request, *grid) -> str:
        """The line under the grid's axes, while a person types; runs no model and says errors quietly."""
        return self._cost(self.sessions.get(request.session_hash), grid)

    def grid_opened(self, said: str, request: gr.Request, *grid) -> str:
        """The same for who opens the grid, where it says nothing yet of one drawn or under way."""
        return said or self.grid_cost(request, *grid)

    @handler(lambda page: page.pictures.cost)
    def grid_pace(self, session: Session, *grid) -> Iterator[dict]:
        """How long the grid takes, where nothing was drawn yet that would tell."""
        adapter = self._drawing_model(session)
        if self.easel(session, adapter).timed:
            return
        yield {self.page.pictures.cost: status_html("Measuring how long one picture takes", "busy")}
        self.pace(session, adapter)
        yield {self.page.pictures.cost: self._cost(session, grid)}

    def _cost(self, session: Session, grid: Sequence) -> str:
        try:
            plan = self._plan(session, *grid)
        except RazorError as error:
            return status_html(str(error), "problem")
        seconds = session.easel.seconds(plan.denoised()) if session.easel else None
        return status_html(picture_reading.cost_text(plan, seconds) + _left_out(grid[0], plan))

    def _plan(self, session: Session, prompt: str, x, xs, y, ys, z, zs, own: str, *settings) -> GridPlan:
        """The grid asked for.

        Raises:
            InputError: see picture_grid.py and picture_panel.settings_from.
        """
        rounds, branches = _grown(session.growth)
        axes = [
            parse_axis(name, str(text or ""), rounds=rounds, branches=branches) if name else None
            for name, text in ((x, xs), (y, ys), (z, zs))
        ]
        if axes[0] is None:
            raise InputError("Choose what changes along X.")
        first = [*pictures.own_prompts(prompt or ""), *pictures.own_prompts(own or "")]
        first = first or pictures.suggested(self.current_task(session), 1)
        if not first:
            raise InputError("Write the prompt to draw.")
        return GridPlan(first[0].text, picture_panel.settings_from(*settings), *axes)

    @handler(lambda page: page.pictures.cost)
    def draw_grid(self, session: Session, *grid) -> Iterator[dict]:
        """The grid, cell by cell."""
        session.begin()
        panel = self.page.pictures
        yield {panel.cost: status_html("Getting the model ready", "busy")}
        adapter, epoch, task = self._drawing_model(session), session.epoch, self.current_task(session)
        plan = self._plan(session, *grid)
        for _, cell in plan.cells():
            spec = plan.spec(cell)
            adapter.check_drawing([spec.prompt], spec.steps, spec.guidance, spec.side)
        easel, unedited = self.easel(session, adapter), self._unedited(session, adapter, task)
        jobs = plan.jobs(lambda cell: self._side_of_cell(session, unedited, cell))
        said = picture_reading.cost_text(plan, easel.seconds(plan.denoised())) if easel.timed else "Drawing the grid"
        cells, judge = {job.place: Cell() for job in jobs}, pictures.judge_for(adapter, task)
        sheet = lambda cells, progress=None: picture_reading.sheet_shown(plan, cells, task, progress, judge)  # noqa: E731
        first = {"done": 0, "total": len(jobs), "note": ""}
        yield {
            panel.cost: status_html(said, "busy"),
            panel.sheet: sheet(cells, first),
        }

        def take(event: Drawn | Sketch) -> None:
            if isinstance(event, Drawn):
                cells[event.job.place] = Cell(picture_reading.address(event.kept), event.kept.saw)
                return
            for job, image in zip(event.jobs, event.images, strict=True):
                cells[job.place] = Cell(picture_reading.sketch_address(image))

        def shown(progress: Mapping) -> dict:
            return {panel.sheet: sheet(cells, progress)}

        def ended() -> dict:
            finished = {place: cell for place, cell in cells.items() if cell.saw is not None}
            return {panel.sheet: sheet(finished)}

        said = yield from self._drawn(session, adapter, task, jobs, take, shown, ended, together=1)
        if session.epoch != epoch:
            yield self.current(session)
            return
        notes = ["", *pictures.cut_notes(adapter, [plan.prompt])]
        yield {panel.cost: status_html(said + _left_out(grid[0], plan) + " ".join(notes)), **ended()}

    def _side_of_cell(self, session: Session, unedited: Mapping, cell: Mapping) -> Side:
        """The edit of a cell: the edit as it stands but for what the cell says."""
        growth = session.growth
        if growth is None:
            return self._side(session, unedited, compare_panel.NOW)
        state = state_of(growth, cell)
        name = str(cell.get("branch") or (f"round {cell['round']}" if "round" in cell else "edited"))
        if (strength := cell.get("strength", 1)) != 1:
            name += f" at {strength:.0%}"
        patch = patch_of(growth, cell, self.others(session))
        return Side(name, patch, self._recipe(session, unedited, state) | {"strength": strength})

    # Restoring

    @handler(lambda page: page.pictures.restored)
    def restore(self, session: Session, path: str | None) -> Iterator[dict]:
        """A picture that was drawn here: its prompt and settings, and what about it is not as it is here."""
        if not path:
            return
        session.uploads.add(path)
        panel, file = self.page.pictures, Path(path)
        yield {panel.restored: status_html("Reading the picture", "busy")}
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"{file.name} is larger than {MAX_BYTES / 1e6:.0f} MB; drop a PNG that was drawn here.")
        info = read_png(file.read_bytes(), file.name)
        said, tone = self._restored(session, info)
        if tone == "problem":
            try:
                taken = yield from self._taken_up(session, info, file)
                said, tone = (taken, "ready") if taken else (said, tone)
            except RazorError:  # it stays as it was, and what differs is said already
                pass
        spec = info.spec
        yield {
            panel.prompts: spec.prompt,
            panel.groups: gr.update(value=[]),
            panel.seed: spec.seed,
            panel.steps: spec.steps,
            panel.guidance: spec.guidance,
            panel.side: spec.side,
            panel.restored: status_html(said, tone),
        }

    def _restored(self, session: Session, info: PictureInfo) -> tuple[str, str]:
        """What a picture says of itself beside what is here, and the tone of it."""
        adapter, task, edits = self._drawing_model(session), self.current_task(session), self._edits(session)
        weaker = {} if info.edit in edits else self._edits(session, picture_reading.strengths(info))
        return picture_reading.restored_text(info, adapter, adapter.fingerprint(), task, edits, weaker)

    def _taken_up(self, session: Session, info: PictureInfo, file: Path) -> Iterator[dict]:
        """Choose the model and target of a picture where they may be; returns what was done, "" for nothing.

        Raises:
            RazorError: the model cannot be loaded, or is not what it was.
        """
        made = recipe.read(file)
        name, target = recipe.of(made)
        if not self.may_take_up(session, made):
            return ""
        yield {self.page.pictures.restored: status_html(f"Loading {name}", "busy")}
        if self.load(name).family != "diffusion":
            return ""
        again = yield from self.take_up(session, made, file.name)
        return picture_reading.taken_up_text(info, name, target, again)

    def _edits(self, session: Session, strengths: tuple[float, float] | None = None) -> dict[str, str]:
        """Patch.key of the edit as it stands and of every branch -> what it is called.

        Args:
            strengths: of the whole edit, and of the grid's cell, in place of those here.
        """
        growth, others = session.growth, self.others(session)
        if growth is None:
            return {others.key(): "the edit as it stands"}
        history, found = growth.history, {}
        held = [("the edit as it stands", growth.edit_set, history.state)]
        tips = ((branch, history.states[tip]) for branch, tip in history.branches.items())
        held += [(f"the branch {branch}", state.edit_set, state) for branch, state in tips]
        for name, edit_set, state in held:
            whole, cell = strengths or (edit_set.strength, 1.0)
            patch = growth.patch_of(edit_set.at_strength(whole), state)
            found.setdefault((others + (patch if cell == 1 else patch.scaled(cell))).key(), name)
        return found

    # What all of them share

    def _drawing_model(self, session: Session) -> DiffusionAdapter:
        adapter = self.model_of(session)
        if adapter.family != "diffusion":
            raise InputError(f"{session.model} draws no pictures; load a model that does on screen 1.")
        return adapter

    def _unedited(self, session: Session, adapter: DiffusionAdapter, task: Task) -> dict:
        return recipe.unedited(adapter, task)

    def _side(self, session: Session, unedited: Mapping, side: str) -> Side:
        """A side of the comparison with what its pictures' files say of it."""
        name, patch, growth = compare_panel.side_name(side), self.side(session, side), session.growth
        if side == compare_panel.ORIGINAL:
            return Side(name, patch, unedited)
        branch = compare_panel.branch_of(side)
        state = growth.history.states[growth.history.branches[branch]] if branch is not None else None
        return Side(name, patch, self._recipe(session, unedited, state))

    def _recipe(self, session: Session, unedited: Mapping, state: State | None) -> dict:
        """The recipe of an edited side: the growth's, as one of its states was left, and the stack around it."""
        growth, concept = session.growth, unedited["task"]["concept"]
        edit = recipe.edit_entry(growth, state) if growth else {}
        return {**unedited, **edit, "stack": [name for name in session.stack.active if name != concept]}

    def _drawn(
        self,
        session: Session,
        adapter: DiffusionAdapter,
        task: Task,
        jobs: Sequence[Job],
        take: Callable[[Drawn | Sketch], None],
        shown: Callable[[Mapping], dict],
        ended: Callable[[], dict],
        together: int = pictures.TOGETHER,
    ) -> Iterator[dict]:
        """Draw the jobs, showing what is known after every event; ends early when stopped or overtaken.

        Args:
            take: notes an event.
            shown: what the page shows while it goes on, given the progress.
            ended: what it shows at the end; only an error needs it here.

        Returns:
            What was done, in words.
        """
        easel, epoch, judge = self.easel(session, adapter), session.epoch, pictures.judge_for(adapter, task)
        fresh = found = 0
        started, side = time.monotonic(), jobs[0].side
        work = lambda report, closed: easel.draw(  # noqa: E731
            jobs, judge=judge, axes=task.axes, together=together, report=report,
            stop=lambda: closed() or session.stop.is_set(),
        )  # fmt: skip
        try:
            with closing(pictures.streamed(work)) as events:
                for batch in events:
                    if session.epoch != epoch:
                        break
                    for event in batch:
                        take(event)
                        if isinstance(event, Drawn):
                            fresh, found, side = fresh + event.fresh, found + (not event.fresh), event.job.side
                        else:
                            side = event.jobs[0].side
                    note = f"drawing {side.name}" if fresh + found < len(jobs) else ""
                    yield shown({"done": fresh + found, "total": len(jobs), "note": note})
        except RazorError:
            yield ended()  # the status line then says what went wrong
            raise
        took, stopped = time.monotonic() - started, session.stop.is_set()
        return picture_reading.done_text(fresh, found, len(jobs), took, stopped)


def _left_out(typed: str, plan: GridPlan) -> str:
    """A sentence where more than one prompt was typed for the grid; "" else."""
    more = len(pictures.own_prompts(typed or "")) > 1
    return f" {ONE_PROMPT}\u201c{pictures.short(plan.prompt)}\u201d is drawn." if more else ""


def _grown(growth) -> tuple[int | None, tuple[str, ...]]:
    """Rounds that led to the edit shown, and the branches; None and none where nothing was grown."""
    if growth is None:
        return None, ()
    return len(growth.history.path(growth.history.position.state)) - 1, tuple(growth.history.branches)
