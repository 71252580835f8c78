"""What the release tool is doing when it is hit: a host made ready, then one command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.release_host.host import UNIT, FakeHost, beside, in_the_shadow, specification, with_live

SIDE = "mt5crs-side.service"
DROP_IN = "mt5crs-gateway.service.d/10-limits.conf"
PAIRED = "reconciler"
"""A second service of the host, in scenarios that take a deployment back as a whole."""
DEPLOYMENT = "d2"
OLD, NEW = "old", "new"
INSTALL = "\n[Install]\nWantedBy=multi-user.target\n"


@dataclass(frozen=True)
class Scenario:
    """``prepare`` makes the host ready; ``arguments`` (with ``spec``) is the run that is hit."""

    name: str
    prepare: Callable[[FakeHost], None]
    arguments: tuple[str, ...]
    spec: dict[str, Any] | None = None
    spoilt: bool = False
    """Whether the new generation does not run: while the disk refuses everything, nothing can then."""
    nothing_allowed: bool = False
    """Whether the host may end with nothing running: only when nothing ran before."""
    allowed: frozenset[str] = field(default_factory=lambda: frozenset({OLD, NEW}))
    """Texts that may run afterwards."""
    pair: bool = False
    """Whether PAIRED goes the same way: afterwards both run the old or both the new."""
    repeats: str = ""
    """What it only repeats; then it is hit at every single call (`make faults-long`), or not at all."""


def old(**changes: Any) -> dict[str, Any]:
    """Return the specification of what runs before: it brings a second unit that the new one drops."""
    units = {UNIT: _text(OLD), SIDE: _text("side")}
    made = specification(OLD, units=units, start=[SIDE, UNIT], reload_on_confirm=[UNIT], **changes)
    return _letting_in(made, {"rest": [1], "gone": [3]})


def new(remark: str = "", **changes: Any) -> dict[str, Any]:
    """Return the specification of what is to run: it brings a drop-in that the old one does not have."""
    units = {UNIT: _text(f"{NEW} {remark}".strip()), DROP_IN: "limits"}
    made = specification(NEW, units=units, reload_on_confirm=[UNIT], **changes)
    return _letting_in(made, {"rest": [2]})


def _letting_in(made: dict[str, Any], magics: dict[str, list[int]]) -> dict[str, Any]:
    clients = {
        name: {"key": name, "permissions": ["trade"], "magics": numbers} for name, numbers in magics.items()
    }
    content = json.dumps({"clients": clients, "limits": {}})
    made["files"]["clients.json"] = {"mode": "0644", "owner": "root", "group": "root", "content": content}
    return {**made, "access": "clients.json"}


def _text(text: str) -> str:
    # One line for the stand-in's records, the second for the links that start it at boot.
    return f"{text}{INSTALL}"


def _deployed(host: FakeHost, spec: dict[str, Any], timeout_s: int = 0) -> str:
    status, staged = host.run("stage", "gateway", spec=spec)
    assert status == 0, host.last_output
    status, _ = host.run("activate", "gateway", "--confirm-timeout", str(timeout_s))
    assert status == 0, host.last_output
    return str(staged["generation"])


def _paired(text: str) -> dict[str, Any]:
    unit = f"{PAIRED}.service"
    made = specification(text, service=PAIRED, units={unit: _text(text)}, start=[unit])
    made["health"]["command"] = ["sh", "-c", "true"]
    return made


def _both_new(host: FakeHost) -> None:
    """What is taken back here is the scenario's old one: it was brought by a deployment."""
    for deployment, made in (("d1", (new(), _paired(NEW))), (DEPLOYMENT, (old(), _paired(OLD)))):
        for spec in made:
            assert host.run("stage", spec["service"], spec=spec)[0] == 0, host.last_output
            now = ("--confirm-timeout", "0", "--deployment", deployment)
            assert host.run("activate", spec["service"], *now)[0] == 0, host.last_output


def _held(host: FakeHost) -> None:
    _both_new(host)
    assert host.run(*UNDO, "--hold", "600")[0] == 0, host.last_output


def _undone(host: FakeHost) -> None:
    _both_new(host)
    assert host.run(*UNDO)[0] == 0, host.last_output


def _staged(host: FakeHost, spec: dict[str, Any]) -> None:
    status, _ = host.run("stage", "gateway", spec=spec)
    assert status == 0, host.last_output


