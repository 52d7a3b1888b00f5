"""What one visitor has, kept on the server by session: settings, task, growth, stack. Never a model.

Rounds are saved to a private folder as they are made, named by a token only the visitor's browser knows, so that a
closed page or a restarted server loses at most the round under way. Pictures a person brought are never written there:
their rounds are kept in memory for as long as the pictures are.
"""

import math
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gradio.utils import get_upload_folder

from razor import saved
from razor.adapters.base import Adapter
from razor.config import RazorConfig
from razor.edit_set import EditSet
from razor.errors import InputError, Stopped
from razor.examples import Example, Task
from razor.growth import Growth
from razor.history import Position
from razor.metrics import Evaluation
from razor.pictures import Easel
from razor.stack import Stack

GRACE = 120.0  # seconds a closed page is kept: a sleeping laptop also looks closed
IDLE = 7200.0  # seconds without an event before an open page is let go
MAX_SESSIONS = 64
CLOSING = 3.0  # seconds the server may take to hear that a page was closed
ARRIVING = 0.5  # seconds a gesture waits for one made before it
KEEP_SAVED = 7 * 24 * 3600.0  # seconds saved rounds stay on disk
OWN = "razor-taken-"  # how folders of `Session.new_folder` are called
ASKED: ContextVar[float] = ContextVar("asked", default=math.inf)  # when the work at hand was asked for
_TOKEN = re.compile(r"[0-9a-f]{32}")


class Measured(NamedTuple):
    """An edit the page has shown with its metrics on the search split."""

    state: int
    edit_set: EditSet
    evaluation: Evaluation


