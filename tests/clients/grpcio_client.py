"""A gRPC client that finds its servers by xDS, as `grpc_go/main.go` in Python: told what to do by its standard input.

In: the environment's GRPC_XDS_BOOTSTRAP, and lines `call TARGET COUNT`. Out: one line of JSON for each,
`{"answers": {"backend": 3}, "errors": ["…"]}`. Never: a call of more than two seconds.
"""

from __future__ import annotations

import json
import sys

import grpc
from google.protobuf import empty_pb2, wrappers_pb2

METHOD = "/test.Echo/Who"
_TIMEOUT_S = 2.0


class Client:
    """One channel for each target, for as long as the client lives."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.Channel] = {}

    def call(self, target: str, count: int) -> dict[str, object]:
        """Who answered how often, and what went wrong."""
        if target not in self._channels:
            # These are the credentials for the backends; those for the control plane are in the bootstrap.
            self._channels[target] = grpc.insecure_channel(target)
        ask = self._channels[target].unary_unary(
            METHOD,
            request_serializer=empty_pb2.Empty.SerializeToString,
            response_deserializer=wrappers_pb2.StringValue.FromString,
        )
        answers: dict[str, int] = {}
        errors: list[str] = []
        for _ in range(count):
            try:
                answer = ask(empty_pb2.Empty(), timeout=_TIMEOUT_S).value
                answers[answer] = answers.get(answer, 0) + 1
            except grpc.RpcError as error:
                errors.append(str(error))
        return {"answers": answers, "errors": errors}


def main() -> None:
    client = Client()
    for line in sys.stdin:
        verb, target, count = line.split()
        assert verb == "call", line
        sys.stdout.write(json.dumps(client.call(target, int(count))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
