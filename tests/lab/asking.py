"""A client that asks a service every 5 ms until it is told to end; how it fared.

`Asker` starts it on a host of the lab; the lower part is what runs there, with the release's own interpreter.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

EVERY_S = 0.005
_LONGEST_S = 240.0
_SOCKET = "/run/mt5crs-reconciler/state.sock"


class Asker:
    """Context manager: asks `service` from an Inf host while its body runs; then `result` holds the figures.

    `result`: asked, lost (texts of the errors), again (requests that took a second attempt), longest_ms
    (of an answer), away_ms (longest time from one answer to the next).
    """

    def __init__(self, lab: Any, host: str, service: str) -> None:
        self._lab, self._host = lab, host
        self._mark = f"/run/asking-{service}"
        # The runtime's own path, because `current` moves while it asks.
        launch = 'exec "$(readlink -f /opt/mt5crs/reconciler/current/venv)/bin/python" "$@"'
        script = Path(__file__).read_text()
        self._command = ["sh", "-c", launch, "sh", "-c", script, service, self._mark]
        self.result: dict[str, Any] = {}

    def __enter__(self) -> Asker:
        from lab.handle import wait_until

        self._lab.exec(self._host, ["rm", "-f", self._mark])
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        test = ["test", "-e", self._mark]
        wait_until(
            lambda: self._lab.exec(self._host, test, check=False).returncode == 0, 30, "the first answer"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lab.exec(self._host, ["rm", "-f", self._mark])
        self._thread.join(30)
        if kind is None:
            assert self.result, self._output

    def _ask(self) -> None:
        done: subprocess.CompletedProcess[str] = self._lab.exec(
            self._host, self._command, timeout_s=_LONGEST_S + 30, check=False
        )
        self._output = done.stdout + done.stderr
        if done.returncode == 0:
            self.result = json.loads(done.stdout)


# ---- on the host ----


def ask_until_told(service: str, mark: Path) -> dict[str, Any]:
    """Ask as long as the file `mark`, made after the first answer, is there."""
    question = _gateway_question() if service == "gateway" else _state_question()
    asked, again, longest, away, lost = 0, 0, 0.0, 0.0, []
    answered = time.monotonic()
    end = answered + _LONGEST_S
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            again += question() > 1
        except Exception as error:
            lost.append(f"{type(error).__name__}: {error}")
        else:
            if asked:
                away = max(away, time.monotonic() - answered)
            answered = time.monotonic()
        seconds = time.monotonic() - began
        longest = max(longest, seconds) if asked else 0.0  # the first one connects
        asked += 1
        if asked == 1:
            mark.touch()
        elif not mark.exists():
            break
        time.sleep(max(0.0, EVERY_S - seconds))
    return {
        "asked": asked,
        "lost": lost,
        "again": again,
        "longest_ms": round(longest * 1000, 1),
        "away_ms": round(away * 1000, 1),
    }


def _gateway_question() -> Any:
    """PING and SYNC_ALL in turns; gives the number of attempts."""
    from mt5crs.client.connection import Peer
    from mt5crs.client.gateway import GatewayClient
    from mt5crs.protocol import replies, requests
    from mt5crs.settings import envfile

    env = envfile.read(Path("/opt/mt5crs/reconciler/current/.env"))
    magic = int(env["MAGIC_NUMBER"])
    peer = Peer(
        host=env["GATEWAY_HOST"],
        port=int(env["GATEWAY_PORT"]),
        pub_port=int(env["GATEWAY_PUB_PORT"]),
        server_key=env["GATEWAY_PUBLIC_KEY"],
        client_name=env["CLIENT_NAME"],
        secret_key=env["CLIENT_SECRET_KEY"],
    )
    client = GatewayClient(peer)
    turns = 0

    def ask() -> int:
        nonlocal turns
        turns += 1
        if turns % 2:
            client.call(requests.Ping, replies.Pong, magic=magic)
        else:
            client.snapshot(magic, history_since_msc=None)
        return client.last_attempts

    return ask


def _state_question() -> Any:
    from mt5crs.client.published import read_state

    def ask() -> int:
        read_state(_SOCKET)
        return 1

    return ask


if __name__ == "__main__":
    print(json.dumps(ask_until_told(sys.argv[1], Path(sys.argv[2]))))
