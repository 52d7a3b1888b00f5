"""What the measure button does: test numbers of a model that draws, counted picture by picture and stopped at any."""

import time
from collections.abc import Callable, Iterator

from components import measure_panel, reading
from components.desk import Desk, handler
from components.session import Session
from components.theme import status_html
from razor.errors import InputError, Stopped
from razor.growth import Growth
from razor.wording import draws

STOPPED = "Stopped before all pictures were drawn, so nothing was measured; the tiles are as they were."
OVERTAKEN = "The edit changed while it was measured, so the numbers were let go; measure again."


class Measuring(Desk):
    """Handlers of the measure panel."""

    @handler(lambda page: page.edit.measure.status)
    def measure(self, session: Session) -> Iterator[dict]:
        """The edit as it stands and the unedited model on the test split."""
        growth, panel = session.need_growth(), self.page.edit.measure
        if not draws(growth):
            raise InputError(f"{growth.adapter.name} is measured after every growth; there is nothing to draw.")
        session.begin()
        yield {panel.status: status_html("Getting the model ready", "busy")}
        count = measure_panel.to_draw(growth)
        if count:
            self.pace(session, growth.adapter)
        yield {panel.status: status_html(measure_panel.cost_text(growth, self.picture_seconds(session)), "busy")}
        started = time.monotonic()
        what = f"Drawing {count} pictures of test prompts" if count else "Measuring at test points"
        try:
            tested = yield from self.watched(
                session, growth, panel.status, what, lambda: self.test(session, growth),
                lambda tell: in_all(tell, count),
            )  # fmt: skip
        except Stopped:
            yield {panel.status: status_html(STOPPED)} if session.growth is growth else self.current(session)
            return
        if session.growth is not growth:
            yield self.current(session)
            return
        said = measure_panel.done_text(growth, count, time.monotonic() - started)
        kept = session.tested is tested
        yield {
            **self.drawn(session, growth),
            self.page.compare.tiles: reading.tiles_of(growth, session.tested),
            panel.status: status_html(said) if kept else status_html(OVERTAKEN, "problem"),
        }

    def measurable(self, session: Session, growth: Growth) -> dict:
        """The measure panel for the growth as it stands."""
        panel = self.page.edit.measure
        if not draws(growth):
            return panel.blank()
        return measure_panel.shown(panel, growth, self.picture_seconds(session), session.tested is not None)


def in_all(tell: Callable[[int, int], None], total: int) -> Callable[[int, int], None]:
    """`tell` as a count over several drawings, each of which counts from its own start."""
    before = last = 0

    def on_picture(done: int, _of: int) -> None:
        nonlocal before, last
        if done <= last:
            before += last
        last = done
        tell(before + done, total)

    return on_picture
