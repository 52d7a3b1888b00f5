"""One bench for all who work on the same task with the same model.

What the unedited model makes of a task is found out once; whoever comes later begins where the first one stood.
"""

import threading
from collections import OrderedDict
from weakref import WeakKeyDictionary

from razor import processes
from razor.adapters.base import Adapter, Bench
from razor.examples import Task
from razor.patches import Patch, model_lock

KEPT = 3  # benches kept of a model, the last ones asked for; each holds its pictures as the model reads them

_benches: WeakKeyDictionary[Adapter, OrderedDict[tuple, tuple[Task, Bench]]] = WeakKeyDictionary()
_shelf = threading.Lock()


def bench_for(
    adapter: Adapter,
    task: Task,
    *,
    batch: int | None = None,
    mismatch_weight: float = 1.0,
    seed: int = 0,
    beneath: Patch = Patch(),
) -> Bench:
    """`adapter.bench` of its caller's own, which shares what is known of the unedited model with those before it.

    Edits beneath and several processes get one that shares nothing.
    """
    settings = {"batch": batch or adapter.batch, "mismatch_weight": mismatch_weight, "seed": seed}
    if beneath.deltas or processes.count() > 1:
        return adapter.bench(task, **settings, beneath=beneath)
    place = (id(task), *settings.values())
    with _shelf:
        kept = _benches.setdefault(adapter, OrderedDict())
    with model_lock(adapter.model):  # who asks for the same bench meanwhile waits for it
        if place not in kept:
            kept[place] = (
                task,
                adapter.bench(task, **settings, beneath=beneath),
            )  # the task is held, so that its id stays its own
        kept.move_to_end(place)
        while len(kept) > KEPT:
            kept.popitem(last=False)
        return kept[place][1].another()
