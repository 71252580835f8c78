"""Whether the terminal shows the account that may be traded. Pure."""

from msgspec import Struct

from mt5crs.protocol.records import Identity
from mt5crs.settings.gateway import Phase, account_problem

from .refusal import Refusal


class ExpectedAccount(Struct, frozen=True):
    """The configured account, the only one that may be traded, and only if `phase` takes its kind."""

    login: int
    server: str
    phase: Phase

    def require_account(self, identity: Identity) -> None:
        """Raise Refusal NOT_READY when the terminal shows another account than the configured one."""
        if (identity.login, identity.server) != (self.login, self.server):
            raise Refusal(
                "NOT_READY",
                "login",
                f"the terminal shows {identity.login}@{identity.server}, not {self.login}@{self.server}",
                "log the terminal in to the configured account",
                retry_ms=1000,
            )
        wrong = account_problem(self.phase, identity.trade_mode)
        if wrong:
            raise Refusal(
                "NOT_READY",
                "trade_mode",
                wrong,
                "log the terminal in to an account of the phase, or correct gateway_account_phase",
                retry_ms=1000,
            )

    def require_ready(self, identity: Identity) -> None:
        """Raise Refusal NOT_READY unless this is the right account, connected and allowed to trade."""
        self.require_account(identity)
        if identity.connected and identity.trade_allowed:
            return
        for field, good, remedy in (
            ("connected", identity.connected, "check the terminal's connection to the trade server"),
            ("trade_allowed", identity.trade_allowed, "switch auto-trading on in the terminal"),
        ):
            if not good:
                raise Refusal(
                    "NOT_READY", field, f"the terminal says {field} is false", remedy, retry_ms=1000
                )
