"""An order manager under phases: signers with real keys, their records, a broker with enough leverage."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from mt5crs.broker.sim.backend import Command, Profile, SimulatedBroker
from mt5crs.gateway.control import Control
from mt5crs.gateway.journal import Journal
from mt5crs.gateway.ledger import Ledger
from mt5crs.gateway.order_manager import OrderManager
from mt5crs.gateway.phase_store import PhaseStore
from mt5crs.gateway.phases import Phases
from mt5crs.gateway.stream import Stream
from mt5crs.gateway.unfilled import Unfilled
from mt5crs.gateway.watch import Watch
from mt5crs.phases.profile import profiles
from mt5crs.phases.record import PhaseRecord, sign, text_of
from mt5crs.protocol.fields import MarginMode
from mt5crs.protocol.replies import PhaseState
from mt5crs.protocol.requests import PhaseQuery, PhaseSet
from tests.unit.gateway.counter import LOGIN, MAGIC, SERVER, START_MSC, Counter

ACCOUNT = f"{LOGIN}@{SERVER}"
SHADOW, MICRO, CONSTRAINED, SCALED = profiles()
DAY_MS = 86_400_000
LEVERAGE = 2000
"""0.01 lots of EURUSD bind 0.55 US dollars."""


@functools.cache
def key(name: str) -> Path:
    """The private key of a signer of this test run."""
    file = Path(tempfile.mkdtemp(prefix="mt5crs-signer-")) / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(file)], check=True)
    return file


def signers(*names: str) -> dict[str, str]:
    """Public keys by name, as in the settings."""
    return {name: key(name).with_suffix(".pub").read_text().strip() for name in names}


class Phased(Counter):
    """A `Counter` whose magic number is under a phase."""

    def __init__(
        self,
        directory: Path,
        margin_mode: MarginMode = "HEDGING",
        *,
        now: int = START_MSC,
        look: bool = True,
        leverage: int = LEVERAGE,
        ceiling: str = "",
        listed: tuple[str, ...] = ("alice",),
        **limits: Any,
    ) -> None:
        self.leverage, self.ceiling, self.listed = leverage, ceiling, listed
        self.wall_off = 0
        """By how much the wall clock is wrong, in milliseconds."""
        super().__init__(directory, margin_mode, now=now, look=look, **limits)

    def wall(self) -> int:
        """What the host's clock says."""
        return self.now + self.wall_off

    def build(self, margin_mode: MarginMode) -> None:
        """Broker, files and order_manager, with phases."""
        profile = Profile(balance=1e6, margin_mode=margin_mode, leverage=self.leverage)
        self.broker = SimulatedBroker(self.directory / "sim", profile, clock=lambda: self.now, durable=False)
        self.journal = Journal(self.directory / "journal.db", ACCOUNT, durable=False)
        clocks: dict[str, Any] = {"monotonic": lambda: self.now / 1000}
        path = self.directory / "control.db"
        self.control = Control(path, ACCOUNT, **clocks, wall_msc=self.wall, durable=False)
        stream, ledger = Stream("s", lambda _: None), Ledger(self.broker)
        unfilled = Unfilled(**clocks)
        self.phases = Phases(
            PhaseStore(path, ACCOUNT, **clocks, wall_msc=self.wall, durable=False),
            self.control,
            self.broker,
            ACCOUNT,
            lambda event, **_: self.notes.append(event),
            signers=signers(*self.listed),
            ceiling=lambda _: self.ceiling,
            unfilled=unfilled,
            **clocks,
        )
        self.order_manager = OrderManager(
            self.broker,
            self.journal,
            self.control,
            Watch(self.broker, stream, ledger, **clocks),
            ledger,
            stream,
            lambda: self.limits,
            LOGIN,
            SERVER,
            lambda event, **_: self.notes.append(event),
            phases=self.phases,
            unfilled=unfilled,
            **clocks,
        )

    def reopened(self, *, killed: bool = False, **changes: Any) -> Phased:
        """The same files, opened again; `killed`: the run before was not stopped."""
        if killed:
            self.phases._store._db.close()
        else:
            self.phases.close()
        for part in (self.broker, self.journal, self.control):
            part.close()
        fields = {"leverage": self.leverage, "ceiling": self.ceiling, "listed": self.listed, **changes}
        off = fields.pop("wall_off", self.wall_off)
        again = _Again(self.directory, now=self.now, off=off, **fields)
        again.limits, again._number = self.limits, self._number
        return again

    def record(self, profile: str, **changes: Any) -> PhaseRecord:
        """A record that would be accepted, but for the changes."""
        usual: dict[str, Any] = {
            "magic": MAGIC,
            "account": ACCOUNT,
            "profile": profile,
            "serial": self.state().serial + 1,
            "issued_msc": self.now,
            "expires_msc": self.now + 10 * DAY_MS,
            "by": "alice",
            "reason": "drill",
            "override": True,
        }
        return PhaseRecord(**{**usual, **changes})

    def give(self, record: PhaseRecord, signer: str = "alice", text: str = "") -> PhaseState:
        """Have a record signed and give it to the gateway. Raises Refusal."""
        signed = text_of(record)
        return self.give_signed(text or signed, sign(signed, key(signer)))

    def give_signed(self, text: str, signature: str) -> PhaseState:
        """Give a record to the gateway. Raises Refusal."""
        reply = self.order_manager.phase(
            PhaseSet(v=1, id="p", client="ops", magic=MAGIC, record=text, signature=signature)
        )
        assert isinstance(reply, PhaseState)
        return reply

    def promote(self, profile: str, **changes: Any) -> PhaseState:
        """Put the magic number under a profile."""
        return self.give(self.record(profile, **changes))

    def state(self) -> PhaseState:
        """PHASE_QUERY."""
        reply = self.order_manager.phase(PhaseQuery(v=1, id="q", client="ops", magic=MAGIC))
        assert isinstance(reply, PhaseState)
        return reply

    def profile(self) -> str:
        """Name of the profile in force."""
        found = self.phases.in_force(MAGIC)
        assert found is not None
        return found.name

    def lose(self, dollars: float) -> None:
        """Lose money with this magic number, at the broker."""
        self.broker.command(Command(do="trade", symbol="EURUSD", side="BUY", volume=0.01, magic=MAGIC))
        self.price(1.1001 - dollars / 1000)
        self.order_manager.look()


class _Again(Phased):
    def __init__(self, directory: Path, *, now: int, off: int, **fields: Any) -> None:
        self._off = off
        super().__init__(directory, now=now, **fields)

    def build(self, margin_mode: MarginMode) -> None:
        self.wall_off = self._off
        super().build(margin_mode)
