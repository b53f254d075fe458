"""One Envoy as a locust user: a stream of delta ADS on a gevent socket.

In: a plan, through the worker. Out: bytes. Never: gRPC's library, whose threads and gevent starve each other from a
thousand streams on; what an Envoy asks and holds is `bench.real_wires.simulated_envoy`, its frames `client_frames`.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import ssl
import struct
import time
from typing import ClassVar

import gevent
from bench.real_wires.client_frames import ClientFrames
from bench.real_wires.simulated_envoy import PATIENCE_S, SimulatedEnvoy
from gevent.event import Event
from loadtest.plan import Plan
from loadtest.worker import Worker
from locust import User, constant, task

# As Envoy's: each wait is a random part of what doubles with each failure.
BACKOFF_S, BACKOFF_S_MAX = 0.5, 2.0
CONNECT_S_MAX = 60.0
_READ = 65_536
_SOURCES = 50
"""So many addresses of the loopback network are connected from: each has as many ports as one client has."""
_ABORT = struct.pack("ii", 1, 0)
"""Of SO_LINGER: a close that says nothing but RST, as when a machine is gone."""


class EnvoyUser(User):
    """Stays connected; when its stream ends, comes back with the versions of what it holds."""

    wait_time = constant(0)
    plan: ClassVar[Plan]
    worker: ClassVar[Worker]
    tls: ClassVar[ssl.SSLContext | None] = None

    envoy: SimulatedEnvoy

    def on_start(self) -> None:
        """Take one of the mesh's dataplanes."""
        self._name = self.worker.enlist(self)
        self._number = int(self._name.rpartition("-")[2])
        self._dice = random.Random(self._number)
        self._is_wanted = Event()
        self._socket: socket.socket | None = None
        self.envoy = self.worker.new_envoy(self._name)
        self._is_wanted.set()

    def on_stop(self) -> None:
        """Give it back."""
        self.worker.dismiss(self._name)

    def cut(self) -> None:
        """Lose the connection without a word."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                # The greenlet that reads is woken with an error.
                self._socket.close()

    def leave(self) -> None:
        """The machine is gone, with all that was held."""
        self._is_wanted.clear()
        self.envoy = self.worker.new_envoy(self._name)
        self.cut()

    def come_back(self) -> None:
        """Another Envoy of the same dataplane begins, with nothing."""
        self._is_wanted.set()

    @task
    def live(self) -> None:
        """Connect, and read until the stream ends, again and again."""
        backoff_s = BACKOFF_S
        while True:
            self._is_wanted.wait()
            began = time.monotonic()
            try:
                self._socket = self._connect()
            except OSError:
                self.worker.streams["refused"] += 1
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
            else:
                backoff_s = BACKOFF_S
                self.worker.streams["opened"] += 1
                ended = "the run is over"
                try:
                    ended = self._converse(self._socket, self.envoy, began)
                except OSError as error:
                    # Cut, by whichever side; what is held stays.
                    ended = errno.errorcode.get(error.errno or 0, type(error).__name__)
                finally:
                    self.worker.streams["closed"] += 1
                    self.worker.streams[f"closed: {ended}"] += 1
                    self._socket.close()
                    self._socket = None
            gevent.sleep(self._dice.uniform(0, backoff_s))

    def _connect(self) -> socket.socket:
        source = f"127.0.0.{2 + self._number % _SOURCES}" if self.plan.dp_host.startswith("127.") else ""
        connected = socket.create_connection(
            (self.plan.dp_host, self.plan.dp_port), timeout=CONNECT_S_MAX, source_address=(source, 0)
        )
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                connected = self.tls.wrap_socket(connected, server_hostname=self.plan.dp_host)
            connected.settimeout(None)
        except BaseException:
            connected.close()
            raise
        return connected

    def _converse(self, stream: socket.socket, envoy: SimulatedEnvoy, began: float) -> str:
        """Read and answer until the stream is over; why it is."""
        frames = ClientFrames(is_tls=self.tls is not None)
        is_new = not envoy.is_configured()
        requests = envoy.opened()
        if envoy.warming:
            gevent.spawn_later(PATIENCE_S, envoy.wait_no_longer, tuple(envoy.warming))
        while True:
            for request in requests:
                frames.send(request)
            if output := frames.output():
                stream.sendall(output)
            if frames.end or not self._is_wanted.is_set():
                return frames.end or "left"
            data = stream.recv(_READ)
            if not data:
                return "closed by the control plane"
            at = time.monotonic()
            requests = [request for message in frames.receive(data) for request in envoy.receive(message, at)]
            if is_new and envoy.is_configured():
                is_new = False
                self.worker.configured(began, at)


def tls_of(plan: Plan) -> ssl.SSLContext | None:
    """How its Envoys connect: the files that the plan names, or no TLS at all."""
    if not plan.ca:
        return None
    context = ssl.create_default_context(cafile=plan.ca)
    context.set_alpn_protocols(["h2"])
    if plan.certificate:
        context.load_cert_chain(plan.certificate, plan.key)
    return context