@dataclass
class Session:
    """One visitor's state. Handlers read and write it; the page holds nothing that matters."""

    key: str = ""
    token: str = ""  # the browser's own, for finding rounds again; "" when it gave none
    model: str = "mini-clip"
    judge: str = ""  # a CLIP that looks at what the model draws; "" for the model's own judge, or none
    judged: Adapter | None = None  # the model with that judge: a view on it, without weights of its own
    target: str = "object:cat"
    forget: tuple[Example, ...] = ()  # the visitor's own pictures, when used
    retain: tuple[Example, ...] = ()
    task: Task | None = None
    epoch: int = 0  # goes up whenever model or task change; work begun before that is not kept
    growth: Growth | None = None
    planned: EditSet = field(default_factory=EditSet)  # what the growth that is to repeat a recipe begins with
    grown_on: tuple[str, ...] = ()  # concepts of the stack beneath the growth
    stack: Stack = field(default_factory=Stack)
    clip_edit: Growth | None = None  # left behind when another model was loaded; may fit one with the same image tower
    tested: tuple[Evaluation, Evaluation] | None = None  # before and after on the test split
    domain: dict | None = None  # colour ranges of the map shown, kept so that rounds stay comparable
    focus: str | None = None  # the unit looked at
    shown: Measured | None = None  # the edit last shown with its metrics
    earlier: Measured | None = None  # the one shown before that
    left: "Left | None" = None  # rounds of an earlier page, offered back
    found: dict = field(default_factory=dict)  # what the expensive views found, by view
    sides: tuple[str, str] | None = None  # what the compare screen shows left and right; None for before and now
    revision: int = 0  # goes up with every change of the edit; an estimate of an older one is not begun
    guided: bool = False  # the guide is open
    step: int = 0  # of the guide
    ack: int = 0  # number of the last gesture on the map that was dealt with
    gesture: threading.Condition = field(default_factory=threading.Condition)  # held while one is dealt with
    uploads: set[str] = field(default_factory=set)  # files Gradio keeps for this visitor; they go with the session
    easel: Easel | None = None  # with the pictures a model drew for this visitor; they go with the session too
    stop: threading.Event = field(default_factory=threading.Event)
    stopped: float = -math.inf  # when a person last asked for a stop
    running: int = 0  # handlers at work for this visitor
    touched: float = 0.0
    closed_at: float | None = None

    def halt(self) -> None:
        """End work at its next step, and before it begins what was asked for until now and waits its turn."""
        self.stopped = time.monotonic()
        self.stop.set()

    def begin(self) -> None:
        """Let work go on that was asked for after the last stop.

        Raises:
            Stopped: it was asked for before that, and waited.
        """
        if ASKED.get() < self.stopped:
            raise Stopped("Stopped before it began; nothing was changed.")
        self.stop.clear()

    def forget_files(self) -> None:
        """Stop work and delete what this visitor uploaded and had drawn."""
        self.stop.set()
        for path in set(self.uploads):
            self._drop(path)
        if self.easel is not None:
            self.easel.album.close()

    def new_folder(self, kind: str) -> Path:
        """An empty folder for a file this visitor takes away; put the file among `uploads`, and both go with it.

        What was written for the same kind before goes now.
        """
        for path in [path for path in self.uploads if _own_folder(path, kind)]:
            self._drop(path)
        Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{OWN}{kind}-", dir=get_upload_folder()))

    def _drop(self, path: str) -> None:
        self.uploads.discard(path)
        Path(path).unlink(missing_ok=True)
        if _own_folder(path):
            shutil.rmtree(Path(path).parent, ignore_errors=True)

    def start_over(self) -> None:
        """Drop everything that followed from the task, and end work on it; the stack of other concepts stays."""
        self.stop.set()
        self.epoch += 1
        self.revision += 1
        self.growth, self.task, self.tested, self.domain = None, None, None, None
        self.planned = EditSet()
        self.focus, self.sides, self.found = None, None, {}
        self.shown, self.earlier = None, None

    def edited(self) -> None:
        """The edit moved: what was measured of it no longer holds."""
        self.revision += 1
        self.tested = None

    def show(self, edit: Measured) -> None:
        """An edit is shown with its metrics."""
        if self.shown is not None and self.shown[:2] != edit[:2]:
            self.earlier = self.shown
        self.shown = edit

    def before(self, position: Position) -> Measured | None:
        """The edit shown before the one at `position`, whether or not that one is shown yet.

        Work on an earlier edit may show this one, if its metrics are known, before its own estimate is made.
        """
        now = position.state, position.edit_set
        return self.earlier if self.shown is not None and self.shown[:2] == now else self.shown

    @contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """Hold the map for gesture `number`, once those before it are dealt with; they may have overtaken one another
        on the way here."""
        with self.gesture:
            self.gesture.wait_for(lambda: self.ack >= number - 1, timeout=ARRIVING)
            try:
                yield
            finally:
                self.ack = max(self.ack, number)
                self.gesture.notify_all()

    def keep(self, view: str, value: object) -> None:
        """What an expensive view found about the scores shown."""
        self.found[view] = self._scored_as(), value

    def kept(self, view: str):
        """The same again, while those scores are the ones shown; else None."""
        at, value = self.found.get(view, (None, None))
        fits = self.growth is not None and self.growth.showable and at == self._scored_as()
        return value if fits else None

    def _scored_as(self) -> tuple[int, str]:
        """The state whose scores are shown, and the loss they are of."""
        return self.growth.scored_at, self.growth.forget_loss

    def look_at_best(self) -> None:
        """Look at the edited unit of highest phi, unless the visitor looks at one already."""
        members = {name for r in self.growth.rounds for name in r.members} & {*self.growth.edit_set.members}
        if self.focus is None and members and self.growth.showable:
            self.focus = min(
                (s for s in self.growth.shown_scores() if s.unit.name in members), key=lambda s: s.rank
            ).unit.name

    def need_growth(self) -> Growth:
        """The growth, or a sentence saying how to get one."""
        if self.growth is None:
            raise InputError("Nothing is scored yet; press Score first.")
        return self.growth

    def settle(self, config: RazorConfig) -> None:
        """Take over settings; rounds already grown stay."""
        if self.growth is not None:
            self.growth.configure(config)


