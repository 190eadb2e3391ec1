"""Commands are forked from a small process: the state of this one does not reach them, and none outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import fork as module
from tests.documents import ROOT
from tests.fork import fork, replacing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

VERSION = ["--version"]
SAYS = "print({})\nraise SystemExit(0)"  # in the place of a command


@pytest.fixture
def fresh_server() -> None:
    """The next command starts the server."""
    module._close()


def server() -> int:
    """The process id of the server."""
    return module._servers[False, 0].process.pid


def gone(pid: int) -> bool:
    """Whether a process ends soon."""
    for _ in range(3000):
        try:
            if ") Z" in Path(f"/proc/{pid}/stat").read_text():
                return True  # it has ended; whoever adopts it takes note when it likes
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_the_memory_of_a_command_is_its_own(fresh_server: None) -> None:
    held = bytearray(b"x" * 700_000_000)
    assert fork(VERSION).nbytes < 150_000_000
    del held
    assert fork(VERSION).nbytes < 150_000_000
    assert fork(VERSION, before="held = bytearray(b'x' * 200_000_000)").nbytes > 200_000_000


def test_it_never_loads_torch() -> None:
    assert fork(VERSION, before=SAYS.format("'torch' in __import__('sys').modules")).out == b"False\n"


def test_streams_folder_and_environment(tmp_path: Path) -> None:
    says = SAYS.format("input(), os.getcwd(), dict(os.environ)")
    done = fork([], stdin=b"given", cwd=tmp_path, env={"A": "\udcff"}, before="import os\n" + says)
    assert done.out.decode() == f"given {tmp_path} {{'A': '\\udcff'}}\n"


def test_the_folder_and_environment_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OF_NOW", "yes")
    done = fork([], before="import os\n" + SAYS.format("os.getcwd(), os.environ['OF_NOW']"))
    assert done.out.decode() == f"{tmp_path} yes\n"


def test_what_one_command_changes_no_other_sees() -> None:
    fork(VERSION, before="import os, helixctl.cli.main as m\nos.environ['A'] = '1'\nos.chdir('/')\nm.main = None")
    says = SAYS.format("os.environ.get('A'), os.getcwd(), m.main is None")
    assert (
        fork([], env={}, before="import os, helixctl.cli.main as m\n" + says).out.decode()
        == f"None {Path.cwd()} False\n"
    )


def test_a_replaced_name() -> None:
    less = replacing("helixctl.documents.MAX_NBYTES", 7)
    assert fork([], before=less + SAYS.format("helixctl.documents.MAX_NBYTES")).out == b"7\n"
    assert fork(VERSION, before=replacing("helixctl.documents.NO_SUCH_NAME", 7)).status == 99


def test_how_it_ends() -> None:
    assert fork(VERSION).status == 0
    assert fork(["no-such-command"]).status == 2
    assert fork([], before="import os; os.kill(os.getpid(), 9)").status == -9
    broken = fork(VERSION, before="1 / 0")
    assert (broken.status, b"ZeroDivisionError" in broken.err) == (99, True)


def test_limits() -> None:
    spun = fork([], seconds=1, before="while True: pass")
    assert spun.status in {-signal.SIGXCPU, -signal.SIGKILL}
    assert spun.seconds > 0.5
    assert b"MemoryError" in fork([], nbytes=10**9, before="bytearray(2 * 10**9)").err
    clock = SAYS.format("0 < signal.alarm(0) <= 200, signal.getsignal(signal.SIGALRM) == signal.SIG_DFL")
    assert fork([], seconds=50, before="import signal\n" + clock).out == b"True True\n"


def test_what_a_command_leaves_behind_is_ended() -> None:
    left = int(
        fork([], before="import subprocess\nprint(subprocess.Popen(['sleep', '600']).pid)\nraise SystemExit(0)").out
    )
    assert gone(left)


class TooLateError(Exception):
    """What the test runner's clock raises."""


def test_a_command_that_is_given_up() -> None:
    """The clock of the test runner ends the wait; the next command gets its own answer."""

    def late(*_: object) -> None:
        raise TooLateError

    fork(VERSION)
    first, before = server(), signal.signal(signal.SIGUSR1, late)
    try:
        with pytest.raises(TooLateError):
            fork([], before=f"import os, signal, time\nos.kill({os.getpid()}, signal.SIGUSR1)\ntime.sleep(600)")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert gone(first)
    assert fork(VERSION).out.startswith(b"helixctl")
    assert server() != first


def test_a_server_that_dies_is_said_and_replaced() -> None:
    fork(VERSION)
    with pytest.raises(ConnectionError, match="ended with status -9"):
        fork([], before="import os, time\nos.kill(os.getppid(), 9)")
    assert fork(VERSION).status == 0


FORKS = """
import os
from tests import fork as module
def run():
    assert module.fork(["--version"]).status == 0
    return module._servers[False, 0].process.pid
ours = run()
reads, writes = os.pipe()
if not os.fork():
    os.write(writes, str(run()).encode())
    os._exit(0)
os.wait()
print(ours == run(), ours == int(os.read(reads, 99)))
"""


def test_a_fork_of_a_process_has_a_server_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], cwd=ROOT, capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"True False\n", b"")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_process_that_asked(end: signal.Signals, tmp_path: Path) -> None:
    """Also while a command runs, and also from another folder without PYTHONPATH."""
    file = tmp_path / "pids"
    before = f"import os, time\nopen({str(file)!r}, 'w').write(f'{{os.getppid()}} {{os.getpid()}}.')\ntime.sleep(600)"
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may have it ignored
    code += f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.fork import fork\nfork([], before={before!r})"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL) as user:
        while not (file.exists() and file.read_text().endswith(".")):
            assert user.poll() is None
            time.sleep(0.01)
        user.send_signal(end)
    assert [gone(int(pid)) for pid in file.read_text().strip(".").split()] == [True, True]
