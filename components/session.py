"""What one visitor has, kept on the server by session: settings, task, growth. Never a model."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from razor.config import RazorConfig
from razor.errors import InputError
from razor.examples import Example, Task
from razor.growth import Growth
from razor.metrics import Evaluation

GRACE = 120.0  # seconds a closed page is kept: a sleeping laptop also looks closed
IDLE = 7200.0  # seconds without an event before an open page is let go
MAX_SESSIONS = 64


@dataclass
class Session:
    """One visitor's state. Handlers read and write it; the page holds nothing that matters."""

    model: str = "mini-clip"
    target: str = "object:cat"
    forget: tuple[Example, ...] = ()  # the visitor's own pictures, when used
    retain: tuple[Example, ...] = ()
    task: Task | None = None
    epoch: int = 0  # goes up whenever model or task change; work begun before that is not kept
    growth: Growth | None = None
    tested: tuple[Evaluation, Evaluation] | None = None  # before and after on the test split
    domain: dict | None = None  # colour ranges of the first scoring, kept so that rounds stay comparable
    ack: int = 0  # number of the last click on the map that was taken into account
    uploads: set[str] = field(default_factory=set)  # files Gradio keeps for this visitor; they go with the session
    stop: threading.Event = field(default_factory=threading.Event)
    running: int = 0  # handlers at work for this visitor
    touched: float = 0.0
    closed_at: float | None = None

    def forget_files(self) -> None:
        """Stop work and delete what this visitor uploaded."""
        self.stop.set()
        for path in self.uploads:
            Path(path).unlink(missing_ok=True)

    def start_over(self) -> None:
        """Drop everything that followed from the task, and end work on it."""
        self.stop.set()
        self.epoch += 1
        self.task, self.growth, self.tested, self.domain = None, None, None, None

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
    """All visitors, by the session hash Gradio gives each page."""

    def __init__(self):
        self._all: dict[str, Session] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Session:
        """The session of this page, made on first use."""
        with self._lock:
            self._sweep(keep=key)
            session = self._all.setdefault(key, Session())
            session.touched, session.closed_at = time.monotonic(), None
            return session

    def close(self, key: str) -> None:
        """The page was left: stop its work; its state and uploads go after a grace period."""
        with self._lock:
            if session := self._all.get(key):
                session.stop.set()
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
