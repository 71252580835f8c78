"""Why a submission or a question about one is refused, where more than one module says it. Pure."""

from mt5crs.broker.interface import BrokerError
from mt5crs.protocol import requests as ask

from .journal import JournalError
from .refusal import Refusal


def not_loaded(why: str) -> Refusal:
    """While the terminal does not show all of the account (yet)."""
    return Refusal(
        "NOT_READY",
        "loading",
        why,
        "wait until the terminal has loaded; if it lasts, restart the terminal",
        retry_ms=500,
    )


def no_position(position: int) -> Refusal:
    """For a position that is not open."""
    return Refusal(
        "UNKNOWN_POSITION",
        "position",
        f"there is no open position {position}",
        "take a snapshot: it was closed meanwhile",
        final=True,
    )


def not_yours(field: str, ticket: int, owner: int, magic: int) -> Refusal:
    """For an order or position of another magic number, `owner`."""
    return Refusal(
        "FORBIDDEN",
        field,
        f"{field} {ticket} belongs to magic {owner}, not to {magic}",
        "touch only what carries your own magic number",
        final=True,
    )


def phase_changed() -> Refusal:
    """For an order that was checked under a phase that is not in force any more."""
    return Refusal(
        "BUSY",
        "phase",
        "the phase changed while the order was checked; it was not sent",
        "send it again with the same client order id, if it is still wanted",
        retry_ms=100,
    )


def expired(request: ask.Submission) -> Refusal:
    """For a submission that waited longer than it is good for."""
    return Refusal(
        "EXPIRED",
        "valid_ms",
        f"the order waited longer in the gateway than its {request.valid_ms} ms; it was not sent",
        "look at the market again and send a new order",
        final=True,
    )


def broker_failed(error: BrokerError) -> Refusal:
    """The refusal for a broker that could not be asked."""
    return Refusal(
        "BROKER",
        "",
        f"the broker could not be asked: {error}",
        "nothing was sent; try again with the same client order id",
        retry_ms=500,
    )


def journal_failed(error: JournalError) -> Refusal:
    """The refusal for what cannot be recorded: it is not sent."""
    return Refusal(
        "INTERNAL",
        "journal",
        f"the journal cannot be written: {error}",
        "nothing was sent; free disk space on the gateway, then try again with the same client order id",
        retry_ms=5000,
    )
