"""How a request can fail, told apart by what the caller may conclude from it."""

from __future__ import annotations

from mt5crs.protocol.replies import Error


class GatewayError(Exception):
    """A request got no usable answer. The text names cause and remedy."""


class GatewayUnreachableError(GatewayError):
    """No connection within the time: the request was never sent, so nothing can have happened."""


class KeyRefusedError(GatewayUnreachableError):
    """The gateway ended the handshake: our key is not allowed, or its key is not the one we expect."""


class GatewaySilentError(GatewayError):
    """Sent, but no answer came in time: the request may or may not have been carried out."""


class ConnectionLostError(GatewaySilentError):
    """The connection ended before the answer: nothing more will come, so asking again at once is right."""


class MalformedReplyError(GatewayError):
    """An answer came that is not a message of this protocol, or not one of the kind asked for."""


class RefusedError(GatewayError):
    """The gateway answered with a typed ERROR: it changed nothing.

    What becomes of a submission stays open after BUSY (it may hang in the terminal) and INTERNAL (it may have
    been sent); its id can be asked for.
    """

    def __init__(self, reply: Error) -> None:
        where = f" ({reply.field})" if reply.field else ""
        super().__init__(f"gateway refused: {reply.code}{where}: {reply.message}. {reply.remedy}".rstrip())
        self.reply = reply

    @property
    def retryable(self) -> bool:
        """Whether the gateway says that the same request may succeed later."""
        return self.reply.retry_ms is not None and not self.reply.final
