"""What a strategy saw and decided, callback by callback, in a bounded file; read while it is written.

The running strategy writes its tape while a shadow asks for it; the shadow goes through the same callbacks
with the same answers and writes what it decided. `mt5crs.probes.agreement` compares the two.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO, Literal

import msgspec

from mt5crs.protocol.fields import Side
from mt5crs.protocol.records import Order, Position, Tick
from mt5crs.strategy.api import Outcome

TAPE = "decisions.jsonl"
"""Name of both files: in the state directory of what runs, and in the directory of the shadow."""
MOST_BYTES = 8 * 1024 * 1024
"""After which a file begins anew; the one before is kept beside it."""
BEGAN = "began"
"""Instead of a callback: the first line of a tape."""
JOINING = -1
"""Instead of a number: a callback of the shadow alone, which has nothing to be compared with."""

Kind = Literal["MARKET", "LIMIT", "STOP", "CLOSE", "CANCEL"]


class Failed(msgspec.Struct, frozen=True, omit_defaults=True):
    """An OrderError that a call raised."""

    error: str
    message: str
    code: str = ""
    field: str = ""


class Read(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the strategy asked for and was told. `after`: how many decisions it had made in the callback."""

    what: Literal["positions", "orders", "quote"]
    after: int
    symbol: str = ""
    as_before: bool = False
    """The same positions or orders as in the answer before it."""
    positions: tuple[Position, ...] | None = None
    orders: tuple[Order, ...] | None = None
    tick: Tick | None = None
    failed: Failed | None = None


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """An order that a strategy wanted. Volumes are lots, times milliseconds since 1970 or seconds."""

    id: str
    at_ms: int
    kind: Kind
    symbol: str
    side: Side | str
    volume: float
    where: str
    """The line of code that asked for it."""
    own_s: float = 0.0
    """Time of its own that the strategy took in the callback until then, without what it waited for."""
    ticket: int = 0
    """Of the position that is closed, or the order that is cancelled."""
    price: float | None = None
    sl: float | None = None
    tp: float | None = None
    max_slippage_points: int | None = None
    expiration_msc: int | None = None
    expected_profit: float | None = None
    outcome: Outcome | None = None
    failed: Failed | None = None


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """One callback. `run` and `number` name it, on both tapes."""

    run: str
    number: int
    at_ms: int
    callback: str
    reads: tuple[Read, ...] = ()
    decisions: tuple[Decision, ...] = ()
    own_s: float = 0.0
    asked_itself: int = 0
    """Questions of a shadow that the running one had not asked, so that they were put to the gateway."""
    failed: Failed | None = None
    """The OrderError that the callback let pass."""


_decoder = msgspec.json.Decoder(Call)


class TapeWriter:
    """Appends callbacks to a file that never grows beyond twice MOST_BYTES."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        """Raises OSError."""
        self._path = path
        self._most_bytes = most_bytes
        self._file: IO[bytes] = path.open("wb")

    def write(self, call: Call) -> None:
        """Add a callback. Raises OSError; it is read by others at once, and not durable."""
        line = msgspec.json.encode(call) + b"\n"
        if self._file.tell() and self._file.tell() + len(line) > self._most_bytes:
            self._file.close()
            self._path.replace(before(self._path))
            self._file = self._path.open("wb")
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        """Close the file; it stays."""
        with contextlib.suppress(OSError):
            self._file.close()


def before(path: Path) -> Path:
    """Where a tape is kept that was full."""
    return path.with_name(f"{path.name}.before")


def remove(path: Path) -> None:
    """Remove a tape and the one before it, as far as that is possible."""
    for name in (path, before(path)):
        with contextlib.suppress(OSError):
            name.unlink()


class TapeReader:
    """Follows a tape from its beginning; one that is begun anew is read on from there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._rest = b""

    def read(self) -> list[Call]:
        """The callbacks that have been added since. A line that is none of ours is passed over."""
        found: list[Call] = []
        if self._file is None and not self._open():
            return found
        while True:
            found += self._lines()
            if not self._moved_on():
                return found
            found += self._lines()  # what came before its name was taken
            self.close()
            if not self._open():
                return found

    @property
    def there(self) -> bool:
        """Whether there is a tape of that name now."""
        return self._path.exists()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
        self._file, self._rest = None, b""

    def _open(self) -> bool:
        try:
            self._file = self._path.open("rb")
        except OSError:
            return False
        return True

    def _lines(self) -> list[Call]:
        assert self._file is not None  # noqa: S101  (its caller has seen to it; for the type checker)
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        found = []
        for line in lines:
            with contextlib.suppress(msgspec.ValidationError, msgspec.DecodeError):
                found.append(_decoder.decode(line))
        return found

    def _moved_on(self) -> bool:
        """Whether another file has the name now."""
        assert self._file is not None  # noqa: S101  (as above)
        try:
            return not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return False


def same_order(one: Decision, other: Decision) -> bool:
    """Whether both want the same of the broker, prices aside."""
    return (
        (one.kind, one.symbol, one.side, one.ticket) == (other.kind, other.symbol, other.side, other.ticket)
    ) and same_number(one.volume, other.volume)


def same_number(one: float | None, other: float | None) -> bool:
    """Whether two prices or volumes are the same, but for what a computer makes of them."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= 1e-9 * max(1.0, abs(one), abs(other))
