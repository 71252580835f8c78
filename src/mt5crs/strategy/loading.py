"""Finding the user's strategy class and making it with its options."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from pathlib import Path

from mt5crs.settings.schema import SettingsError
from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy.api import Strategy

GROUP = "mt5crs.strategies"


def load_strategy(name: str) -> type[Strategy]:
    """The class behind STRATEGY. Raises SettingsError that lists what there is."""
    if ":" in name:
        module_name, _, attribute = name.partition(":")
    else:
        found = {point.name: point for point in entry_points(group=GROUP)}
        if name not in found:
            known = ", ".join(sorted(found)) or "none"
            raise SettingsError(
                "strategy settings",
                [f"STRATEGY {name!r} is not installed (there is: {known}); install its wheel"],
            )
        module_name, attribute = found[name].module, found[name].attr
    try:
        loaded = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            "strategy settings", [f"STRATEGY {name!r} cannot be loaded: {error}; correct it or its wheel"]
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Strategy)):
        raise SettingsError(
            "strategy settings", [f"STRATEGY {name!r} is not a subclass of mt5crs.strategy.api.Strategy"]
        )
    return loaded


def make_strategy(settings: StrategySettings) -> Strategy:
    """The configured strategy with its options. Raises SettingsError that says what to correct."""
    try:
        loaded = load_strategy(settings.strategy)
        if settings.data_dir:
            # Resolved now: the pointer may move on before this process ends.
            loaded.data_dir = Path(settings.data_dir).resolve()
        return loaded(settings.strategy_options)
    except (ValueError, TypeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError("strategy settings", [f"STRATEGY_OPTIONS: {error}"]) from error
