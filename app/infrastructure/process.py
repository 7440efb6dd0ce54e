"""What this process asks of the system that it runs on: descriptors for its connections, and memory that goes back."""

import ctypes
import resource
from contextlib import suppress

DESCRIPTORS_WANTED = 65_536
DESCRIPTORS_MIN = 128
# PostgreSQL's connections, those to fal and to webhook endpoints at their most, files, pipes, and callers who are just
# being turned away.
DESCRIPTORS_RESERVED = 1_300
CONNECTIONS_MAX = 20_000
LARGE_BLOCK_BYTES = 64 * 1024

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


class TooFewDescriptors(Exception):
    """The message is one line for the operator."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files as far as the hard one lets it, and return what is in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(DESCRIPTORS_WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return DESCRIPTORS_WANTED if soft == resource.RLIM_INFINITY else soft
    # macOS states a hard limit that it then refuses.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def connections_within(descriptors: int) -> int:
    """How many callers may be connected, so that the runner and PostgreSQL always get a descriptor.

    Raises TooFewDescriptors.
    """
    if descriptors < DESCRIPTORS_MIN:
        raise TooFewDescriptors(
            f"this process may open {descriptors} files, but needs {DESCRIPTORS_MIN}: raise its limit (ulimit -n)"
        )
    return min(CONNECTIONS_MAX, max(descriptors - DESCRIPTORS_RESERVED, descriptors // 4))


def give_large_memory_back() -> None:
    """Let glibc return every large block to the system the moment it is freed.

    By default it learns from the first large body that such blocks come often, and from then on keeps them: after a
    rush of bodies of 14 MB a gigabyte stayed. Other C libraries do not know these two names, and need nothing.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        # Each thread that parses a body would otherwise get a heap of its own.
        mallopt(_M_ARENA_MAX, 2)
