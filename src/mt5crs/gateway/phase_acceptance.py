"""Whether a signed record may be put in force. Pure."""

from __future__ import annotations

from mt5crs.phases.profile import Profile
from mt5crs.phases.record import PhaseRecord

from .refusal import Refusal

_FUTURE_MS = 5 * 60_000
"""By so much the clock of who signs may be ahead."""
_DAY_MS = 86_400_000


def not_acceptable(field: str, message: str, remedy: str) -> Refusal:
    """The refusal of what is asked for about a phase."""
    return Refusal("LIMIT", field, message, remedy)


def require_acceptable(
    record: PhaseRecord,
    profile: Profile,
    *,
    magic: int,
    account: str,
    serial: int,
    phase: int,
    now_msc: int,
) -> None:
    """Raise Refusal LIMIT unless the record fits the magic number and what is in force.

    profile: the one that the record names. serial, phase: in force now (0, and the lowest, if nothing is).
    """
    longest = profile.record_days * _DAY_MS
    for good, field, message, remedy in (
        (
            record.magic == magic,
            "magic",
            f"the record is for magic {record.magic}",
            "send it for that one",
        ),
        (
            record.account == account,
            "account",
            f"the record is for {record.account}, this gateway trades {account}",
            "have one made for this account",
        ),
        (
            record.serial > serial,
            "serial",
            f"record {record.serial} is not newer than {serial}, which is in force",
            "look at the phase again and have a new record made",
        ),
        (
            record.issued_msc <= now_msc + _FUTURE_MS,
            "issued_msc",
            "the record is of the future",
            "set the clocks",
        ),
        (now_msc < record.expires_msc, "expires_msc", "the record has run out", "have a new one made"),
        (
            record.expires_msc - record.issued_msc <= longest,
            "expires_msc",
            f"the record is for longer than the {profile.record_days} days that {profile.name} allows",
            "have one made for a shorter time",
        ),
        (
            record.override or profile.phase <= phase + 1,
            "profile",
            f"{profile.name} is more than one phase above the present one",
            "promote phase by phase, or override by name",
        ),
    ):
        if not good:
            raise not_acceptable(field, message, remedy)
