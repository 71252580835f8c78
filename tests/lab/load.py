"""Asks the gateway so many times a second with the key of a service, as its clients do; runs on a lab's host.

`python - SERVICE RATE STOP KEPT` with the release's own interpreter, until the file STOP is there. A refused
key is read anew, unless KEPT is `kept`: then that is the end. Prints one JSON object.
"""

from __future__ import annotations

import collections
import json
import sys
import time
from pathlib import Path
from typing import Any

from mt5crs.client.connecting import FORMER_KEY
from mt5crs.client.connection import Peer
from mt5crs.client.errors import GatewayError, KeyRefusedError
from mt5crs.client.gateway import GatewayClient
from mt5crs.client.server_key import ServerKey
from mt5crs.protocol import replies, requests
from mt5crs.settings import envfile

LOST_S = 60.0
"""A request that has no answer by then is lost."""


def client_of(service: str) -> tuple[GatewayClient, int]:
    """A client with the keys that the service has now, and its magic number."""
    env = envfile.read(Path(f"/opt/mt5crs/{service}/current/.env"))
    peer = Peer(
        host=env["GATEWAY_HOST"],
        port=int(env["GATEWAY_PORT"]),
        pub_port=int(env["GATEWAY_PUB_PORT"]),
        server_key=env["GATEWAY_PUBLIC_KEY"],
        client_name=env["CLIENT_NAME"],
        secret_key=env["CLIENT_SECRET_KEY"],
        changing=ServerKey(env["GATEWAY_PUBLIC_KEY"], former_key(service)),
    )
    return GatewayClient(peer), int(env["MAGIC_NUMBER"])


def former_key(service: str) -> str:
    """What the release tool has told the service's unit; empty: nothing."""
    told = next(Path("/run/systemd/system").glob(f"mt5crs-{service}.service.d/60-mt5crs-*"), None)
    return told.read_text().partition(f"{FORMER_KEY}=")[2][:64] if told else ""


def load(service: str, rate: float, stop: Path, *, kept: bool) -> dict[str, Any]:
    """Ask until told to stop; what became of it."""
    client, magic = client_of(service)
    times: list[float] = []
    again: collections.Counter[str] = collections.Counter()
    lost, refused, begun = 0, False, time.monotonic()
    due = begun
    while not (refused or (len(times) % 50 == 0 and stop.exists())):
        due = max(due + 1 / rate, time.monotonic() - 1)  # what is missed is caught up with, for a second
        time.sleep(max(0.0, due - time.monotonic()))
        asked = time.monotonic()
        while True:
            try:
                client.call(requests.Status, replies.StatusState, magic=magic)
                times.append(time.monotonic() - asked)
                break
            except GatewayError as error:
                again[type(error).__name__] += 1
                if kept and isinstance(error, KeyRefusedError):
                    refused = True
                    break
                if time.monotonic() - asked > LOST_S:
                    lost += 1
                    break
                client.close()
                time.sleep(0.1)
                client, magic = client_of(service)
    took = time.monotonic() - begun
    client.close()
    times.sort()
    return {
        "requests": len(times),
        "rate": round(len(times) / took),
        "lost": lost,
        "refused": refused,
        "again": dict(again),
        "p50_ms": round(1000 * times[len(times) // 2], 1),
        "p99_ms": round(1000 * times[int(len(times) * 0.99)], 1),
        "longest_ms": round(1000 * times[-1]),
    }


if __name__ == "__main__":
    service, rate, stop, kept = sys.argv[1:]
    print(json.dumps(load(service, float(rate), Path(stop), kept=kept == "kept")))
