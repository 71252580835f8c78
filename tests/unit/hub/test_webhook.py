"""What Alertmanager tells reaches its receiver signed, or is kept until somebody looks."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lab.state import PROJECT
from mt5crs.hub import signature, webhook
from mt5crs.hub.figures import Figures
from mt5crs.hub.posting import post as sent
from mt5crs.hub.store import Store
from mt5crs.hub.webhook import NoNotificationError, Webhook
from mt5crs.service.database import UnusableError
from mt5crs.service.logs import Log
from mt5crs.settings.hub import HubSettings
from mt5crs.settings.schema import SettingsError, load
from tests.unit.gateway.running import Running, eventually
from tests.unit.hub.conftest import Shown
from tests.unit.hub.test_halting import TOKEN, post
from tests.unit.hub.test_store import BOUNDS

CANARY = "Canary7x9q2z"
SECRET = f"whsec_{base64.b64encode(b'k' * 32).decode()}"
FORMER = f"whsec_{base64.b64encode(b'f' * 32).decode()}"
NOTIFICATIONS = "/api/alerts/notifications"
LETTERS = "/api/alerts/dead-letters"


def notification(name: str = "Mt5crsHalted") -> bytes:
    alert = {"status": "firing", "labels": {"alertname": name, "host": "gtw-01"}}
    return json.dumps({"version": "4", "status": "firing", "alerts": [alert]}, indent=1).encode()


class Receiver:
    """Takes posts, as they are. answers: the status of the next ones; afterwards 204."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.posts: list[tuple[bytes, Mapping[str, str]]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.posts.append((body, {name.lower(): value for name, value in self.headers.items()}))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://ops:{CANARY}@127.0.0.1:{self.server.server_port}/hook?token={CANARY}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def example() -> Callable[..., bool]:
    """The verification that docs/monitoring.md shows to whoever writes a receiver."""
    text = (PROJECT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102 -- our own page
    return found["is_genuine"]  # type: ignore[no-any-return]


def started(gateway: Running, directory: Path, url: str, **settings: Any) -> Shown:
    of = {"webhook_url": url, "webhook_secret": SECRET, "alerts_token": TOKEN}
    return Shown(gateway, directory, **{**of, "halt_on": [], **settings})


def letters(hub: Shown) -> dict[str, Any]:
    status, told = hub.get(LETTERS)
    assert status == 200, told
    return dict(told)


# ---- the signature ----


def test_it_is_signed_as_the_standard_says() -> None:
    # The example of the standard's own libraries (https://www.standardwebhooks.com).
    key = signature.keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    of = signature.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', key)
    assert of == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", SECRET[6:], f"{SECRET} {SECRET} {SECRET}"]
)
def test_what_cannot_sign_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(signature.SecretError) as caught:
        signature.keys(secret)
    assert secret in ("", "whsec_") or secret not in str(caught.value)


def test_the_example_of_the_documents_takes_what_is_genuine_and_nothing_else() -> None:
    is_genuine = example()
    now, body = int(time.time()), notification()
    of = signature.headers("msg_1", now, body, signature.keys(SECRET))
    assert is_genuine(SECRET, of, body)
    assert not is_genuine(FORMER, of, body)
    assert not is_genuine(SECRET, of, body + b" ")
    assert not is_genuine(SECRET, {**of, "webhook-id": "msg_2"}, body)
    assert not is_genuine(SECRET, {**of, "webhook-timestamp": str(now + 1)}, body)
    old = signature.headers("msg_1", now - 301, body, signature.keys(SECRET))
    assert not is_genuine(SECRET, old, body), "somebody has sent again what he heard"
    both = signature.headers("msg_1", now, body, signature.keys(f"{SECRET} {FORMER}"))
    assert is_genuine(SECRET, both, body)
    assert is_genuine(FORMER, both, body), "a receiver that does not have the new secret yet"


# ---- the way through the Hub ----


def test_what_alertmanager_posts_arrives_as_it_is_with_a_signature(
    gateway: Running, tmp_path: Path, receiver: Receiver
) -> None:
    hub = started(gateway, tmp_path, receiver.url)
    try:
        assert post(hub, path=NOTIFICATIONS, body=notification()) == 202
        ((body, headers),) = eventually(lambda: receiver.posts)
        assert body == notification(), "a signature of it is one of these very bytes"
        assert example()(SECRET, headers, body)
        assert headers["authorization"] == f"Basic {base64.b64encode(f'ops:{CANARY}'.encode()).decode()}"
        told = eventually(lambda: of if (of := letters(hub))["accepted_at"] else None)
        assert (told["on"], told["waiting"], told["dead"], told["not_kept"]) == (True, [], [], "")
        for bad in (b"no json", b"[]", b'{"alerts": 1}', b"[" * 50_000, b"\xff"):
            assert post(hub, path=NOTIFICATIONS, body=bad) == 400
        for path in (NOTIFICATIONS, LETTERS):
            assert post(hub, "wrong", path=path) == 401
        assert post(hub, path=LETTERS, body=b'{"act": "burn", "ids": null}') == 400
        assert len(receiver.posts) == 1
    finally:
        hub.close()


