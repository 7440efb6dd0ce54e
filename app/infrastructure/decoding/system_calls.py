"""The system calls that are left to a child: to read and write what is open, to get memory, to tell the time, to end.

A list of what is allowed: whatever a kernel learns later is not on it. It is a seccomp filter, written for
linux/filter.h as that header and linux/seccomp.h define it; the numbers are those of the kernel's own tables
(arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h). Nothing here makes a descriptor, a process
or a signal, or takes the name of a file. Threads may be made, because libde265 decodes HEIC in one and ends the process
where it gets none.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Sequence
from errno import ENOSYS, EPERM
from struct import pack

_X86_64 = {
    "read": 0,
    "write": 1,
    "close": 3,
    "lseek": 8,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "pread64": 17,
    "pwrite64": 18,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "getpid": 39,
    "exit": 60,
    "ftruncate": 77,
    "gettimeofday": 96,
    "futex": 202,
    "sched_getaffinity": 204,
    "restart_syscall": 219,
    "clock_gettime": 228,
    "exit_group": 231,
    "set_robust_list": 273,
    "getrandom": 318,
    "rseq": 334,
}
_AARCH64 = {
    "read": 63,
    "write": 64,
    "close": 57,
    "lseek": 62,
    "mmap": 222,
    "mprotect": 226,
    "munmap": 215,
    "brk": 214,
    "rt_sigaction": 134,
    "rt_sigprocmask": 135,
    "rt_sigreturn": 139,
    "pread64": 67,
    "pwrite64": 68,
    "sched_yield": 124,
    "mremap": 216,
    "madvise": 233,
    "set_robust_list": 99,
    "rseq": 293,
    "getpid": 172,
    "exit": 93,
    "ftruncate": 46,
    "gettimeofday": 169,
    "futex": 98,
    "sched_getaffinity": 123,
    "restart_syscall": 128,
    "clock_gettime": 113,
    "exit_group": 94,
    "getrandom": 278,
}
# What linux/audit.h calls each architecture. A process may make calls of another one as well, whose numbers differ.
_TABLES = {"x86_64": (0xC000003E, 56, _X86_64), "aarch64": (0xC00000B7, 220, _AARCH64)}
# The flags with which the C libraries make a thread, glibc and musl; any others may make a process. To clone3 they are
# handed in memory, where a filter cannot look. Told that it does not exist, glibc takes clone.
_THREAD_FLAGS = (0x3D0F00, 0x7D0F00)
_CLONE3 = 435

_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_RET_KILL_PROCESS = 0x80000000
_RET_ERRNO = 0x00050000
_RET_ALLOW = 0x7FFF0000
_LOAD_WORD = 0x20
_JUMP_IF_EQUAL = 0x15
_RETURN = 0x06
_AT_NUMBER, _AT_ARCHITECTURE, _AT_FIRST_ARGUMENT = 0, 4, 16


def allows_only_what_is_listed() -> bool:
    """Whether this system has such filters, and its numbers are known here."""
    return sys.platform == "linux" and platform.machine() in _TABLES


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid_other_calls() -> None:
    """For the rest of this process: every other call fails with EPERM. Raises OSError."""
    architecture, clone, numbers = _TABLES[platform.machine()]
    instructions = _instructions(architecture, clone, sorted(numbers.values()))
    program = _Program(len(instructions), b"".join(instructions))
    control_process(_PR_SET_NO_NEW_PRIVS, 1)
    control_process(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


def control_process(option: int, first: int, second: int = 0) -> None:
    """Linux's prctl. Raises OSError."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(ctypes.c_int(option), *(ctypes.c_ulong(each) for each in (first, second, 0, 0))) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _instructions(architecture: int, clone: int, allowed: Sequence[int]) -> list[bytes]:
    def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return pack("=HBBI", code, if_true, if_false, value)

    def allow_if(value: int, behind: int) -> bytes:
        """`behind` is how many instructions stand between this one and the last, which allows."""
        return instruction(_JUMP_IF_EQUAL, value, if_true=behind)

    # A jump counts the instructions that it leaves out.
    threads = len(_THREAD_FLAGS)
    return [
        instruction(_LOAD_WORD, _AT_ARCHITECTURE),
        instruction(_JUMP_IF_EQUAL, architecture, if_true=1),
        instruction(_RETURN, _RET_KILL_PROCESS),
        instruction(_LOAD_WORD, _AT_NUMBER),
        instruction(_JUMP_IF_EQUAL, _CLONE3, if_false=1),
        instruction(_RETURN, _RET_ERRNO | ENOSYS),
        *(allow_if(each, len(allowed) - at + threads + 2) for at, each in enumerate(allowed)),
        instruction(_JUMP_IF_EQUAL, clone, if_false=1 + threads),
        instruction(_LOAD_WORD, _AT_FIRST_ARGUMENT),
        *(allow_if(each, threads - at) for at, each in enumerate(_THREAD_FLAGS)),
        instruction(_RETURN, _RET_ERRNO | EPERM),
        instruction(_RETURN, _RET_ALLOW),
    ]
