"""A request that is refused, with cause and remedy; becomes an ERROR reply."""

from mt5crs.protocol.fields import VERSION, ErrorCode
from mt5crs.protocol.replies import Error

MAX_TEXT = 1024


class Refusal(Exception):  # noqa: N818  (an answer, not a malfunction)
    """Why a request is not carried out. `final`: the client order id is spent, this is its last answer."""

    def __init__(
        self,
        code: ErrorCode,
        field: str,
        message: str,
        remedy: str,
        *,
        retry_ms: int | None = None,
        final: bool = False,
    ) -> None:
        super().__init__(f"{code} {field}: {message}")
        self.code: ErrorCode = code
        self.field = field
        self.message = message
        self.remedy = remedy
        self.retry_ms = retry_ms
        self.final = final

    def reply(self, request_id: str, *, final: bool | None = None) -> Error:
        """The ERROR reply; `final` overrides when the refusal was recorded in the journal."""
        return Error(
            v=VERSION,
            id=request_id,
            code=self.code,
            field=self.field[:256],
            message=self.message[:MAX_TEXT],
            remedy=self.remedy[:MAX_TEXT],
            retry_ms=self.retry_ms,
            final=self.final if final is None else final,
        )