def test_without_a_receiver_nothing_is_taken(gateway: Running, tmp_path: Path) -> None:
    hub = started(gateway, tmp_path, "", webhook_secret="")
    try:
        assert post(hub, path=NOTIFICATIONS, body=notification()) == 404
        assert letters(hub)["on"] is False
    finally:
        hub.close()


def test_what_is_not_accepted_is_kept_over_a_restart_and_delivered_when_asked_for(
    gateway: Running, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.answers = [500, 302]
    hub = started(gateway, tmp_path, receiver.url, webhook_tries=1)
    try:
        post(hub, path=NOTIFICATIONS, body=notification("Mt5crsOne"))
        eventually(lambda: letters(hub)["dead"])
        post(hub, path=NOTIFICATIONS, body=notification("Mt5crsTwo"))
        two, one = eventually(lambda: of if len(of := letters(hub)["dead"]) == 2 else None)
        assert (one["reason"], one["alerts"]) == ("it answers 500", ["Mt5crsOne gtw-01"])
        assert "redirections are not followed" in two["reason"]
        text = hub.get("/metrics")[1]
        assert "mt5crs_hub_webhook_dead_letters 2" in text
        assert 'mt5crs_hub_webhook_total{outcome="failed"} 2' in text
    finally:
        hub.close()
    shown = [json.dumps([one, two]), text, hub.log.getvalue()]
    hub = started(gateway, tmp_path, receiver.url)
    try:
        assert [each["id"] for each in letters(hub)["dead"]] == [two["id"], one["id"]]
        assert len(receiver.posts) == 2, "what was given up is left alone"
        assert post(hub, path=LETTERS, body=json.dumps({"act": "forget", "ids": [two["id"]]}).encode()) == 200
        assert post(hub, path=LETTERS, body=b'{"act": "retry", "ids": null}') == 200
        eventually(lambda: len(receiver.posts) == 3)
        assert receiver.posts[2][1]["webhook-id"] == one["id"] == receiver.posts[0][1]["webhook-id"]
        eventually(lambda: not letters(hub)["dead"] and not letters(hub)["waiting"])
    finally:
        hub.close()
    shown.append(hub.log.getvalue())
    assert [text for text in shown if CANARY in text or SECRET[6:] in text] == []


# ---- by itself, with a clock that can be turned ----


class Turned:
    """A webhook whose receiver says `why`, whose clock stands still, and which is moved by hand."""

    def __init__(self, directory: Path, why: str = "it answers 500", tries: int = 3) -> None:
        self.now, self.why = 1_800_000_000.0, why
        self.bodies: list[str] = []
        self.store = Store(directory, BOUNDS)
        self.webhook = Webhook(
            "http://127.0.0.1/", SECRET, tries, self.store, Figures(), Log("hub"),
            clock=lambda: self.now, send=self.send,
        )  # fmt: skip

    def send(self, _url: str, body: bytes, _headers: Mapping[str, str], _deadline_s: float) -> str:
        self.bodies.append(json.loads(body)["alerts"][0]["labels"]["alertname"])
        return self.why

    def step(self) -> float | None:
        """Try all that is due; for how long there is nothing to be done then."""
        while True:
            letter, pause = self.webhook._next()
            if letter is None:
                return pause
            self.webhook._try(letter)


def newest(turned: Turned) -> webhook.Letter:
    return max(turned.webhook._letters.values(), key=lambda each: each.at)


def test_it_is_tried_again_later_and_later_and_then_given_up(tmp_path: Path) -> None:
    turned = Turned(tmp_path, tries=8)
    turned.webhook.take(notification())
    pauses = []
    while (pause := turned.step()) is not None:
        pauses.append(pause)
        turned.now += pause
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    assert (len(turned.bodies), turned.webhook.figures()) == (8, (1, 0.0))


def test_a_clock_that_is_set_back_keeps_nothing_waiting(tmp_path: Path) -> None:
    turned = Turned(tmp_path)
    turned.webhook.take(notification())
    turned.step()
    turned.now -= 86_400
    turned.step()
    assert len(turned.bodies) == 2


def test_what_is_new_does_not_wait_behind_what_is_refused(tmp_path: Path) -> None:
    turned = Turned(tmp_path, tries=100)
    turned.webhook.take(notification("Mt5crsRefused"))
    turned.step()
    turned.now += 60
    turned.webhook.take(notification("Mt5crsNew"))
    letter, _ = turned.webhook._next()
    assert letter is not None
    assert "Mt5crsNew" in letter.body


def test_a_full_disk_delays_nothing_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turned = Turned(tmp_path, tries=1)

    def full(*_: object) -> None:
        raise UnusableError("no space")

    with monkeypatch.context() as disk:
        disk.setattr(turned.store, "keep_letters", full)
        turned.webhook.take(notification("Mt5crsOne"))
        turned.step()
        assert turned.bodies == ["Mt5crsOne"]
        assert turned.webhook.state()["not_kept"] == "no space"
    assert turned.store.letters() == []
    turned.webhook.take(notification("Mt5crsTwo"))
    assert turned.webhook.state()["not_kept"] == ""
    assert len(turned.store.letters()) == 2, "what the disk did not take is written once it can be"


def test_they_are_bounded_and_the_oldest_dead_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "MOST_LETTERS", 3)
    turned = Turned(tmp_path, tries=1)
    turned.webhook.take(notification("Mt5crsWaits0"))
    for name in ("Mt5crsDead1", "Mt5crsDead2"):
        turned.now += 1
        turned.webhook.take(notification(name))
        turned.webhook._try(newest(turned))
    for number in (1, 2):
        turned.now += 1
        turned.webhook.take(notification(f"Mt5crsWaits{number}"))
    left = {each["alerts"][0] for each in json.loads(json.dumps(turned.webhook.state()["waiting"]))}
    assert left == {f"Mt5crsWaits{number} gtw-01" for number in range(3)}
    assert turned.webhook.state()["dead"] == []
    assert len(turned.store.letters()) == 3
    monkeypatch.setattr(webhook, "MOST_BYTES", len(notification("Mt5crsWaits0")))
    turned.webhook.take(notification("Mt5crsLast00"))
    assert [each["alerts"] for each in turned.webhook.state()["waiting"]] == [["Mt5crsLast00 gtw-01"]]


