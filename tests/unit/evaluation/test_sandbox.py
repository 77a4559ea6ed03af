"""Hostile programs, really run. Where the kernel forbids namespaces, only the refusal is tested."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from versatune.errors import VersatuneError
from versatune.evaluation import sandbox
from versatune.evaluation.config import SandboxLimits
from versatune.evaluation.sandbox import ProgramResult, check_isolation, refusal, run_program

LIMITS = SandboxLimits(wall_seconds=30, cpu_seconds=1, memory_mb=256, processes=4)
SHORT = LIMITS.model_copy(update={"wall_seconds": 1.0})

REASON = refusal()
isolated = pytest.mark.skipif(REASON is not None, reason=f"no isolation here: {REASON}")


def outcome(program: str, limits: SandboxLimits = LIMITS) -> ProgramResult:
    return run_program(program, limits)


@isolated
def test_an_honest_program_has_its_standard_library() -> None:
    program = """
import collections, ctypes, dataclasses, decimal, hashlib, heapq, itertools, json, math, re
@dataclasses.dataclass
class Point:
    x: int
open("note.txt", "w").write("hello")
assert open("note.txt").read() == "hello" and Point(1).x == math.gcd(4, 1)
"""
    assert outcome(program) == ProgramResult(True, "passed")


@isolated
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2", "AssertionError"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("import numpy", "ModuleNotFoundError: No module named 'numpy'"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import os; os._exit(0)", "left before its end"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal SIGKILL"),
    ],
)
def test_failing_and_leaving_early_is_not_passing(program: str, reason: str) -> None:
    assert outcome(program) == ProgramResult(False, reason)


@isolated
def test_an_endless_loop_ends_by_processor_time() -> None:
    assert outcome("while True: pass") == ProgramResult(
        False, "used more than 1 s of processor time"
    )


@isolated
def test_sleeping_forever_ends_by_the_clock() -> None:
    found = outcome("import time; time.sleep(1000)", SHORT)
    assert found == ProgramResult(False, "still running after 1 s")


@isolated
def test_a_fork_bomb_is_stopped_at_the_number_of_processes() -> None:
    bomb = """
import os
while True:
    try: os.fork()
    except OSError: pass
"""
    assert not outcome(bomb, SHORT).passed
    assert alive("_jail.py") == []
    count = """
import os, time
children = 0
while True:
    try:
        if os.fork() == 0: time.sleep(100)
    except OSError: break
    children += 1
raise Exception(children)
"""
    assert outcome(count).reason == "Exception: 3"
    threads = """
import threading, time
for _ in range(50): threading.Thread(target=time.sleep, args=(100,)).start()
"""
    assert "can't start new thread" in outcome(threads).reason


@isolated
def test_a_memory_hog_gets_no_memory() -> None:
    assert outcome("x = bytearray(1 << 30)").reason == "MemoryError"
    folder = """
for i in range(100): open(str(i), "wb").write(bytes(8 << 20))
"""
    assert "No space left on device" in outcome(folder).reason
    big = "open('big', 'wb').write(bytes(64 << 20))"
    assert "File too large" in outcome(big).reason
    many = "for i in range(10_000): open(str(i), 'w').close()"
    assert "No space left on device" in outcome(many).reason
    held = "kept = [open('one', 'w') for _ in range(100)]"
    assert "Too many open files" in outcome(held).reason


@isolated
def test_memory_that_no_limit_counts_is_refused() -> None:
    """Shared segments and files in memory stay when they are unmapped, so that one process could
    fill the machine with them."""
    hide = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
segments = {"shmget": (0, 1 << 20, 0o1600), "semget": (0, 8, 0o1600), "msgget": (0, 0o1600)}
for name, arguments in segments.items():
    assert getattr(libc, name)(*arguments) == -1, name
    assert ctypes.get_errno() == 1, name
try: os.memfd_create("hidden")
except PermissionError: pass
else: raise AssertionError("memfd_create")
assert libc.syscall(ctypes.c_long(447), 0) == -1 and ctypes.get_errno() == 1, "memfd_secret"
assert libc.syscall(ctypes.c_long(0x40000000 + 39)) == -1, "another table of system calls"
"""
    assert outcome(hide).passed, outcome(hide).reason


@isolated
def test_nothing_of_the_machine_can_be_read_or_deleted(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    victim.chmod(0o666)
    tmp_path.chmod(0o777)
    delete = f"""
import os, shutil
try: os.remove({str(victim)!r})
except FileNotFoundError: pass
for path in ({str(tmp_path)!r}, "/home", "/etc", "/usr/lib/python3", "/own"):
    shutil.rmtree(path, ignore_errors=True)
os.system("rm -rf /")
"""
    outcome(delete)
    assert victim.read_text() == "precious"
    assert Path(os.__file__).exists()
    look = f"""
import os
places = ("/etc", "/home", "/proc", "/dev", "/tmp", {str(tmp_path)!r})
found = [path for path in places if os.path.exists(path)]
assert not found, found
"""
    assert outcome(look).passed, outcome(look).reason


@isolated
@pytest.mark.parametrize(
    "path",
    ["/x", "/usr/lib/x", f"{Path(os.__file__).parent}/os.py", f"{Path(os.__file__).parent}/x"],
)
def test_the_libraries_are_read_only(path: str) -> None:
    reason = outcome(f"open({path!r}, 'a')").reason
    assert "Read-only file system" in reason or "Permission denied" in reason


@isolated
def test_there_is_no_network_and_no_way_out_of_its_namespace() -> None:
    import socket

    server = socket.create_server(("127.0.0.1", 0))
    try:
        port = server.getsockname()[1]
        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        assert "unreachable" in outcome(connect).reason
    finally:
        server.close()
    privileges = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b"none", b"/own", b"tmpfs", 0, None) == -1
