"""`mt5crs … webhook`: shows, retries and forgets what the Hub's service could not deliver."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deploy.commands import webhook as command
from deploy.remote import dead_letters, script
from tests.unit.gateway.running import Running, eventually, running
from tests.unit.hub.conftest import Shown
from tests.unit.hub.test_halting import TOKEN, post
from tests.unit.hub.test_webhook import CANARY, NOTIFICATIONS, Receiver, letters, notification, started


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver(500, 500)
    yield made
    made.close()


@pytest.fixture
def hub(gateway: Running, tmp_path: Path, receiver: Receiver) -> Iterator[Shown]:
    shown = started(gateway, tmp_path, receiver.url, webhook_tries=1)
    try:
        yield shown
    finally:
        shown.close()


@pytest.fixture
def told(hub: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Acts that were recorded. The host's script runs here, with the settings of this Hub."""
    settings = tmp_path / "hub.env"
    settings.write_text(
        f"# settings\nHTTP_ADDRESS='127.0.0.1'\nHTTP_PORT='{hub.hub.endpoint.port}'\nALERTS_TOKEN='{TOKEN}'\n"
    )
    source = tmp_path / "asked.py"
    text = Path(str(dead_letters.__file__)).read_text()
    source.write_text(text.replace(str(dead_letters.SETTINGS), str(settings)))

    def ask(_variables: object, module: object, *, stdin: str, timeout_s: float) -> dict[str, Any]:
        assert module is dead_letters
        done = subprocess.run(
            [sys.executable, str(source)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise script.ScriptError(done.stderr.strip())
        return dict(json.loads(done.stdout))

    acts: list[Any] = []
    of = SimpleNamespace(hosts={"hub-01": {}}, in_group=lambda _: ["hub-01"])
    monkeypatch.setattr(script, "ask", ask)
    monkeypatch.setattr(command, "chosen_fleet", lambda _: SimpleNamespace(inventory=Path("x")))
    monkeypatch.setattr(command, "fleet_of", lambda _: of)
    monkeypatch.setattr(command, "acted", lambda what, **values: acts.append((what, values)))
    return acts


def run(*words: str) -> Result:
    return CliRunner().invoke(command.webhook, list(words))


def test_dead_letters_are_listed_tried_again_and_forgotten(
    hub: Shown, receiver: Receiver, told: list[Any]
) -> None:
    done = run("list")
    assert (done.exit_code, done.output) == (0, "nothing is undelivered\n")
    for name in ("Mt5crsOne", "Mt5crsTwo"):
        post(hub, path=NOTIFICATIONS, body=notification(name))
        eventually(lambda name=name: name in str(letters(hub)["dead"]))  # type: ignore[misc]
    done = run("list")
    assert done.exit_code == 1
    assert "firing: Mt5crsOne gtw-01" in done.output
    assert "it answers 500" in done.output
    assert CANARY not in done.output
    assert TOKEN not in done.output
    two, one = json.loads(run("list", "--json").output)["dead"]
    done = run("retry", one["id"], "msg_none")
    assert done.exit_code == 1
    assert "1 are tried again" in done.output
    assert "1 of these are no dead letters" in done.output
    eventually(lambda: len(receiver.posts) == 3)
    done = run("forget", "--all")
    assert (done.exit_code, done.output) == (0, "1 forgotten\n")
    assert run("list").exit_code == 0
    assert told == [
        ("webhook.retried", {"letters": 1, "ids": [one["id"], "msg_none"]}),
        ("webhook.forgotten", {"letters": 1, "ids": []}),
    ]
    assert two["id"] not in {headers["webhook-id"] for _, headers in receiver.posts[2:]}


@pytest.mark.parametrize("words", [("retry",), ("forget",), ("retry", "msg_1", "--all")])
def test_nothing_is_done_to_all_of_them_unless_it_is_said(told: list[Any], words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2
    assert told == []


def test_a_hub_that_does_not_answer_is_one_sentence(hub: Shown, told: list[Any]) -> None:
    hub.hub.endpoint.close()
    done = run("list")
    assert done.exit_code == 1
    assert "look whether mt5crs-hub runs" in done.output
    assert "Traceback" not in done.output
