"""A fleet that trades while its description changes: both engines, and what must hold after each step."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from lab.handle import wait_until
from tests.faults.fleet.audit import audit
from tests.faults.fleet.collect import books_of, quiet
from tests.faults.fleet.controller import Controller
from tests.lab.engines import Fleet, Ran, running_in
from tests.lab.lifecycle import told
from tests.lab.lifecycle.changes import TRADING, Member
from tests.lab.lifecycle.description import Description
from tests.lab.lifecycle.trading import Span, pauses

PYINFRA, ANSIBLE = "pyinfra", "ansible"
OUTPUT = 4000
"""So much of a run's output is shown when it was not as expected."""
TRADES_S = 30.0
"""Within this a fleet that was changed trades again."""
SETTLE_S = 20.0
UNTOLD = ("unknown order", "the gateway's journal knows nothing of it")
"""What the auditor says of orders whose record was lost with a host."""


@dataclass(frozen=True)
class State:
    """What runs: (host, service) → digest of its generation, and → main process of what trades."""

    contents: dict[Member, str]
    processes: dict[Member, str]


@dataclass
class Course:
    """One fleet, one engine, one description."""

    fleet: Fleet
    description: Description
    engine: str = PYINFRA
    runs: list[str] = field(default_factory=list)
    """`deploy 12.3 s` of each run so far."""
    quiet: list[Span] = field(default_factory=list)
    """When the strategies were stopped to compare the records."""
    seen: set[str] = field(default_factory=set)
    """Hosts that were members at some time."""
    known: set[str] = field(default_factory=set)
    """Violations that a lost host has left."""

    def sync(self) -> None:
        """Have the fleet's hosts be those of the description."""
        self.fleet.plan = self.description.plan

    # --- runs ---------------------------------------------------------------------------------------------

    def look(self) -> str:
        """What `--dry` or `--check` prints."""
        self.sync()
        if self.engine == PYINFRA:
            ran = self._timed("look", lambda: self.fleet.pyinfra("--dry", yes=False))
        else:
            ran = self._timed("look", lambda: self.fleet.playbook("site.yml", "--check"))
        assert ran.status == 0, ran.output[-OUTPUT:]
        return ran.output

    def deploy(self) -> Ran:
        """A deployment; how it ended is for the caller to judge."""
        self.sync()
        if self.engine == PYINFRA:
            return self._timed("deploy", self.fleet.pyinfra)
        return self._timed("deploy", lambda: self.fleet.playbook("site.yml"))

    def begin(self) -> Controller:
        """A deployment in the background."""
        self.sync()
        return Controller(self.fleet, engine=self.engine)

    def roll_back(self, part: str, host: str = "", *, access: bool = False) -> Ran:
        """A rollback of a part, or of the fleet; of one host if it is named."""
        limit = ["--limit", host] if host else []
        if self.engine == PYINFRA:
            words = [*limit, *(["--data", "access=back"] if access else [])]
            return self._timed(f"rollback {part}", lambda: self.fleet.rollback_with_pyinfra(part, *words))
        words = ["--tags", part, *limit, *(["-e", "access=back"] if access else [])]
        return self._timed(f"rollback {part}", lambda: self.fleet.playbook("rollback.yml", *words))

    def _timed(self, what: str, run: Callable[[], Ran]) -> Ran:
        began = time.monotonic()
        ran = run()
        self.runs.append(f"{what} {time.monotonic() - began:.1f} s")
        return ran

    def renew(self) -> None:
        """Want generations beside the change that no host has seen: moments are those of a new one."""
        number = time.time() % 100_000
        self.description.set(
            gateway_heartbeat_interval_s=round(0.5 + number / 1e6, 6),
            reconciler_recheck_interval_s=round(10 + number / 1e6, 6),
            strategy_tick_interval_s=round(0.2 + number / 1e6, 6),
        )
        self.description.write()

    # --- what is looked at --------------------------------------------------------------------------------

    def state(self) -> State:
        """What runs now: contents on every host that ever was a member, processes on those of today."""
        self.seen |= {host.name for host in self.description.plan.hosts}
        hosts = tuple(host for host in self.fleet.lab.plan.hosts if host.name in self.seen)
        self.fleet.plan = replace(self.description.plan, hosts=hosts)
        contents = {member: str(now["digest"]) for member, now in self.fleet.statuses().items()}
        self.sync()
        return State(contents, self.fleet.pids())

    def magics(self) -> dict[str, int]:
        """Inf host → magic number that it is to trade."""
        found = self.description.values(self.fleet.hosts("strategy"), "strategy_magic_number")
        return {host: int(str(magic)) for host, magic in found.items()}

    def require_running(self) -> None:
        """AssertionError, naming the service, unless every one is active and confirmed."""
        statuses = self.fleet.statuses()
        wrong = [
            f"{service} on {host}: {now['state']}, {now['units']}"
            for (host, service), now in statuses.items()
            if not running_in({(host, service): now})
        ]
        assert not wrong, wrong

    def require_nothing_to_do(self) -> None:
        """A further run finds nothing to change, and changes nothing."""
        before = self.state()
        ran = self.deploy()
        assert ran.status == 0, ran.output[-OUTPUT:]
        assert ran.record["outcome"] == "unchanged", ran.output[-OUTPUT:]
        assert self.state() == before

    def require_orders(self, hosts: Collection[str]) -> dict[str, int]:
        """Each of these hosts sends an order from now on; host → its magic number."""
        magics = {host: magic for host, magic in self.magics().items() if host in hosts}
        began = _now_msc()

        def all_trade() -> bool:
            span = began, _now_msc()
            found = pauses(self.fleet, magics, span)
            return all(pause * 1000 < span[1] - span[0] for pause in found.values())

        wait_until(all_trade, TRADES_S, f"an order of each of {', '.join(magics)}")
        return magics

    def require_trading(self, hosts: Collection[str]) -> None:
        """Each of these hosts trades, and no order was doubled, no position lost, none sent too late."""
        magics = self.require_orders(hosts)
        found = [text for text in self._violations(magics) if text not in self.known]
        assert not found, "\n".join(found[:20])

    def forgive(self) -> None:
        """What the records of a host that was lost cannot tell any more is no violation; all else is."""
        found = self._violations(self.magics())
        worse = [text for text in found if not any(words in text for words in UNTOLD)]
        assert not worse, "\n".join(worse[:20])
        self.known |= set(found)

    def _violations(self, magics: Mapping[str, int]) -> list[str]:
        """What the records of these magic numbers say against each other, while nothing is under way."""
        stopped = _now_msc()
        with quiet(self.fleet):
            end = time.monotonic() + SETTLE_S
            while True:
                found = [
                    text for host, of in magics.items() for text in audit(books_of(self.fleet, host, of))
                ]
                if set(found) <= self.known or time.monotonic() > end:
                    break
                time.sleep(0.5)
        self.quiet.append((stopped, _now_msc()))
        return found

    @contextmanager
    def pauses(self) -> Iterator[dict[str, float]]:
        """Measures the longest time without an order, of each host that trades before and afterwards."""
        magics = self.magics()
        begin, found = _now_msc(), dict[str, float]()
        try:
            yield found
        finally:
            now = self.magics()
            kept = {host: magic for host, magic in magics.items() if now.get(host) == magic}
            found |= pauses(self.fleet, kept, (begin, _now_msc()), self.quiet)


def _now_msc() -> int:
    return int(time.time() * 1000)


def restarted(before: State, after: State) -> set[Member]:
    """What trades and has another process, of the services that were there before and are so afterwards."""
    both = before.processes.keys() & after.processes.keys()
    return {member for member in both if before.processes[member] != after.processes[member]}


def moved(before: State, after: State) -> set[Member]:
    """What is on another generation, or was not there before."""
    return {member for member, now in after.contents.items() if before.contents.get(member) != now}


def require_as_told(output: str, before: State, after: State) -> None:
    """What a run said beforehand is what it did: which services restart or change without, on which hosts."""
    live, new = told.live(output), restarted(before, after)
    said, did = told.restarts(output) | live, new | moved(before, after)
    assert said == did, {"said only": sorted(said - did), "did only": sorted(did - said)}
    assert not live & new, "it was said to change without a restart"
    assert {service for _, service in new} <= set(TRADING)
