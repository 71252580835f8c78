"""The profiles of production phases: one file each under `profiles/`, shipped and signed with the code."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib import resources
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from mt5crs.protocol.plain_json import PlainJsonError, read_object

Money = Annotated[float, Meta(gt=0, le=1e9)]
Percent = Annotated[float, Meta(ge=0, le=100)]
FactName = Literal[
    "days_in_phase",
    "days_without_crash",
    "days_without_critical",
    "uptime_percent",
    "orders",
    "dry_runs",
    "fills",
    "reject_percent",
    "worst_day",
    "latency_p95_ms",
]
"""What a gateway records of a phase (docs/phases.md says how each is counted)."""
Trigger = Literal["daily_loss", "consecutive_failures", "terminal_lost", "no_fills"]
Action = Literal["demote", "halt"]


class ProfileError(ValueError):
    """A profile cannot be used; the text names the file and everything that is wrong in it."""


class PhaseLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a phase allows, beside the limits of the magic number. Money is in the profile's currency.

    `trade_size` and `position_limit` are margin: the account's own money that an order, and everything open
    together, binds. `min_expected_profit_percent` is of the order's margin. null: not limited.
    """

    trade_size: Money
    position_limit: Money
    daily_loss: Money | None
    min_expected_profit_percent: Percent | None
    max_slippage_points: Annotated[int, Meta(ge=0, le=1_000_000)]
    max_consecutive_failures: Annotated[int, Meta(ge=1, le=1000)]
    max_orders_per_minute: Annotated[int, Meta(ge=1, le=10_000)]
    max_instruments: Annotated[int, Meta(ge=1, le=1000)]
    price_collar_percent: Annotated[float, Meta(gt=0, le=100)]
    symbols: list[str] | None


class Criterion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fact with its threshold; a fact that is not known does not hold."""

    fact: FactName
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, value: float | None) -> bool:
        """Whether a value is known and within both thresholds."""
        if value is None:
            return False
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)

    def threshold(self) -> str:
        """The threshold as people read it."""
        signs = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {figure:g}" for sign, figure in signs if figure is not None)


class Rollback(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the gateway does by itself when something happens.

    `after_s` belongs to what must last, terminal_lost and no_fills; `after_orders` to no_fills.
    """

    on: Trigger
    do: Action
    after_s: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    after_orders: Annotated[int, Meta(ge=1, le=10_000)] | None = None


class Profile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One phase."""

    name: str
    phase: Annotated[int, Meta(ge=0, le=100)]
    title: str
    dry_run: bool
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]
    limits: PhaseLimits
    record_days: Annotated[int, Meta(ge=1, le=366)]
    """Days that a record of this phase may be valid at most."""
    goals: Annotated[list[str], Meta(min_length=1)]
    success: Annotated[list[Criterion], Meta(min_length=1)]
    rollback: list[Rollback]
    exit: Annotated[list[Criterion], Meta(min_length=1)]
    checklist: Annotated[list[str], Meta(min_length=1)]

    def rollback_on(self, trigger: Trigger) -> Rollback | None:
        """What is to be done on a trigger, if anything."""
        return next((each for each in self.rollback if each.on == trigger), None)


def parse(text: bytes, name: str) -> Profile:
    """Read a profile. Raises ProfileError with every problem at once."""
    try:
        found = read_object(text)
    except PlainJsonError as error:
        raise ProfileError(f"profile {name}: {error}") from None
    problems = list(_mistyped(Profile, found, ""))
    if problems:
        raise ProfileError(f"profile {name}: " + "; ".join(problems))
    profile = msgspec.convert(found, Profile)
    problems = list(_problems(profile, name))
    if problems:
        raise ProfileError(f"profile {name}: " + "; ".join(problems))
    return profile


def _mistyped(of: type[Struct], found: dict[str, Any], prefix: str) -> Iterator[str]:
    """Every key that is unknown, missing or of a wrong type: msgspec itself stops at the first."""
    known = {field.encode_name: field for field in msgspec.structs.fields(of)}
    yield from (f"{prefix}{key} is unknown" for key in found if key not in known)
    for key, field in known.items():
        if key not in found:
            if field.required:
                yield f"{prefix}{key} is missing"
        elif field.type is PhaseLimits and isinstance(found[key], dict):
            yield from _mistyped(PhaseLimits, found[key], f"{key}.")
        else:
            try:
                msgspec.convert(found[key], field.type)
            except msgspec.ValidationError as error:
                yield f"{prefix}{key}: {error}"


def _problems(profile: Profile, name: str) -> Iterator[str]:
    limits = profile.limits
    if profile.name != name:
        yield f"name is {profile.name!r}, but the file is {name}"
    if limits.position_limit < limits.trade_size:
        yield f"position_limit {limits.position_limit:g} is below trade_size {limits.trade_size:g}"
    if not profile.dry_run and limits.daily_loss is None:
        yield "daily_loss is null; a phase that sends orders needs one"
    for which in ("success", "exit"):
        for each in getattr(profile, which):
            if each.at_least is None and each.at_most is None:
                yield f"{which}: {each.fact} has neither at_least nor at_most"
    for each in profile.rollback:
        if (each.on in ("terminal_lost", "no_fills")) != (each.after_s is not None):
            yield f"rollback: after_s belongs to terminal_lost and no_fills alone (here: {each.on})"
        if (each.on == "no_fills") != (each.after_orders is not None):
            yield f"rollback: after_orders belongs to no_fills alone (here: {each.on})"
        if each.on == "daily_loss" and limits.daily_loss is None:
            yield "rollback: daily_loss is a trigger, but limits.daily_loss is null"
    triggers = [each.on for each in profile.rollback]
    yield from (
        f"rollback: {on} comes twice" for on in sorted({t for t in triggers if triggers.count(t) > 1})
    )


@functools.cache
def profiles() -> dict[str, Profile]:
    """The profiles of this release by name, lowest phase first. Raises ProfileError."""
    files = resources.files(__package__).joinpath("profiles")
    found = [
        parse(each.read_bytes(), each.name.removesuffix(".json"))
        for each in files.iterdir()
        if each.name.endswith(".json")
    ]
    found.sort(key=lambda each: each.phase)
    numbers = [each.phase for each in found]
    if numbers != list(range(len(found))) or not found:
        raise ProfileError(f"the profiles have the phases {numbers}; number them 0, 1, 2, … each once")
    return {each.name: each for each in found}


def lowest() -> Profile:
    """The phase of who has no valid record."""
    return next(iter(profiles().values()))


def named(name: str) -> Profile:
    """A profile by its name. Raises ProfileError that lists those there are."""
    found = profiles().get(name)
    if found is None:
        raise ProfileError(f"there is no profile {name!r}; there are {', '.join(profiles())}")
    return found
