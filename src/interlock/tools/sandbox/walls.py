"""The walls that a process puts around itself before it is given code that nobody trusts.

It runs by its path, without Interlock and without site packages, so it imports nothing but the
standard library. Whatever of it this machine cannot do is an `OSError`: there is no weaker wall.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable

NOBODY = 65534
SCRATCH = "/scratch"
SCRATCH_BYTES = 16 * 1024 * 1024
MEMORY_BYTES = 256 * 1024 * 1024
TASKS = 16
OPEN_FILES = 64
OLDEST_LANDLOCK = 3
"""The first that holds truncation; Linux 6.2."""

_MOUNT_POINT = "/mnt"
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")

_MOUNTS = 0x20000
_OTHER_NAMESPACES = 0x8000000 | 0x4000000 | 0x10000000 | 0x20000000 | 0x40000000
# IPC, UTS, user, PID and network, in this order
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV = 4096, 16384, 1 << 18, 2, 4
_AT_FDCWD, _AT_RECURSIVE, _MNT_DETACH = -100, 0x8000, 2
_ATTR_READ_ONLY = 0x1 | 0x2 | 0x4  # read-only, no set-user-id, no devices
_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES = 1, 4, 22, 38

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _MOUNT_SETATTR = 444, 445, 446, 442
_READ = 0x1 | 0x4 | 0x8  # execute (mapping libraries), read files, read folders
_EVERY_FILE_RIGHT = 0x7FFF
_OF_SCRATCH = 0x4 | 0x8 | 0x2 | 0x10 | 0x20 | 0x80 | 0x100 | 0x1000 | 0x2000 | 0x4000

# x86-64 and AArch64; -1 where there is no such call. Refused with EPERM.
_REFUSED = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "fork": (57, -1),
    "vfork": (58, -1),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "prctl": (157, 167),
    "personality": (135, 92),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_CLONE, _CLONE3, _CLONE_THREAD, _X32 = (56, 220), 435, 0x10000, 0x40000000
_EPERM, _ENOSYS = 1, 38

_libc = ctypes.CDLL(None, use_errno=True)


def confine(cpu_s: int) -> None:
    """Put the calling process behind all walls; it goes on in a child that is alone in its world.

    The parent waits for the child and ends as it did. Raises `OSError` if a wall cannot be built.
    """
    folders = _libraries()
    is_root = os.getuid() == 0
    if is_root:
        # Only root may be able to read its Python; and the kernel holds root to no number of tasks.
        _call("make a mount namespace", _libc.unshare(_MOUNTS))
        _new_root(folders)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        _prctl("allow the user map", _SET_DUMPABLE, 1)
    _prctl("die with the server", _SET_DEATH_SIGNAL, signal.SIGKILL)
    _enter_namespaces()
    if is_root:
        # What root mounted is locked for others; a copy of it is not.
        _mount(_MOUNT_POINT, _MOUNT_POINT, None, _MS_BIND | _MS_REC, None)
    else:
        _new_root(folders)
    _change_root()
    _limit(cpu_s)
    _drop_capabilities()
    _prctl("take no new privileges", _SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _landlock(folders)
    _seccomp()


def _enter_namespaces() -> None:
    """Go on in a child that is the first process of its namespaces."""
    user, group = os.getuid(), os.getgid()
    _call("make namespaces", _libc.unshare(_MOUNTS | _OTHER_NAMESPACES))
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123  # start cost
            file.write(text)
    child = os.fork()
    if child:
        # Only the child holds the pipes, so that they end with it.
        os.closerange(0, OPEN_FILES)
        os._exit(0 if os.waitpid(child, 0)[1] == 0 else 1)
    _prctl("die with the parent", _SET_DEATH_SIGNAL, signal.SIGKILL)


def _libraries() -> list[str]:
    wanted = (os.path.dirname(os.__file__), *_SYSTEM_LIBRARIES)  # noqa: PTH120  # start cost
    return [path for path in dict.fromkeys(wanted) if os.path.isdir(path)]  # noqa: PTH112  # as above


def _new_root(folders: Iterable[str]) -> None:
    """Leave nothing of the file system but libraries, read-only, and an empty scratch folder."""
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE, None)
    options = f"size={SCRATCH_BYTES},nr_inodes=4096,mode=755"
    _mount("tmpfs", _MOUNT_POINT, "tmpfs", _MS_NOSUID | _MS_NODEV, options)
    scratch = _MOUNT_POINT + SCRATCH
    os.mkdir(scratch, 0o700)  # noqa: PTH102  # start cost
    if os.getuid() == 0:
        os.chown(scratch, NOBODY, NOBODY)
    attributes = struct.pack("QQQQ", _ATTR_READ_ONLY, 0, 0, 0)
    for folder in folders:
        target = _MOUNT_POINT + folder
        os.makedirs(target, exist_ok=True)  # noqa: PTH103  # start cost
        if os.listdir(target):  # noqa: PTH208  # start cost
            continue  # it came with a folder above it
        _mount(folder, target, None, _MS_BIND | _MS_REC, None)
        done = _libc.syscall(
            _MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, len(attributes)
        )
        _call(f"make `{folder}` read-only", done)


def _change_root() -> None:
    os.chdir(_MOUNT_POINT)
    _call("change the root", _libc.syscall(_number("pivot_root"), b".", b"."))
    _call("leave the old root", _libc.umount2(b".", _MNT_DETACH))
    os.chdir(SCRATCH)


def _limit(cpu_s: int) -> None:
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, SCRATCH_BYTES),
        (resource.RLIMIT_NPROC, TASKS),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _drop_capabilities() -> None:
    header = struct.pack("Ii", 0x20080522, 0)
    _call("drop capabilities", _libc.capset(header, bytes(24)))


def _landlock(folders: Iterable[str]) -> None:
    version = _libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < OLDEST_LANDLOCK:
        raise OSError(0, f"Landlock {OLDEST_LANDLOCK} (Linux 6.2) is needed, {version} is there")
    rights = _EVERY_FILE_RIGHT | (0x8000 if version >= 5 else 0)  # noqa: PLR2004  # device calls
    network = 3 if version >= 4 else 0  # noqa: PLR2004  # bind and connect
    scopes = 3 if version >= 6 else 0  # noqa: PLR2004  # abstract sockets and signals
    ruleset = struct.pack("QQQ", rights, network, scopes)
    made = _libc.syscall(_CREATE_RULESET, ruleset, len(ruleset) if scopes else 16, 0)
    _call("make a Landlock ruleset", made)
    for path, allowed in ((SCRATCH, _OF_SCRATCH), *((folder, _READ) for folder in folders)):
        place = os.open(path, os.O_PATH | os.O_DIRECTORY)
        rule = struct.pack("=Qi", allowed, place)
        _call(f"allow `{path}`", _libc.syscall(_ADD_RULE, made, 1, rule, 0))
        os.close(place)
    _call("enforce Landlock", _libc.syscall(_RESTRICT_SELF, made, 0))
    os.close(made)


def _seccomp() -> None:
    """Refuse the calls that reach other processes, other programs, sockets or kernel edges."""
    column, audit = _machine()
    lines = [(0x20, 0, 0, 4), (0x15, 1, 0, audit), (0x06, 0, 0, 0x80000000), (0x20, 0, 0, 0)]
    refuse, allow = 0x00050000, 0x7FFF0000
    lines += [(0x35, 0, 1, _X32), (0x06, 0, 0, refuse | _EPERM)]
    for number in sorted(pair[column] for pair in _REFUSED.values() if pair[column] >= 0):
        lines += [(0x15, 0, 1, number), (0x06, 0, 0, refuse | _EPERM)]
    # Threads are made by `clone3` where it can be, whose flags no filter can see.
    lines += [(0x15, 0, 1, _CLONE3), (0x06, 0, 0, refuse | _ENOSYS)]
    lines += [(0x15, 0, 3, _CLONE[column]), (0x20, 0, 0, 16)]
    lines += [(0x45, 1, 0, _CLONE_THREAD), (0x06, 0, 0, refuse | _EPERM), (0x06, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(code))
    _call("enforce seccomp", _libc.prctl(_SET_SECCOMP, 2, program, 0, 0))


def _machine() -> tuple[int, int]:
    name = os.uname().machine if sys.maxsize > 1 << 32 else "32 bit"
    if name not in _MACHINES:
        raise OSError(0, f"no list of system calls for `{name}`")
    return _MACHINES[name]


def _number(name: str) -> int:
    return _REFUSED[name][_machine()[0]]


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    _call(f"mount `{target}`", _libc.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]))


def _prctl(what: str, *arguments: int) -> None:
    _call(what, _libc.prctl(*arguments))


def _call(what: str, answer: int) -> None:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot {what}: {os.strerror(number)}")
