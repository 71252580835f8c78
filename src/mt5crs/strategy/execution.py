"""The execution adapter: an order call returns an outcome or raises within its time, and acts at most once.

Client order id and content are durable in the journal before anything is sent under the lease's epoch;
the answer is durable before the caller sees it. A retry carries the same id, so the gateway gives the first
answer again. What stays unknown is asked for by id; it is never sent again under another one.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from mt5crs.client.errors import (
    GatewayError,
    GatewayUnreachableError,
    RefusedError,
)
from mt5crs.client.gateway import GatewayClient
from mt5crs.protocol import replies, requests
from mt5crs.protocol.events import trade_topic
from mt5crs.service.elapsed import elapsed_s
from mt5crs.service.logs import Log
from mt5crs.strategy.api import (
    OrderError,
    OrderNotSentError,
    OrderRefusedError,
    OrderUnknownError,
    Outcome,
    TradingSuspendedError,
)
from mt5crs.strategy.journal import IntentJournal
from mt5crs.strategy.lease import LeaseKeeper

_PAUSE_S = 0.05


class ExecutionAdapter:
    """Submits orders for one magic number. One thread at a time."""

    def __init__(
        self,
        client: GatewayClient,
        journal: IntentJournal,
        lease: LeaseKeeper,
        log: Log,
        *,
        magic: int,
        timeout_s: float,
        on_result: Callable[[str, float], None] = lambda _result, _seconds: None,
        clock: Callable[[], float] = elapsed_s,
    ) -> None:
        """`on_result(result, seconds)` hears of every call, for counters."""
        self._on_result = on_result
        self._client = client
        self._journal = journal
        self._lease = lease
        self._log = log
        self._magic = magic
        self._timeout_s = timeout_s
        self._clock = clock
        self.last_effect: tuple[str, int] = ("", 0)
        """Stream and event number that hold the effect of the last outcome."""
        self._former_streams: set[str] = set()

    def submit(self, request: type[requests.Request], **content: Any) -> Outcome:
        """Submit once. Returns the outcome or raises an OrderError that says what is certain."""
        began = self._clock()
        try:
            outcome = self._submit(request, content)
        except OrderRefusedError as error:
            self._on_result(error.code, self._clock() - began)
            raise
        except OrderError as error:
            self._on_result(type(error).__name__.removesuffix("Error"), self._clock() - began)
            raise
        self._on_result(outcome.result, self._clock() - began)
        return outcome

    def _submit(self, request: type[requests.Request], content: dict[str, Any]) -> Outcome:
        if self._journal.unsettled():
            raise TradingSuspendedError("an earlier order is not settled yet")
        if self._lease.epoch is None:
            raise TradingSuspendedError(f"the lease is not held: {self._lease.reason}")
        client_order_id = uuid.uuid4().hex
        self._journal.open_intent(client_order_id, self._magic, request.__name__, content)
        try:
            answer = self._send_until_answered(request, client_order_id, content)
        except OrderUnknownError as error:
            self._journal.settle(client_order_id, "unknown", str(error))
            raise
        except OrderNotSentError as error:
            self._journal.settle(client_order_id, "never_sent", str(error))
            raise
        except OrderError as error:
            self._journal.settle(client_order_id, "refused", str(error))
            raise
        return self._conclude(answer)

    def catch_up(self) -> list[str]:
        """Note how far the broker's state has come; what is decided on must go as far. Raises GatewayError.

        Called under a fresh epoch: no order of the epoch before can follow, but its last one may be so recent
        that the reconciler has not published it yet. Returns the orders that the broker's books do not show
        yet; then it must be called again.
        """
        snapshot = self._client.once(
            requests.SyncAll,
            replies.Snapshot,
            timeout_s=self._client.patience.timeout_s,
            magic=self._magic,
            whole_account=False,
            history_since_msc=None,
        )
        self._effect_in(snapshot.stream, snapshot.seqs.get(trade_topic(self._magic), 0))
        return snapshot.unresolved

    def contained_in(self, stream: str, seq: int) -> bool:
        """Whether a state that goes up to an event holds the effect of the last outcome.

        A stream that is not known comes from a gateway started since: it begins with the books as they are.
        """
        last_stream, last_seq = self.last_effect
        return seq >= last_seq if stream == last_stream else stream not in self._former_streams

    def _effect_in(self, stream: str, seq: int) -> None:
        last_stream, last_seq = self.last_effect
        if stream != last_stream:
            self._former_streams.add(last_stream)
            self._former_streams.discard(stream)
            last_seq = 0
        self.last_effect = (stream, max(seq, last_seq))

    def resolve_open(self) -> list[str]:
        """Ask the gateway for the fate of every open intent; returns the ids still unknown.

        May only be called right after the lease was acquired with a fresh epoch: then a message that is still
        on its way carries a stale epoch and will be refused, so "unknown to the gateway" means "never
        executed".
        """
        remaining = []
        for client_order_id in self._journal.unsettled():
            try:
                answer = self._client.once(
                    requests.OrderQuery,
                    replies.OrderResult,
                    timeout_s=self._timeout_s,
                    magic=self._magic,
                    client_order_id=client_order_id,
                )
            except RefusedError as error:
                if error.reply.code == "UNKNOWN_ORDER":
                    self._journal.settle(client_order_id, "never_sent", str(error))
                elif error.reply.final:
                    self._journal.settle(client_order_id, "refused", str(error))
                else:
                    remaining.append(client_order_id)
                    continue
                self._log.info("order.settled", client_order_id=client_order_id, result=error.reply.code)
            except GatewayError as error:
                self._log.warning("order.unsettled", client_order_id=client_order_id, error=str(error))
                remaining.append(client_order_id)
            else:
                if answer.outcome == "UNRESOLVED":
                    remaining.append(client_order_id)
                else:
                    self._conclude(answer)
                    self._log.info("order.settled", client_order_id=client_order_id, result=answer.outcome)
        return remaining

    def _send_until_answered(
        self, request: type[requests.Request], client_order_id: str, content: dict[str, Any]
    ) -> replies.OrderResult:
        deadline = self._clock() + self._timeout_s
        maybe_received = False
        problem = "no time was left"
        while (left := deadline - self._clock()) > 0:
            epoch = self._lease.epoch
            if epoch is None:
                problem = f"the lease was lost meanwhile: {self._lease.reason}"
                break
            try:
                answer = self._client.once(
                    request,
                    replies.OrderResult,
                    timeout_s=min(left, self._client.patience.timeout_s),
                    magic=self._magic,
                    client_order_id=client_order_id,
                    lease_epoch=epoch,
                    valid_ms=max(1, int(left * 1000)),
                    **content,
                )
            except RefusedError as error:
                if error.reply.final:
                    raise self._refusal(error) from error
                maybe_received = maybe_received or _may_still_happen(error)
                if not _may_pass(error):
                    if not maybe_received:
                        raise self._refusal(error) from error
                    # An earlier attempt may have been taken in; a refusal of this one says nothing about it.
                    raise OrderUnknownError(f"{client_order_id}: its fate is not known; {error}") from error
                problem = str(error)
                self._wait(min(left, (error.reply.retry_ms or 0) / 1000))
            except GatewayUnreachableError as error:
                problem = str(error)
                self._wait(min(left, _PAUSE_S))
            except GatewayError as error:
                maybe_received, problem = True, str(error)
            else:
                if answer.outcome != "UNRESOLVED":
                    return answer
                raise OrderUnknownError(
                    f"the broker's answer to {client_order_id} was lost: {answer.message}"
                )
        if maybe_received:
            raise OrderUnknownError(f"no answer about {client_order_id} in {self._timeout_s:g} s: {problem}")
        raise OrderNotSentError(f"{client_order_id} was not sent within {self._timeout_s:g} s: {problem}")

    def _refusal(self, error: RefusedError) -> OrderRefusedError:
        reply = error.reply
        if reply.code == "FENCED":
            self._lease.lost(str(error))
        return OrderRefusedError(reply.code, reply.field, f"{reply.message} {reply.remedy}".strip())

    def _conclude(self, answer: replies.OrderResult) -> Outcome:
        self._journal.settle(answer.client_order_id, "done", answer.outcome)
        if answer.stream not in self._former_streams:
            self._effect_in(answer.stream, answer.seq)
        assert answer.outcome != "UNRESOLVED"  # noqa: S101  (both callers have sorted it out; for the type checker)
        return Outcome(
            client_order_id=answer.client_order_id,
            result=answer.outcome,
            message=answer.message,
            retcode=answer.retcode,
            order=answer.order,
            position=answer.position,
            position_ticket=answer.position_ticket,
            volume=answer.volume,
            price=answer.price,
        )

    def _wait(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))


def _may_still_happen(error: RefusedError) -> bool:
    """Whether the order may be executed although this refusal came. It is about the moment only: the order
    may hang in the terminal (BUSY), or a copy of the message may come when the moment has passed.
    """
    return not error.reply.final and error.reply.code in ("BUSY", "NOT_READY", "BROKER", "INTERNAL")


def _may_pass(error: RefusedError) -> bool:
    """Whether the same order may be taken in a moment (a full queue); a blocked magic is not such a case."""
    return error.retryable and error.reply.code in ("BUSY", "NOT_READY")
