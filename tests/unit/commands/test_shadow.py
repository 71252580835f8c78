"""What runs in the shadow is shown of every host; a word reaches those where one does, and is recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deploy.commands import shadow
from deploy.remote import ssh
from mt5crs.probes.agreement import Agreement
from tests.unit.gateway.running import Running, running
from tests.unit.operate.operated import Operated, operated
from tests.unit.reporting.test_shadow_page import seeded, told

pytestmark = pytest.mark.timeout(60)
REFUSED = {"error": {"kind": "refused", "message": "no new version of strategy runs in the shadow here now"}}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("shadow")) as started:
        yield started


class Hosts:
    """What the release tool of each host answers."""

    def __init__(self) -> None:
        self.found: Agreement | None = seeded()
        self.silent = False
        self.asked: list[list[str]] = []

    def run(self, _variables: dict[str, Any], words: Sequence[str], **_: Any) -> ssh.Reply:
        self.asked.append(list(words))
        if self.silent:
            return ssh.Reply(None, "", "no answer within 30 s")
        if words[3] == "show":
            none = {"shadow": None, "generation": None}
            return ssh.Reply(0, json.dumps(none if self.found is None else told(self.found)), "")
        if self.found is None:
            return ssh.Reply(2, json.dumps(REFUSED), "")
        answer = {"changed": True, "generation": "0002-ab", "reason": f"0002-ab: {words[3]}"}
        return ssh.Reply(0, json.dumps(answer), "")


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    made = Hosts()
    monkeypatch.setattr(ssh, "run", made.run)
    return made


@pytest.fixture
def ops(gateway: Running, there: Hosts, monkeypatch: pytest.MonkeyPatch) -> Operated:
    made = operated(gateway, monkeypatch)
    monkeypatch.setattr(shadow, "fleet_of", lambda _: made.fleet)
    return made


def test_it_is_shown_as_text_json_and_page(ops: Operated, there: Hosts, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = ops.run("shadow", "show", "--html", str(page))
    assert done.exit_code == 0, done.output
    assert "1 of 3 decisions agree (33.3 %)" in done.output
    assert "<svg" in page.read_text()
    shown = json.loads(ops.run("shadow", "show", "--json").stdout)
    assert {one["shadow"]["decisions"] for one in shown.values()} == {3}
    assert there.asked[0] == ["/usr/local/sbin/mt5crs-release", "shadow", "strategy", "show", "--json"]


def test_what_is_not_there_or_not_known_is_said(ops: Operated, there: Hosts, tmp_path: Path) -> None:
    there.found = None
    done = ops.run("shadow", "show")
    assert (done.exit_code, "no strategy has run in the shadow here" in done.output) == (1, True)
    there.silent = True
    done = ops.run("shadow", "show")
    assert (done.exit_code, "not known: no answer within 30 s" in done.output) == (1, True)
    done = ops.run("shadow", "show", "--host", "nowhere")
    assert (done.exit_code, "name an Inf host" in done.output) == (2, True)
    done = ops.run("shadow", "show", "--html", str(tmp_path / "none" / "page.html"))
    assert (done.exit_code, "cannot be written" in done.output) == (1, True)


@pytest.mark.parametrize(("word", "act"), [("promote", "strategy.promoted"), ("drop", "strategy.dropped")])
def test_a_word_is_given_and_recorded(ops: Operated, there: Hosts, word: str, act: str) -> None:
    done = ops.run("shadow", word, "--reason", "looked at it")
    assert done.exit_code == 0, done.output
    assert there.asked[0][3:5] == [word, "--by"]
    assert there.asked[0][5].endswith(": looked at it")
    assert [one["what"] for one in ops.recorded] == [act]
    there.found = None
    done = ops.run("shadow", word, "--reason", "looked at it")
    assert (done.exit_code, len(ops.recorded)) == (1, 1)
    assert "no new version of strategy runs in the shadow here now" in done.output
