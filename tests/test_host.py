"""Memory that is kept and helper threads that end, each seen from a process of its own."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc and libgomp are looked after on Linux alone")


def said(code: str, **environment: str) -> list[int]:
    """The whole numbers that this Python prints on two cores."""
    cores = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | cores | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


FAULTS = """
import resource, torch
from razor.host import keep_memory
{}
def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        kept = [torch.ones(n * 2**18) for n in range(1, 28)]  # 1 to 27 MiB
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(5)
print(faults(20))
"""


def test_kept_memory_is_not_fetched_anew():
    forgetful = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # gives every tensor back; left alone, glibc gives some back
    (kept,), (fetched,) = (said(FAULTS.format(line), **forgetful) for line in ("keep_memory()", ""))
    assert kept < fetched / 10


def test_a_thread_that_rests_leaves_no_helper_waiting_and_computes_the_same_afterwards():
    before, at_work, resting, again, same = said("""
import os, time, torch
from razor.host import rest_cores
def threads():
    time.sleep(0.2)  # the system lists a thread for a moment after it has ended
    return len(os.listdir("/proc/self/task"))
numbers = torch.arange(10.0**6)
rest_cores()
before = threads()
first = numbers.sin()
at_work = threads()
rest_cores()
resting = threads()
second = numbers.sin()
print(before, at_work, resting, threads(), int(first.equal(second)))
rest_cores()
rest_cores()  # with nothing to end
""")
    assert before == resting == at_work - 1 == again - 1
    assert same
