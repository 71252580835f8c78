"""`python -m mt5crs.strategy.shadow`: a new version beside the running one; what it decides goes nowhere.

It follows the tape of the running strategy, calls its own for the same callbacks, gives it the same answers,
and writes down what it decides (docs/strategy.md). There is no lease keeper, no order journal and no
execution adapter in this process, and its key is one that may only observe: the gateway has to say so first.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, TypeVar

from mt5crs.client.connecting import connection_of
from mt5crs.client.errors import GatewayError, RefusedError
from mt5crs.client.gateway import GatewayClient
from mt5crs.protocol import replies, requests
from mt5crs.protocol.fields import Side
from mt5crs.protocol.records import Order, Position, SymbolSpec, Tick
from mt5crs.service import notify, program
from mt5crs.service.endpoint import Endpoint
from mt5crs.service.logs import Log
from mt5crs.service.metrics import Registry
from mt5crs.settings.schema import SettingsError
from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy import api
from mt5crs.strategy.api import (
    OrderError,
    OrderNotSentError,
    OrderRefusedError,
    Outcome,
    TradingSuspendedError,
)
from mt5crs.strategy.confinement import confine
from mt5crs.strategy.connecting import state_feed_of
from mt5crs.strategy.loading import make_strategy
from mt5crs.strategy.recording import Recording, failed, where
from mt5crs.strategy.reference import Leverage, ReferenceCache
from mt5crs.strategy.statefeed import NOT_KNOWN, StateFeed
from mt5crs.strategy.stopped import limit_gauge
from mt5crs.strategy.tape import (
    BEGAN,
    JOINING,
    TAPE,
    Call,
    Decision,
    Failed,
    Read,
    TapeReader,
    TapeWriter,
    same_order,
)
from mt5crs.strategy.usage import Usage
from mt5crs.strategy.watch import Watch

T = TypeVar("T", Tick, SymbolSpec, Leverage)
SUPPRESSED = "suppressed: this version runs in the shadow of another one"
_POLL_S = 0.05
_ASK_EVERY_S = 1.0
_OURS = ("intents.db", "strategy.lock", "ended", TAPE)
"""What the runner itself keeps in its state directory; a name that begins like this is not the strategy's."""
_COPY_MOST_BYTES = 32 * 1024 * 1024


