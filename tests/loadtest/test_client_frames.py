"""The client's HTTP/2: h2 is the server on the other side; whatever way bytes are cut, messages come out whole."""

from __future__ import annotations

import random

import h2.config
import h2.connection
import h2.events
import pytest
from bench.real_wires.client_frames import DELTA_ADS, ClientFrames


class Server:
    """h2 in memory, at the other end of the frames."""

    def __init__(self, *, window: int = 65_535) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.local_settings.initial_window_size = window
        self.h2.initiate_connection()
        self.headers: dict[str, str] = {}
        self.received = b""
        self.unacknowledged = 0

    def exchange(self, client: ClientFrames, *, refill: bool = True) -> list[bytes]:
        """Carry bytes in both directions until nobody says anything; the messages that the client was given."""
        messages: list[bytes] = []
        while True:
            up, down = client.output(), self.h2.data_to_send()
            if not up and not down:
                return messages
            self._take(up, refill=refill)
            messages += client.receive(down)

    def _take(self, data: bytes, *, refill: bool) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.headers = {str(key): str(value) for key, value in event.headers or ()}
                self.h2.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
            elif isinstance(event, h2.events.DataReceived):
                self.received += event.data or b""
                if refill:
                    self.h2.acknowledge_received_data(event.flow_controlled_length or 0, 1)


def message(payload: bytes) -> bytes:
    return b"\0" + len(payload).to_bytes(4, "big") + payload


@pytest.mark.parametrize("is_tls", [False, True])
def test_call_is_one_of_delta_ads(is_tls: bool) -> None:
    server, client = Server(), ClientFrames(is_tls=is_tls)
    client.send(b"hello")
    assert server.exchange(client) == []
    assert server.headers[":path"] == DELTA_ADS.decode()
    assert server.headers[":method"] == "POST"
    assert server.headers[":scheme"] == ("https" if is_tls else "http")
    assert server.headers["te"] == "trailers"
    assert server.received == message(b"hello")


def test_long_request_waits_for_windows_and_arrives_whole() -> None:
    server, client = Server(window=20_000), ClientFrames()
    payload = random.Random(1).randbytes(300_000)
    client.send(payload)
    client.send(b"behind it")
    server.exchange(client, refill=False)
    # What the connection's window of 65,535 bytes lets through, or the stream's smaller one.
    assert 0 < len(server.received) <= 65_535
    server.h2.increment_flow_control_window(1 << 20)
    server.h2.increment_flow_control_window(1 << 20, 1)
    server.exchange(client)
    assert server.received == message(payload) + message(b"behind it")


@pytest.mark.parametrize("seed", range(10))
def test_messages_come_whole_however_bytes_are_cut(seed: int) -> None:
    dice = random.Random(seed)
    server, client = Server(), ClientFrames()
    server.exchange(client)
    sent = [dice.randbytes(dice.choice([0, 1, 100, 40_000])) for _ in range(20)]
    stream = b"".join(map(message, sent))
    while stream:
        size = dice.randrange(1, 16_000)
        server.h2.send_data(1, stream[:size])
        stream = stream[size:]
    wire, got = server.h2.data_to_send(), []
    while wire:
        size = dice.randrange(1, 5_000)
        got += client.receive(wire[:size])
        wire = wire[size:]
    assert got == sent
    assert not client.end


def test_window_is_given_back_so_that_a_server_never_stands() -> None:
    server, client = Server(), ClientFrames()
    server.exchange(client)
    body = b"x" * 10_000
    for _ in range(4_000):
        # 40 MB: more than twice what the windows allow without being refilled.
        server.h2.send_data(1, message(body))
        assert server.exchange(client) == [body]


def test_ping_is_answered() -> None:
    server, client = Server(), ClientFrames()
    server.exchange(client)
    server.h2.ping(b"12345678")
    client.receive(server.h2.data_to_send())
    events = server.h2.receive_data(client.output())
    assert [event.ping_data for event in events if isinstance(event, h2.events.PingAckReceived)] == [b"12345678"]


@pytest.mark.parametrize(("how", "reason"), [("trailers", "trailers"), ("reset", "reset"), ("goaway", "goaway")])
def test_end_of_the_call_is_named(how: str, reason: str) -> None:
    server, client = Server(), ClientFrames()
    server.exchange(client)
    assert client.end == ""
    server.h2.send_data(1, message(b"last"))
    if how == "trailers":
        server.h2.send_headers(1, [("grpc-status", "0")], end_stream=True)
    elif how == "reset":
        server.h2.reset_stream(1)
    else:
        server.h2.close_connection()
    assert client.receive(server.h2.data_to_send()) == [b"last"]
    assert client.end == reason
