"""The inside of the sandbox: started by :mod:`versatune.evaluation.sandbox` as a script.

Only the standard library, run with ``python -I -S``. Three processes:

1. this one leaves every namespace of the machine, watches the clock, and reports the end;
2. its child is process 1 of a new process namespace: when it ends, the kernel kills everything
   in there, in whatever session. It makes a new file tree, in which nothing of the
   machine exists but the standard library, read-only, and waits for
3. the program: as nobody, without capabilities, with limits on everything.

If any step is refused the program is not run.
"""

# System calls by their own names, and as few imports as can be.
# ruff: noqa: PTH102, PTH103, PTH106, PTH112, PTH114, PTH115, PTH123, PTH211

import ctypes
import errno
import json
import os
import platform
import resource
import select
import signal
import struct
import sys
import traceback
import types
from typing import Any, NoReturn

NOBODY = 65534

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 0x1, 0x2, 0x4
SYS_MOUNT_SETATTR = 442  # one number on every architecture
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
CAPABILITY_VERSION_3 = 0x20080522

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x80000000, 0x50000, 0x7FFF0000
BPF_LOAD_WORD, BPF_JMP, BPF_JEQ, BPF_JGE, BPF_RETURN = 0x20, 0x05, 0x10, 0x30, 0x06
FOREIGN_CALLS = 0x40000000  # from here on, x86_64 has its calls a second time
HIDDEN_MEMORY = {  # audit architecture; shmget, semget, msgget, memfd_create, memfd_secret
    "x86_64": (0xC000003E, (29, 64, 68, 319, 447)),
    "aarch64": (0xC00000B7, (194, 190, 186, 279, 447)),
}

MAX_FILES = 4096  # an inode is memory too, and no size of a file system counts it

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> None:
    """A function of the C library; OSError with its name when it fails."""
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def syscall(number: int, *arguments: Any) -> None:
    call("syscall", ctypes.c_long(number), *arguments)


