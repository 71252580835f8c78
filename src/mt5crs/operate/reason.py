"""The reason that an operator gives for an act."""

from __future__ import annotations

import click

from mt5crs.operate.trading import REASON_LENGTH


def a_reason(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A reason that a gateway will take. BadParameter."""
    least, most = REASON_LENGTH
    if value is not None and not least <= len(value.strip()) <= most:
        raise click.BadParameter(f"say why in {least} to {most} characters", param=parameter)
    return value.strip() if value is not None else None