class ShadowTrading:
    """Implements `mt5crs.strategy.api.Trading` from the tape of a callback. Every order ends in `_decide`."""

    def __init__(self, settings: StrategySettings, client: GatewayClient, feed: StateFeed) -> None:
        self._settings = settings
        self._client = client
        self._feed = feed
        self._cache = ReferenceCache()
        self._held: dict[str, tuple[Position, ...] | tuple[Order, ...]] = {}
        self._seen: list[Read] = []
        self._unread: list[Read] = []
        self._taken: list[Decision] = []
        self.made = Recording("", JOINING, BEGAN)

    def begin(self, seen: Call, *, joining: bool = False, callback: str = "") -> None:
        """From now on the strategy is in the callback that is on this tape.

        joining: the running one has had it long ago, so its decisions are not the ones of this callback.
        """
        self._seen = self._with_contents(seen.reads)
        self._unread = list(self._seen)
        self._taken = [] if joining else list(seen.decisions)
        self.made = Recording(seen.run, JOINING if joining else seen.number, callback or seen.callback)

    @property
    def symbol(self) -> str:
        """The configured SYMBOL."""
        return self._settings.symbol

    @property
    def volume(self) -> float:
        """The configured VOLUME in lots."""
        return self._settings.volume

    def positions(self) -> tuple[Position, ...]:
        """Those that the running version was shown; if it did not ask, those that are known now."""
        found = self._answer("positions")
        if found is not None:
            return found.positions or ()
        self._require_state()
        return self._feed.state.positions or ()

    def orders(self) -> tuple[Order, ...]:
        """Working orders, on the same terms."""
        found = self._answer("orders")
        if found is not None:
            return found.orders or ()
        self._require_state()
        return self._feed.state.orders or ()

    def quote(self, symbol: str) -> Tick:
        """The quote that the running version was given; if it did not ask for this one, the current one."""
        found = self._answer("quote", symbol)
        if found is not None and found.tick is not None:
            return found.tick
        return self._read(
            lambda: (
                self._client.call(
                    requests.TickQuery, replies.TickReply, magic=self._settings.magic_number, symbol=symbol
                ).tick
            )
        )

    def spec(self, symbol: str) -> SymbolSpec:
        """Contract specification, cached."""
        return self._cache.get(
            symbol,
            SymbolSpec,
            lambda: self._read(
                lambda: (
                    self._client.call(
                        requests.SymbolQuery,
                        replies.SymbolReply,
                        magic=self._settings.magic_number,
                        symbol=symbol,
                    ).spec
                )
            ),
        )

    def leverage(self) -> int:
        """Leverage limit of the account, cached."""

        def ask() -> Leverage:
            return Leverage(
                self._client.call(
                    requests.AccountQuery, replies.AccountState, magic=self._settings.magic_number
                ).account.leverage
            )

        return self._cache.get("account", Leverage, lambda: self._read(ask)).value

    def market(
        self,
        side: Side,
        volume: float,
        *,
        symbol: str | None = None,
        sl: float | None = None,
        tp: float | None = None,
        max_slippage_points: int | None = None,
        expected_profit: float | None = None,
    ) -> Outcome:
        """Note that it would buy or sell at market."""
        return self._decide(
            self.made.decision(
                "MARKET",
                symbol or self.symbol,
                side,
                volume,
                where(),
                sl=sl,
                tp=tp,
                max_slippage_points=max_slippage_points,
                expected_profit=expected_profit,
            )
        )

    def pending(
        self,
        kind: Literal["LIMIT", "STOP"],
        side: Side,
        volume: float,
        price: float,
        *,
        symbol: str | None = None,
        sl: float | None = None,
        tp: float | None = None,
        expiration_msc: int | None = None,
        expected_profit: float | None = None,
    ) -> Outcome:
        """Note that it would place a limit or stop order."""
        return self._decide(
            self.made.decision(
                kind,
                symbol or self.symbol,
                side,
                volume,
                where(),
                price=price,
                sl=sl,
                tp=tp,
                expiration_msc=expiration_msc,
                expected_profit=expected_profit,
            )
        )

    def close(self, position: Position, volume: float | None = None) -> Outcome:
        """Note that it would close a position, or part of it."""
        return self._decide(self.made.closing(position, volume, where()))

    def cancel(self, order: Order) -> Outcome:
        """Note that it would cancel a working order."""
        return self._decide(self.made.cancelling(order, where()))

    def _decide(self, wanted: Decision) -> Outcome:
        """The one place in which every order ends. It is told what became of the same order of what runs."""
        for one in self._taken:
            if same_order(one, wanted):
                self._taken.remove(one)
                if one.failed is not None:
                    self.made.made(wanted, failed=one.failed)
                    raise error_of(one.failed)
                if one.outcome is not None:
                    self.made.made(wanted)
                    return one.outcome
                break
        self.made.made(wanted)
        return Outcome(
            client_order_id=f"shadow-{uuid.uuid4().hex[:24]}",
            result="DRY_RUN",
            message=SUPPRESSED,
            retcode=0,
            order=0,
            position=0,
            position_ticket=0,
            volume=0.0,
            price=0.0,
        )

    def _answer(self, what: str, symbol: str = "") -> Read | None:
        """What the running version was told at this place: after as many decisions, in the same order."""
        made = len(self.made.decisions)

        def fits(one: Read) -> bool:
            return one.what == what and one.symbol == symbol and one.after <= made

        found = next((one for one in self._unread if fits(one)), None)
        if found is not None:
            self._unread.remove(found)
        else:
            found = next((one for one in reversed(self._seen) if fits(one)), None)
        if found is not None and found.failed is not None:
            raise error_of(found.failed)
        if found is None:
            self.made.asked_itself += 1
        return found

    def _with_contents(self, reads: Iterable[Read]) -> list[Read]:
        """Positions and orders that were the same as before, written out."""
        found = []
        for one in reads:
            content = one.positions if one.what == "positions" else one.orders
            if one.as_before:
                known = self._held.get(one.what)
                if known is None:
                    continue  # on the tape before the one that is read
                one = Read(one.what, one.after, **{one.what: known})  # type: ignore[arg-type]
            elif content is not None:
                self._held[one.what] = content
            found.append(one)
        return found

    def _require_state(self) -> None:
        reason = self._feed.unfit()
        if reason is not None:
            raise TradingSuspendedError(reason)

    def _read(self, ask: Callable[[], T]) -> T:
        try:
            with self.made.waiting():
                return ask()
        except RefusedError as error:
            answer = error.reply
            raise OrderRefusedError(answer.code, answer.field, f"{answer.message} {answer.remedy}") from error
        except GatewayError as error:
            raise OrderNotSentError(f"the gateway gave no answer: {error}") from error


