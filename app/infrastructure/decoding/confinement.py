"""What a child may still do that looks at a file: use what is open, within bounds.

On Linux the system calls are limited as well (`system_calls`). Elsewhere, and on processors whose calls are not listed,
the limits hold that the system has: as no descriptor is left, every socket, pipe and open file is refused there, too.
"""

import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass

from app.infrastructure.decoding.system_calls import (
    allows_only_what_is_listed,
    control_process,
    forbid_other_calls,
)

# Enough for 50 megapixels of any format. A WebP takes most: 16 bytes a pixel while it is decoded.
MEMORY_BYTES_MAX = 1024 * 1024 * 1024
# Some systems do not count what is mapped as data. This counts the libraries, too, which take 150 MB.
_ADDRESSES_BYTES_MAX = MEMORY_BYTES_MAX + 512 * 1024 * 1024
# An upload has 100 MB at most, and what is kept of it may be a little larger, a picture without loss much.
OUTPUT_BYTES_MAX = 112 * 1024 * 1024
_NICENESS = 10
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long a child may take: of a processor, and in all, where others keep it from one."""

    processor: int
    in_all: float


def confine(parent: int, descriptors: int, seconds: Seconds) -> None:
    """For the rest of this process: `descriptors` is how many of them, from 0 on, stay open; it ends with its parent.

    What has not been imported before cannot be imported any more. Raises OSError where the system refuses something.
    """
    os.closerange(descriptors, _descriptor_limit())
    os.environ.clear()
    os.nice(_NICENESS)
    if sys.platform == "linux":
        control_process(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # A handler of core dumps gets them whatever the limit is, and would keep what somebody sent.
        control_process(_PR_SET_DUMPABLE, 0)
    if os.getppid() != parent:
        # The parent was gone before this one could ask to end with it.
        raise ProcessLookupError
    _limit(descriptors, seconds)
    if allows_only_what_is_listed():
        forbid_other_calls()


def offer_to_the_killer_first() -> None:
    """Where memory gets short, Linux is to end this process before the service. Needs to open a file."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _descriptor_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 65_536 if soft == resource.RLIM_INFINITY else soft


def _limit(descriptors: int, seconds: Seconds) -> None:
    limits = {
        resource.RLIMIT_NOFILE: descriptors,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: OUTPUT_BYTES_MAX,
        resource.RLIMIT_CPU: seconds.processor,
        resource.RLIMIT_DATA: MEMORY_BYTES_MAX,
        resource.RLIMIT_AS: _ADDRESSES_BYTES_MAX,
    }
    if not allows_only_what_is_listed():
        # It counts threads, too, where the system calls one a process.
        limits[resource.RLIMIT_NPROC] = 0
    for name, value in limits.items():
        _, hard = resource.getrlimit(name)
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # At the first bound of its time a process is sent a signal that says so, at the second one SIGKILL.
        later = least + 1 if name == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else least
        try:
            resource.setrlimit(name, (least, later))
        except ValueError:
            # macOS lets nobody limit the addresses of a process that has more of them already.
            if sys.platform == "linux":
                raise
