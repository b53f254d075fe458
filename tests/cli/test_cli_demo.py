"""demo: from end to end with real Envoys, and that nothing is left behind however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import httpx
import pytest

from kumafast.cli import demo_load
from kumafast.cli.demo_process import Processes, free_ports
from kumafast.cli.failure import CommandError


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.stop_all()


def echo(processes: Processes, name: str) -> str:
    [port] = free_ports(1)
    processes.start(name, [sys.executable, "-m", "kumafast.cli.demo_echo", name, str(port)])
    url = f"http://127.0.0.1:{port}/path"
    with httpx.Client() as client:
        processes.await_value(name, lambda: demo_load.ask(client, url).instance, timeout_s=20)
    return url


def test_the_workload_says_who_it_is_and_keeps_connections(processes: Processes) -> None:
    url = echo(processes, "echo-7")
    with httpx.Client() as client:
        for body in (b"", b"x" * 100_000):
            response = client.post(url, content=body)
            assert (response.status_code, response.json()) == (200, {"instance": "echo-7", "path": "/path"})
        assert client.get(url, headers={"connection": "close"}).status_code == 200
        certified = client.get(url, headers={"x-forwarded-client-cert": "URI=spiffe://default/web"})
        assert certified.json()["caller"] == "URI=spiffe://default/web"


def await_some(processes: Processes, found: Callable[[], Collection[object]]) -> None:
    """Wait for requests of a kind, however little of the machine is left for those who make them."""
    processes.await_value("some requests", lambda: found() or None, timeout_s=30)


def test_the_load_accounts_for_every_request(processes: Processes) -> None:
    url = echo(processes, "echo-7")
    with demo_load.running(url) as load:
        began = time.monotonic()
        await_some(processes, lambda: load.instances(began))
        assert load.lost(began) == []
        assert set(load.instances(began)) == {"echo-7"}
        processes.stop_all()
        ended = time.monotonic()
        await_some(processes, lambda: load.lost(ended))
    assert load.instances(ended)["echo-7"] == 0
    assert len(load.since(0)) == len(load.outcomes) == len(load.since(0, ended)) + len(load.since(ended))


def test_a_process_that_ends_by_itself_is_named_with_its_last_words(processes: Processes) -> None:
    processes.start("broken", [sys.executable, "-c", "import sys; sys.exit('out of luck')"])
    with pytest.raises(CommandError, match="broken ended by itself with exit code 1") as caught:
        processes.await_value("nothing", lambda: None, timeout_s=20)
    assert caught.value.details == ("broken: out of luck",)


def test_what_does_not_happen_in_time_is_named(processes: Processes) -> None:
    with pytest.raises(CommandError, match=r"a miracle did not happen within 0\.1 s"):
        processes.await_value("a miracle", lambda: None, timeout_s=0.1)


def test_a_process_that_does_not_listen_is_ended_all_the_same(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kumafast.cli.demo_process._STOP_S", 0.2)
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    process = processes.start("deaf", [sys.executable, "-c", program])
    processes.await_value("its start", lambda: process.output.read_text() or None, timeout_s=20)
    assert processes.stop(process) == -signal.SIGKILL


def start_demo(*arguments: str, envoy: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kumafast", "demo", "--envoy", envoy, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.envoy
def test_the_demo_holds(envoy_binary: str) -> None:
    process = start_demo(envoy=envoy_binary)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, out + err
    assert "\x1b" not in out
    assert [line for line in out.splitlines() if re.match(r"\d\. ", line)] == ["1. Start", "2. Connect", "3. Secure"]
    assert "the counters of both Envoys went up by 20" in out
    assert re.search(r"both instances answer: \d+ by echo-1, \d+ by echo-2", out)
    assert re.search(r"echo-1 removed, acknowledged by \d+ prox\w+ in \d+ ms; \d+ requests since then, none lost", out)
    assert re.search(r"default   echo-2   .*Online", out)
    assert "echo-1   " not in out
    assert re.search(r"mutual TLS on, closed \d+ ms after its write: plaintext to echo's sidecar is reset, ", out)
    assert re.search(r"client permitted, open \d+ ms after its write: echo sees spiffe://default/client; stranger", out)
    assert re.search(r"permission deleted, closed \d+ ms after that: client gets 403 again", out)
    directory = re.search(r"everything lies in (\S+)", out)
    assert directory is not None
    assert not Path(directory[1]).exists()
    for pid in re.findall(r"pid (\d+)", out):
        assert not alive(int(pid))


@pytest.mark.envoy
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(envoy_binary: str, number: signal.Signals) -> None:
    process = start_demo(envoy=envoy_binary)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "client is Online" in line:
            break
    process.send_signal(number)
    rest, err = process.communicate(timeout=60)
    out = "".join(lines) + rest
    assert (process.returncode, err) == (1, "error: interrupted; nothing of the demo is left\n")
    pids = re.findall(r"pid (\d+)", out)
    assert len(pids) >= 2
    assert not any(alive(int(pid)) for pid in pids)
    directory = re.search(r"everything lies in (\S+)", out)
    assert directory is not None
    assert not Path(directory[1]).exists()