def die_with_parent() -> None:
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def leave_namespaces() -> None:
    """New mount, process, network, IPC and host-name namespaces for the children.

    Root does it with root's rights, so that the program can run as somebody else; any other
    user first becomes root of a new user namespace, which has no rights outside of it.
    """
    spaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        call("unshare", spaces)
        return
    call("unshare", spaces | CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as handle:
            handle.write(text)


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    call(
        "mount",
        source.encode(),
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )


def read_only(path: str, flags: int = AT_RECURSIVE) -> None:
    """Make a mount, and with AT_RECURSIVE every mount below it, read-only."""
    wanted = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    attributes = struct.pack("QQQQ", wanted, 0, 0, 0)
    syscall(
        SYS_MOUNT_SETATTR,
        ctypes.c_int(AT_FDCWD),
        ctypes.c_char_p(path.encode()),
        ctypes.c_uint(flags),
        ctypes.c_char_p(attributes),
        ctypes.c_size_t(len(attributes)),
    )


def build_root(libraries: list[str], work_mb: int) -> None:
    """An empty file tree with the libraries, read-only, and a small writable ``/own``."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("jail", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size=1m,nr_inodes={MAX_FILES},mode=755")
    os.mkdir("/tmp/old")
    syscall(SYS_PIVOT_ROOT[platform.machine()], b"/tmp", b"/tmp/old")
    os.chdir("/")
    for path in libraries:
        if os.path.islink("/old" + path):
            os.symlink(os.readlink("/old" + path), path)
        elif os.path.isdir("/old" + path):
            os.makedirs(path, exist_ok=True)
            mount("/old" + path, path, None, MS_BIND | MS_REC)
            read_only(path)
    call("umount2", b"/old", MNT_DETACH)
    os.rmdir("/old")
    os.mkdir("/own")
    mount(
        "own",
        "/own",
        "tmpfs",
        MS_NOSUID | MS_NODEV,
        f"size={work_mb}m,nr_inodes={MAX_FILES},mode=1777",
    )
    read_only("/", flags=0)
    os.chdir("/own")


def drop_rights(was_root: bool) -> None:
    """Become nobody, in a new user namespace, without a single capability.

    In a new namespace the limit on processes counts only this program's. A user
    who was not root is nobody special already: root of a namespace that holds them alone.
    """
    if was_root:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    call("unshare", CLONE_NEWUSER)
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    call("capset", ctypes.c_char_p(header), ctypes.c_char_p(bytes(24)))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def forbid_hidden_memory() -> None:
    """Refuse the system calls that keep memory which no other limit counts: shared segments,
    message queues and semaphores outlive the process that made them, and files in memory lie in
    no folder. They fail with EPERM; system calls of another architecture kill the program."""
    audit, numbers = HIDDEN_MEMORY[platform.machine()]
    jump_equal, jump_over = BPF_JMP | BPF_JEQ, BPF_JMP | BPF_JGE
    steps = [
        (BPF_LOAD_WORD, 0, 0, 4),
        (jump_equal, 1, 0, audit),
        (BPF_RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS),
        (BPF_LOAD_WORD, 0, 0, 0),
        (jump_over, len(numbers) + 1, 0, FOREIGN_CALLS),
        *((jump_equal, len(numbers) - i, 0, n) for i, n in enumerate(numbers)),
        (BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW),
        (BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(program), 0, 0)


def limit(limits: dict[str, Any]) -> None:
    mb, cpu = 1 << 20, limits["cpu_seconds"]
    for what, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_AS, limits["memory_mb"] * mb, limits["memory_mb"] * mb),
        (resource.RLIMIT_FSIZE, limits["file_mb"] * mb, limits["file_mb"] * mb),
        (resource.RLIMIT_NOFILE, limits["open_files"], limits["open_files"]),
        (resource.RLIMIT_NPROC, limits["processes"], limits["processes"]),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(what, (soft, hard))


def run_program(spec: dict[str, Any], errors: int, verdict: int, was_root: bool) -> NoReturn:
    """Process 3. It writes the secret word only when the program came to its end, so that
    leaving early does not count as passing."""
    try:
        os.dup2(errors, 2)
        drop_rights(was_root)
        limit(spec["limits"])
        forbid_hidden_memory()
        os.environ.clear()
        os.write(verdict, b"began ")
        main_module = types.ModuleType("__main__")
        sys.modules["__main__"] = main_module
        exec(compile(spec["program"], "program.py", "exec"), main_module.__dict__)
        os.write(verdict, spec["word"].encode())
    except BaseException as error:
        last = traceback.format_exception_only(error)[-1]
        os.write(2, last[-500:].encode("utf-8", "replace"))
    finally:
        os._exit(0)


def keep(spec: dict[str, Any], report: int, was_root: bool) -> NoReturn:
    """Process 2, the first of the new process namespace: everything in it ends with it."""
    try:
        die_with_parent()
        call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
        build_root(spec["libraries"], spec["limits"]["memory_mb"])
        errors = os.memfd_create("errors")
        reader, verdict = os.pipe()
        program = os.fork()
        if program == 0:
            os.close(report)
            os.close(reader)
            run_program(spec, errors, verdict, was_root)
        _, status = os.waitpid(program, 0)
        os.set_blocking(reader, False)
        os.write(verdict, b" ")
        began, _, word = os.read(reader, 4096).decode("utf-8", "replace").partition(" ")
        size = os.fstat(errors).st_size
        said = os.pread(errors, 2000, max(0, size - 2000)).decode("utf-8", "replace")
        result: dict[str, Any] = {"said": said.strip()}
        if began != "began":
            result = {"refused": said.strip() or f"ended with status {status}"}
        elif os.WIFSIGNALED(status):
            result["signal"] = os.WTERMSIG(status)
        else:
            result["passed"] = word.strip() == spec["word"]
    except OSError as error:
        result = {"refused": str(error)}
    os.write(report, json.dumps(result).encode())
    os._exit(0)


def main() -> None:
    spec = json.loads(sys.stdin.buffer.read())
    answer = os.dup(1)
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1):
        os.dup2(nothing, number)
    was_root = os.geteuid() == 0
    try:
        die_with_parent()
        leave_namespaces()
    except OSError as error:
        os.write(answer, json.dumps({"refused": str(error)}).encode())
        return
    reader, report = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(answer)
        os.close(reader)
        keep(spec, report, was_root)
    os.close(report)
    clock = select.poll()
    clock.register(os.pidfd_open(first), select.POLLIN)
    if not clock.poll(spec["limits"]["wall_seconds"] * 1000):
        os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    text = os.read(reader, 1 << 16)
    os.write(answer, text or json.dumps({"timeout": True}).encode())


if __name__ == "__main__":
    main()
