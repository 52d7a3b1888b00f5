"""What benchmarks share: which code and machine a number comes from, and peak memory."""

import hashlib
import multiprocessing
import platform
import re
import resource
from pathlib import Path


def machine() -> str:
    """The machine in a few words."""
    return f"{platform.system()} {platform.machine()}, {multiprocessing.cpu_count()} cores"


def code_hash(*more: str) -> str:
    """A hash of the method's own source, so that rows of two versions are never mixed in one table.

    Args:
        more: folders of razor/ that count as well.
    """
    package = Path(__file__).parent.parent
    files = sorted(file for folder in (".", "adapters", "minicanvas", *more) for file in package.glob(f"{folder}/*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


def reset_peak() -> float:
    """Start counting the peak anew (Linux); returns the resident memory now, MiB."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return 0.0
    clear.write_text("5")
    return peak_mib()


def peak_mib() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