def test_what_is_still_tried_is_neither_forgotten_nor_begun_anew(tmp_path: Path) -> None:
    turned = Turned(tmp_path)
    turned.webhook.take(notification())
    turned.step()
    waits = newest(turned)
    assert [turned.webhook.forget(ids) for ids in (None, [waits.id])] == [0, 0]
    assert [turned.webhook.retry(ids) for ids in (None, [waits.id])] == [0, 0]
    assert newest(turned) == waits


def test_hostile_notifications_are_shown_as_text(tmp_path: Path) -> None:
    turned = Turned(tmp_path)
    for body in (
        b'{"alerts": [1, null, {"labels": 7}, {"labels": {"alertname": "\\u0000\\u202e<b>", "host": []}}]}',
        b'{"alerts": [], "status": {"a": 1}}',
    ):
        turned.webhook.take(body)
    assert len(turned.webhook.state()["waiting"]) == 2
    with pytest.raises(NoNotificationError):
        turned.webhook.take(b'{"alerts": {}}')


# ---- the post ----


def test_a_receiver_that_says_little_by_little_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        over = threading.Event()

        def trickle() -> None:
            line, _ = listening.accept()
            with line:
                while not over.wait(0.05):
                    try:
                        line.sendall(b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        why = sent(f"http://127.0.0.1:{listening.getsockname()[1]}/{CANARY}", b"{}", {}, 0.5)
        took = time.monotonic() - began
        over.set()
        thread.join(5)
    assert why == "it gave no answer within 0.5 s"
    assert took < 3


def test_why_a_post_failed_is_said_without_the_address(receiver: Receiver) -> None:
    port = receiver.server.server_port
    assert sent(f"https://127.0.0.1:{port}/{CANARY}", b"{}", {}, 5.0).startswith("no TLS connection: ")
    with socket.create_server(("127.0.0.1", 0)) as once:
        free = once.getsockname()[1]
    assert sent(f"http://127.0.0.1:{free}/{CANARY}", b"{}", {}, 5.0) == "Connection refused"
    assert CANARY not in sent(f"http://{CANARY}.invalid/", b"{}", {}, 5.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def end() -> None:
            silent.accept()[0].close()

        thread = threading.Thread(target=end)
        thread.start()
        why = sent(f"http://127.0.0.1:{silent.getsockname()[1]}/{CANARY}", b"{}", {}, 5.0)
        thread.join(5)
    assert CANARY not in why
    assert why


# ---- settings ----


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"WEBHOOK_SECRET": ""}, "belong together"),
        ({"WEBHOOK_URL": f"ftp://{CANARY}"}, "is no http:// or https:// address"),
        ({"WEBHOOK_URL": f"https://a b/{CANARY}"}, "is no http:// or https:// address"),
        ({"WEBHOOK_SECRET": CANARY}, "WEBHOOK_SECRET"),
        ({"ALERTS_TOKEN": ""}, "no token to post to the Hub with"),
    ],
)
def test_settings_that_cannot_sign_or_reach_anybody_are_refused(of: dict[str, str], said: str) -> None:
    good = {
        "GATEWAYS": "{}",
        "GATEWAY_PORTS": "{}",
        "GATEWAY_PUB_PORTS": "{}",
        "GATEWAY_PUBLIC_KEYS": "{}",
        "CLIENT_NAME": "watcher",
        "CLIENT_SECRET_KEY": "a" * 64,
        "HALT_ON": "[]",
        "ALERTS_TOKEN": TOKEN,
        "WEBHOOK_URL": "https://example.org/hook",
        "WEBHOOK_SECRET": f"{SECRET} {FORMER}",
    }
    load(HubSettings, good)
    with pytest.raises(SettingsError) as caught:
        load(HubSettings, {**good, **of})
    assert said in str(caught.value)
    assert CANARY not in str(caught.value)
