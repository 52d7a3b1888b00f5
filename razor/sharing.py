"""One bench for all who work on the same bundled task with the same bundled model.

What the unedited model makes of such a task is found out once; whoever comes later begins where the first one stood.
Both stay loaded anyway. Other models, and pictures of a person's own, are held by nobody but their growths.
"""

import threading
from collections import OrderedDict

from razor import models, processes
from razor.adapters.base import Adapter, Bench
from razor.examples import Task
from razor.minicanvas import tasks
from razor.patches import Patch, model_lock

KEPT = 3  # benches kept of a model, the last ones asked for; each holds its pictures as the model reads them

_benches: dict[Adapter, OrderedDict[tuple, Bench]] = {}
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

    It shares nothing where edits lie beneath, where several processes run, and where model or task is not bundled.
    """
    settings = {"batch": batch or adapter.batch, "mismatch_weight": mismatch_weight, "seed": seed}
    if beneath.deltas or processes.count() > 1 or not (models.stays(adapter) and tasks.stays(task)):
        return adapter.bench(task, **settings, beneath=beneath)
    place = (id(task), *settings.values())
    with _shelf:
        kept = _benches.setdefault(adapter, OrderedDict())
    with model_lock(adapter.model):  # who asks for the same bench meanwhile waits for it
        if place not in kept:
            kept[place] = adapter.bench(task, **settings, beneath=beneath)
        kept.move_to_end(place)
        while len(kept) > KEPT:
            kept.popitem(last=False)
        return kept[place].another()
