"""The guard that keeps processes under test on this machine: it refuses, it writes down, and the session fails."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kinetograph.tests.network import watch

ROOT = Path(__file__).resolve().parents[1]
CONNECT = "import socket; socket.create_connection({where!r}, timeout=2)"
DATAGRAM = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', {where!r})"
LOOK_UP = "import urllib.request; urllib.request.urlopen('http://{where[0]}/', timeout=2)"
ASYNC = "import asyncio; asyncio.run(asyncio.open_connection(*{where!r}))"
PLANTED = """
import subprocess, sys
def test_it():
    subprocess.run([sys.executable, "-c", {program!r}], capture_output=True)
"""
TWO = ["-n", "2", "--dist", "loadfile"]
CONFTEST = "import runpy; runpy.run_path({pack!r})['register']()\n"
CONFTEST += "from kinetograph.tests.network.watch import network\n"


def python(monkeypatch, folder, program):
    """A process that is watched, with a list of its own."""
    for name, value in watch.variables(folder).items():
        monkeypatch.setenv(name, value)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("program", "where"),
    [
        (CONNECT, ("192.0.2.1", 80)),  # an address that nobody has (RFC 5737)
        (CONNECT, ("2001:db8::1", 80)),
        (ASYNC, ("::ffff:192.0.2.1", 80)),
        (DATAGRAM, ("192.0.2.1", 53)),
        (LOOK_UP, ("nowhere.invalid", 80)),
    ],
)
def test_what_leaves_this_machine_is_refused_and_written_down(monkeypatch, tmp_path, program, where):
    done = python(monkeypatch, tmp_path, program.format(where=where))
    assert done.returncode == 1 and "Tests reach nothing but this machine" in done.stderr
    (record,) = watch.records(tmp_path, "refused")
    assert where[0] in record["where"] and record["command"][1] == "-c"
    assert record["stack"]
    with pytest.raises(pytest.fail.Exception, match=f"tried to reach the network.*\n.*\n.*{where[0]}"):
        watch.check(tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_reached(monkeypatch, tmp_path, host):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = python(monkeypatch, tmp_path, CONNECT.format(where=(host, listener.getsockname()[1])))
    assert done.returncode == 0, done.stderr
    assert len(watch.records(tmp_path, "watched")) == 1
    watch.check(tmp_path)


@pytest.mark.parametrize(
    ("host", "workers"),
    [("192.0.2.1", []), ("192.0.2.1", TWO), (None, [])],
    ids=["planted", "planted, two workers", "nothing"],
)
def test_a_session_fails_at_its_end(tmp_path, host, workers):
    program = CONNECT.format(where=(host, 80)) if host else "pass"
    (tmp_path / "conftest.py").write_text(CONFTEST.format(pack=str(ROOT / "tools" / "pack.py")))
    (tmp_path / "test_planted.py").write_text(PLANTED.format(program=program))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, str(tmp_path)]
    done = subprocess.run([*command, f"--rootdir={tmp_path}"], capture_output=True, text=True, cwd=tmp_path)
    assert "1 passed" in done.stdout
    assert done.returncode == int(host is not None), done.stdout
    assert ("1 error" in done.stdout and "192.0.2.1" in done.stdout) == (host is not None)


def test_this_session_is_watched(network):
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    assert [record["command"][1:] for record in watch.records(network, "watched")][-1] == ["-c", "pass"]