def _nothing(_: FakeHost) -> None:
    return


def _old_runs(host: FakeHost) -> None:
    _deployed(host, old())


def _only_new_staged(host: FakeHost) -> None:
    _staged(host, new())


def _new_staged(host: FakeHost) -> None:
    _old_runs(host)
    _staged(host, new())


def _bad_staged(host: FakeHost) -> None:
    _old_runs(host)
    _staged(host, new("#crashloop"))


def _new_can_stand_by(host: FakeHost) -> None:
    _old_runs(host)
    _staged(host, new(standby=beside()))


def _different_staged(host: FakeHost) -> None:
    _old_runs(host)
    _staged(host, new(standby=beside("#differs")))


def _new_can_be_a_shadow(host: FakeHost) -> None:
    _old_runs(host)
    _staged(host, new(standby=beside(), shadow=in_the_shadow("#agrees")))


def _new_provisional(host: FakeHost) -> None:
    _old_runs(host)
    _deployed(host, new(), 600)


def _new_overdue(host: FakeHost) -> None:
    _new_provisional(host)
    path = host.service / "state.json"
    path.write_text(path.read_text().replace('"deadline": ', '"deadline": -'))


def _new_runs(host: FakeHost) -> None:
    _old_runs(host)
    _deployed(host, new())


def _live_staged(host: FakeHost) -> None:
    _deployed(host, with_live(old(), "INFO"))
    _staged(host, with_live(old(), "DEBUG"))


def _live_runs(host: FakeHost) -> None:
    _live_staged(host)
    assert host.run(*ACTIVATE_NOW)[1]["live"] is True, host.last_output


def _many(host: FakeHost) -> None:
    for number in range(3):
        _deployed(host, old(state_format=1 + number))
    _staged(host, new("#crashloop", state_format=3))
    host.run("activate", "gateway")
    _deployed(host, new(state_format=4))


UNDO = ("undo", "--deployment", DEPLOYMENT)
ACTIVATE_NOW = ("activate", "gateway", "--confirm-timeout", "0")
SCENARIOS = [
    Scenario("stage the first", _nothing, ("stage", "gateway"), new(), nothing_allowed=True),
    Scenario("stage another", _old_runs, ("stage", "gateway"), new(), allowed=frozenset({OLD})),
    Scenario(
        "activate the first", _only_new_staged, ACTIVATE_NOW, nothing_allowed=True, allowed=frozenset({NEW})
    ),
    Scenario("activate", _new_staged, ("activate", "gateway", "--confirm-timeout", "600")),
    Scenario("activate and confirm", _new_staged, ACTIVATE_NOW),
    Scenario("activate a bad one", _bad_staged, ACTIVATE_NOW, spoilt=True, allowed=frozenset({OLD})),
    Scenario("activate after standby", _new_can_stand_by, (*ACTIVATE_NOW, "--standby")),
    Scenario(
        "activate what differs", _different_staged, (*ACTIVATE_NOW, "--standby"), allowed=frozenset({OLD})
    ),
    Scenario(
        "activate after the shadow",
        _new_can_be_a_shadow,
        (*ACTIVATE_NOW, "--standby", "--shadow", "5"),
        repeats="a standby goes the same way: scenario activate-after-standby",
    ),
    Scenario("confirm", _new_provisional, ("confirm", "gateway")),
    Scenario("revert", _new_provisional, ("revert", "gateway")),
    Scenario("recover", _new_overdue, ("recover", "gateway", "--watch"), allowed=frozenset({OLD})),
    Scenario("roll back", _new_runs, ("rollback", "gateway")),
    Scenario("undo", _both_new, UNDO, pair=True),
    Scenario("undo and hold", _both_new, (*UNDO, "--hold", "600"), pair=True),
    Scenario("undo and judge", _held, (*UNDO, "--judge"), pair=True),
    Scenario("leave a held undo", _held, (*UNDO, "--back"), pair=True),
    Scenario("leave an undo", _undone, (*UNDO, "--back"), pair=True),
    Scenario("activate a live change", _live_staged, ACTIVATE_NOW, allowed=frozenset({OLD})),
    Scenario("roll a live change back", _live_runs, ("rollback", "gateway"), allowed=frozenset({OLD})),
    Scenario("prune", _many, ("prune", "gateway", "--keep", "0"), allowed=frozenset({NEW})),
]