class Sessions:
    """All visitors, by the session hash Gradio gives each page, and where their rounds are saved."""

    def __init__(self, root: Path | None = None):
        self._all: dict[str, Session] = {}
        self._lock = threading.Lock()
        self.root = root or Path(tempfile.gettempdir()) / f"razor-studio-{_user()}"

    def get(self, key: str) -> Session:
        """The session of this page, made on first use."""
        with self._lock:
            self._sweep(keep=key)
            session = self._all.setdefault(key, Session(key))
            session.touched, session.closed_at = time.monotonic(), None
            return session

    def close(self, key: str) -> None:
        """The page was left: stop its work; its state and uploads go after a grace period."""
        with self._lock:
            if session := self._all.get(key):
                session.halt()
                session.closed_at = time.monotonic()
        timer = threading.Timer(GRACE + 1, self.sweep)
        timer.daemon = True
        timer.start()

    def sweep(self) -> None:
        """Let go of sessions that were closed or idle for long."""
        with self._lock:
            self._sweep()

    def __len__(self) -> int:
        return len(self._all)

    # Rounds that outlive a page

    def save(self, session: Session) -> None:
        """Write the session's rounds, unless its pictures are a person's own. A full disk costs only the copy."""
        growth = session.growth
        if growth is None or session.task is not None or not (folder := self._folder(session)):
            return
        if growth.bench.beneath.deltas:
            return  # without the stack beneath it, the growth could not be taken up again
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._own():
                return
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            saved.save(growth, folder, {"target": session.target, "model": session.model})
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)

    def left_behind(self, session: Session) -> "Left | None":
        """The newest rounds this browser made on a page that is no longer open; None when there are none."""
        if not _TOKEN.fullmatch(session.token):
            return None
        with self._lock:
            mine = self._others(session)
            closed = [s for s in mine if s.closed_at is not None and s.growth and s.growth.begun]
            if closed:
                last = max(closed, key=lambda s: s.closed_at)
                return Left(last, None, _note(last))
            live = {s.key for s in mine} | {session.key}
        try:
            self._expire()
            folders = [f for f in self._mine(session) if f.name not in live]
            folders.sort(key=lambda f: f.stat().st_mtime, reverse=True)
        except OSError:
            return None  # somebody else is tidying up; the next page asks again
        for folder in folders:
            try:
                note = saved.read_note(folder)
            except InputError:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            if note["rounds"]:
                return Left(None, folder, note)
        return None

    def may_be_leaving(self, session: Session) -> bool:
        """Another page of this browser is at work and not known to be closed: it may be closing just now."""
        with self._lock:
            return any(s.closed_at is None and s.growth and s.growth.begun for s in self._others(session))

    def _others(self, session: Session) -> list[Session]:
        same = [s for s in self._all.values() if s.token == session.token and s is not session]
        return same if _TOKEN.fullmatch(session.token) else []

    @contextmanager
    def working(self, key: str) -> Iterator[Session]:
        """The session of this page, not let go while the block runs."""
        session = self.get(key)
        with self._lock:
            session.running += 1
        try:
            yield session
        finally:
            with self._lock:
                session.running -= 1

    def _own(self) -> bool:
        """The folder is ours alone: not a link, and no other user may look into it."""
        found = self.root.lstat()
        ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
        return self.root.is_dir() and not self.root.is_symlink() and ours and not found.st_mode & 0o077

    def drop(self, left: "Left") -> None:
        """Delete rounds that were offered back."""
        if left.folder:
            shutil.rmtree(left.folder, ignore_errors=True)
        if left.session:
            with self._lock:
                if gone := self._all.pop(left.session.key, None):
                    gone.forget_files()
            if folder := self._folder(left.session):
                shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, session: Session) -> Path | None:
        good = _TOKEN.fullmatch(session.token) and re.fullmatch(r"[0-9a-z]{1,64}", session.key)
        return self.root / session.token / session.key if good else None

    def _mine(self, session: Session) -> list[Path]:
        home = self.root / session.token
        return [f for f in home.iterdir() if f.is_dir()] if home.is_dir() and self._own() else []

    def _expire(self) -> None:
        homes = self.root.iterdir() if self.root.is_dir() and self._own() else ()
        for home in [h for h in homes if h.is_dir() and _TOKEN.fullmatch(h.name)]:
            for folder in home.iterdir():
                if time.time() - folder.stat().st_mtime > KEEP_SAVED:
                    shutil.rmtree(folder, ignore_errors=True)
            if not any(home.iterdir()):
                home.rmdir()

    def _sweep(self, keep: str | None = None) -> None:
        now = time.monotonic()
        gone = [
            key
            for key, s in self._all.items()
            if key != keep
            and not s.running
            and (now - s.touched > IDLE or (s.closed_at is not None and now - s.closed_at > GRACE))
        ]
        left = [key for key in self._all if key not in gone]
        free = sorted((k for k in left if k != keep and not self._all[k].running), key=lambda k: self._all[k].touched)
        coming = keep is not None and keep not in self._all
        too_many = max(0, len(left) + coming - MAX_SESSIONS)
        for key in {*gone, *free[:too_many]}:
            self._all.pop(key).forget_files()


@dataclass(frozen=True)
class Left:
    """Rounds that can be offered back: of a page closed a moment ago, or from disk."""

    session: Session | None
    folder: Path | None
    note: Mapping[str, str]


def _own_folder(path: str, kind: str = "") -> bool:
    """The file lies in a folder of `Session.new_folder`, for this kind where one is given."""
    return Path(path).parent.name.startswith(OWN + kind)


def _note(session: Session) -> dict:
    growth = session.growth
    rounds = len(growth.history.states) - 1
    below = [name for name in session.stack.names if name != growth.task.concept]
    note = {"target": session.target, "model": session.model, "concept": growth.task.concept, "rounds": rounds}
    return note | {"under_way": growth.rounding, "stack": ", ".join(below)}


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "user"