class Shadow:
    """Goes through the running version's callbacks until told to stop."""

    def __init__(self, settings: StrategySettings, log: Log) -> None:
        """STATE_DIR is that of the running version, which is read only. Raises SettingsError or OSError."""
        self._settings = settings
        self._log = log
        registry = Registry()
        confine(settings, log, registry)
        limit_gauge(registry)
        own = Path(settings.shadow_dir)
        self._writer = TapeWriter(own / TAPE)
        self._reader = TapeReader(Path(settings.state_dir) / TAPE)
        peer, patience = connection_of(settings)
        self._client = GatewayClient(peer, patience)
        require_observer(self._client, settings)
        os.chdir(copy_of_state(Path(settings.state_dir), own / "state"))
        self._watch = Watch(log, Usage(settings.memory_percent, settings.threads), settings.callback_limit_s)
        self._watch.begin()
        with self._watch.calling("the constructor", limited=False):
            self._strategy = make_strategy(settings)
        self._feed = state_feed_of(settings)
        self._trading = ShadowTrading(settings, self._client, self._feed)
        self._replayed = 0
        self._started = False
        self._stopping = False
        self.endpoint = Endpoint(settings.metrics_address, settings.metrics_port, registry, self.health)

    def stop(self) -> None:
        """Make `run` return soon (signal-safe)."""
        self._stopping = True

    def close(self) -> None:
        """Let go of everything."""
        self._client.close()
        self._feed.close()
        self._reader.close()
        self._writer.close()
        self.endpoint.close()

    def run(self) -> None:
        """Follow the tape. Raises what the strategy raises, OrderErrors excepted."""
        notify.ready("in the shadow of what runs")
        while not self._stopping:
            self._feed.update(_POLL_S)
            for call in self._reader.read():
                if call.callback != BEGAN and not self._stopping:
                    self._replay(call)
        if self._started:
            with self._watch.calling("on_stop"):
                self._strategy.on_stop()

    def health(self) -> dict[str, object]:
        """What `/health` says."""
        return {
            "healthy": True,
            "state": "shadow",
            "reason": "",
            "strategy": self._settings.strategy,
            "magic": self._settings.magic_number,
            "login": self._settings.expected_account_login,
            "epoch": None,
            "replayed": self._replayed,
            **NOT_KNOWN,
        }

    def _replay(self, call: Call) -> None:
        begins = call.callback == "on_start"
        if not self._started and not begins:
            self._trading.begin(call, joining=True, callback="on_start")
            self._call(self._strategy.on_start)
        self._trading.begin(call)
        known = {
            "on_start": self._strategy.on_resume if self._started else self._strategy.on_start,
            "on_resume": self._strategy.on_resume,
            "on_timer": self._strategy.on_timer,
        }
        self._started = True
        wanted = known.get(call.callback)
        if wanted is not None:
            self._call(wanted)
            self._replayed += 1

    def _call(self, callback: Callable[[api.Trading], None]) -> None:
        made = self._trading.made
        try:
            with self._watch.calling(callback.__name__):
                callback(self._trading)
        except OrderError as error:
            made.failed = failed(error)
            self._log.warning("strategy.order_error", error=str(error))
        self._writer.write(made.call())


def error_of(found: Failed) -> OrderError:
    """The error that is on the tape."""
    if found.error == OrderRefusedError.__name__:
        return OrderRefusedError(found.code, found.field, found.message)
    known = {kind.__name__: kind for kind in OrderError.__subclasses__()}
    return known.get(found.error, OrderError)(found.message)


def require_observer(client: GatewayClient, settings: StrategySettings) -> None:
    """Have the gateway say that this key may not trade: it refuses to check an order, which sends none.

    Asked until the gateway answers. Raises SettingsError when the key may.
    """
    deadline = time.monotonic() + settings.order_timeout_s
    while True:
        try:
            client.once(
                requests.OrderCheck,
                replies.CheckResult,
                timeout_s=settings.sync_timeout_s,
                magic=settings.magic_number,
                symbol=settings.symbol,
                side="BUY",
                type="MARKET",
                volume=settings.volume,
                price=None,
                sl=None,
                tp=None,
                max_slippage_points=None,
                filling="RETURN",
                expiration_msc=None,
                expected_profit=None,
            )
        except RefusedError as error:
            if error.reply.code == "FORBIDDEN" and error.reply.field == "kind":
                return
            problem = f"the gateway does not say that the key {settings.client_name} may not trade: {error}"
        except GatewayError as error:
            problem = f"the gateway does not answer {settings.client_name}: {error}"
            if time.monotonic() < deadline:
                time.sleep(min(_ASK_EVERY_S, max(0.0, deadline - time.monotonic())))
                continue
        else:
            problem = f"the key {settings.client_name} may trade, and a shadow must not have such a key"
        remedy = "give the shadow the reconciler's key, which only observes"
        raise SettingsError("shadow settings", [f"{problem}; {remedy}"])


def copy_of_state(running: Path, own: Path) -> Path:
    """Copy what the strategy itself keeps in its state directory; returns where the copy is.

    Raises SettingsError when that is too much, or cannot be read.
    """
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    left = _COPY_MOST_BYTES
    try:
        for path in sorted(running.rglob("*")):
            name = path.relative_to(running)
            if name.parts[0].startswith(_OURS) or path.is_symlink():
                continue
            if path.is_dir():
                (own / name).mkdir(exist_ok=True)
            elif path.is_file():
                left -= path.stat().st_size
                if left < 0:
                    most = _COPY_MOST_BYTES // 2**20
                    problem = f"the strategy keeps more than {most} MiB in {running}: too much to copy"
                    remedy = "deploy with another strategy (rolling, say), or have it keep less"
                    raise SettingsError("shadow settings", [f"{problem}; {remedy}"])
                shutil.copyfile(path, own / name)
    except OSError as error:
        raise SettingsError(
            "shadow settings", [f"{running} cannot be copied for the shadow: {error}; see its rights"]
        ) from error
    return own


def main() -> int:
    """Run until told to stop."""
    return program.main("strategy-shadow", StrategySettings, Shadow)


if __name__ == "__main__":
    sys.exit(main())