assert libc.umount2(b"/own", 2) == -1
assert libc.unshare(0x10000000) == -1, "a user namespace"
assert libc.chroot(b"/own") == -1
assert os.getuid() != 0
try: os.setuid(0)
except OSError: pass
else: raise AssertionError("root")
"""
    assert outcome(privileges).passed, outcome(privileges).reason


@isolated
def test_the_environment_and_descriptors_are_empty() -> None:
    os.environ["VERSATUNE_TEST_SECRET"] = "secret"
    try:
        assert outcome("import os; assert not os.environ, os.environ").passed
    finally:
        del os.environ["VERSATUNE_TEST_SECRET"]


@isolated
def test_huge_output_is_cut() -> None:
    found = outcome("import sys\nwhile True: sys.stderr.write('x' * 100000)")
    assert not found.passed and len(found.reason) <= 200
    assert outcome("import sys\nfor _ in range(1000): print('x' * 100000)").passed


@isolated
@pytest.mark.parametrize("ends", ["time.sleep(100)", "pass"])
def test_children_that_flee_to_a_session_of_their_own_die_too(ends: str) -> None:
    mark = f"versatune-orphan-{os.getpid()}"
    flee = f"""
import ctypes, os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, {mark[:15]!r}.encode(), 0, 0, 0)
        time.sleep(100)
    os._exit(0)
time.sleep(0.2)
{ends}
"""
    outcome(flee, SHORT)
    time.sleep(0.2)
    names = [(p / "comm").read_text().strip() for p in processes() if (p / "comm").exists()]
    assert mark[:15] not in names


@isolated
def test_it_dies_with_the_process_that_asked_for_it() -> None:
    """Killing versatune outright leaves nothing behind."""
    script = (
        "from versatune.evaluation.sandbox import run_program\n"
        "from versatune.evaluation.config import SandboxLimits\n"
        "run_program('import time; time.sleep(1000)', SandboxLimits(wall_seconds=1000))\n"
    )
    asker = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.time() + 30
    while len(mine := descendants(asker.pid)) < 3 and time.time() < deadline:
        time.sleep(0.05)
    assert len(mine) == 3
    asker.send_signal(signal.SIGKILL)
    asker.wait()
    while (left := [p for p in mine if Path(f"/proc/{p}").exists()]) and time.time() < deadline:
        time.sleep(0.05)
    assert left == []


def test_where_isolation_is_refused_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_run", lambda *_: {"refused": "unshare: Operation not permitted"})
    with pytest.raises(VersatuneError, match=r"unshare: Operation not permitted.*code\.run: false"):
        run_program("pass", LIMITS)
    refusal.cache_clear()
    try:
        with pytest.raises(VersatuneError, match="only fully isolated"):
            check_isolation()
    finally:
        refusal.cache_clear()


PYTHON = "/usr/bin/python3"


def jail_as(command: list[str], tmp_path: Path, program: str) -> dict:
    """Run the jail under ``command`` (another user, fewer rights) with the system's Python."""
    jail = tmp_path / "jail.py"
    shutil.copy(Path(sandbox.__file__).with_name("_jail.py"), jail)
    for path in (jail, *jail.parents):
        if path.is_relative_to("/tmp/") and path.owner() == "root":
            path.chmod(0o755)
    spec = {
        "program": program,
        "limits": LIMITS.model_dump(),
        "libraries": list(sandbox.SYSTEM_LIBRARIES),
        "word": "word",
    }
    found = subprocess.run(
        [*command, PYTHON, "-I", "-S", str(jail)],
        input=json.dumps(spec).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    return json.loads(found.stdout)


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not Path(PYTHON).exists() or shutil.which("setpriv") is None,
    reason="becoming somebody else needs root, setpriv and the system's Python",
)


@needs_root
@isolated
def test_an_ordinary_user_gets_the_same_isolation(tmp_path: Path) -> None:
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    program = "import os; assert sorted(os.listdir('/')) == ['lib', 'lib64', 'own', 'usr']"
    found = jail_as(nobody, tmp_path, program)
    if "refused" in found:
        pytest.skip(f"user namespaces are forbidden here: {found['refused']}")
    assert found["passed"], found
    assert (
        "unreachable"
        in jail_as(
            nobody, tmp_path, "import socket; socket.create_connection(('127.0.0.1', 1), 1)"
        )["said"]
    )


@needs_root
def test_root_without_rights_is_refused(tmp_path: Path) -> None:
    """As in a plain container: root by name, without CAP_SYS_ADMIN."""
    found = jail_as(["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"], tmp_path, "pass")
    assert "unshare" in found["refused"] and "passed" not in found


def processes() -> list[Path]:
    return [p for p in Path("/proc").iterdir() if p.name.isdigit()]


def alive(word: str) -> list[str]:
    """Command lines of this test's processes that hold ``word``."""
    found = []
    for pid in descendants(os.getpid()):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        found += [line] if word in line else []
    return found


def descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for process in processes():
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(process.name))
    found, queue = [], [pid]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found
