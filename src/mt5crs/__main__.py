"""`mt5crs`: checks and operations of a trading fleet. Every subcommand is imported only when it is used."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Final

import click

from mt5crs.foreign_text import safe

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "accept": ("mt5crs.operate.accept", "Take the broker's state as the reconciler's record (after a halt)."),
    "audit": ("mt5crs.checks.audit", "Audit this installation: imports, structure, function, unit tests."),
    "audit-log": ("deploy.commands.audit_log", "Show and verify who changed what in a fleet."),
    "backup": ("deploy.commands.backup", "Back the fleet up, and prove that it can be restored."),
    "cancel": ("mt5crs.operate.emergencies", "Halt, then cancel every working order."),
    "config": ("deploy.commands.config", "Explain settings, what a change would restart; history, rollback."),
    "decommission": ("deploy.commands.decommission", "Take an Inf host out of the fleet for good."),
    "deployments": ("mt5crs.operate.deployments", "Show who deployed what to the fleet, and what differs."),
    "fleet": ("deploy.commands.fleet", "Show every host: what runs, drift, trading, positions, alerts."),
    "flatten": ("mt5crs.operate.flatten", "Cancel and close everything of a halted magic number."),
    "halt": ("mt5crs.operate.acting", "Stop all order flow at the gateway (kill switch)."),
    "health": ("mt5crs.probes.health", "Ask a service on this host how it is (exit 0, 1 or 75)."),
    "incident": ("deploy.commands.incident", "Open, watch, report and close incidents; a month's levels."),
    "keys": ("mt5crs.operate.keys", "Make CURVE keys, or show the public half of one."),
    "latency": ("mt5crs.checks.latency", "Measure the ZeroMQ round trip to a gateway."),
    "leases": ("mt5crs.operate.acting", "Show who may trade which magic number."),
    "link": ("mt5crs.checks.link", "Audit the link to the gateway in nine layers."),
    "migrate": ("deploy.commands.migrate", "Give a host another address, while strategies run."),
    "orders": ("mt5crs.operate.acting", "Show working orders, and orders whose fate is not known."),
    "phase": ("mt5crs.operate.phase", "Show, check and change the production phase of a magic number."),
    "phoenix": ("mt5crs.local_fleet.phoenix", "Kill services with open positions and check what comes back."),
    "policy": ("deploy.commands.policy", "Judge a fleet's configuration by the rules that it has to keep."),
    "positions": ("mt5crs.operate.acting", "Show positions and working orders at the broker."),
    "preflight": ("deploy.commands.preflight", "Go or no-go: may this fleet trade?"),
    "recover": ("deploy.commands.recover", "After a crash: start again what failed, say what is left."),
    "replace": ("deploy.commands.replace", "Have another machine take a gateway's place."),
    "report": ("deploy.commands.daily", "Report a day of the fleet: money, orders, latency, alerts."),
    "resolve": ("mt5crs.operate.acting", "Declare an unresolved order not executed."),
    "resume": ("mt5crs.operate.acting", "Lift a halt, on purpose and with a reason."),
    "review": ("mt5crs.review.command", "Review what changed before it is released."),
    "secrets": ("deploy.commands.secrets", "Show who holds which secret, and what is wrong with one."),
    "shadow": ("deploy.commands.shadow", "Compare, promote or drop a new strategy beside the old one."),
    "standby": ("mt5crs.probes.standby", "Compare a candidate that stands by with what runs (blue/green)."),
    "strategy": ("mt5crs.develop.strategy", "Write a strategy of your own: new, check, run, pack."),
    "start": ("deploy.commands.start", "Let a magic number trade, after go/no-go, backup and a countdown."),
    "status": ("mt5crs.operate.acting", "Show the gateway's own state."),
    "stop": ("deploy.commands.stop", "Stop a magic number, and report what it did."),
    "terminal": ("mt5crs.checks.terminal", "Name what keeps the MetaTrader 5 terminal from starting."),
    "webhook": ("deploy.commands.webhook", "Show what the signed webhook did not accept; try it again."),
    "withdraw": ("mt5crs.operate.emergencies", "Stop a magic number and take its trading rights."),
}
"""Name: module (which has a click command of the same name, `-` as `_`), one line of help."""

OF_A_FLEET: Final = frozenset(
    (
        "accept",
        "audit-log",
        "backup",
        "cancel",
        "config",
        "decommission",
        "deployments",
        "flatten",
        "fleet",
        "halt",
        "incident",
        "leases",
        "migrate",
        "orders",
        "phase",
        "policy",
        "positions",
        "preflight",
        "recover",
        "replace",
        "report",
        "resolve",
        "resume",
        "review",
        "secrets",
        "shadow",
        "start",
        "status",
        "stop",
        "webhook",
        "withdraw",
    )
)
"""Commands that `mt5crs --inventory` has a meaning for."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and loads only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        if module.startswith("deploy."):
            from mt5crs.operate.chosen import on_the_controller

            on_the_controller()
        loaded = getattr(importlib.import_module(module), cmd_name.replace("-", "_"))
        assert isinstance(loaded, click.Command)  # noqa: S101  (a slip in the table above)
        return loaded

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, which knows what is near among the commands that it has loaded: there are none."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Help without importing anything."""
        with formatter.section("Commands"):
            marked = {name: f"{name} *" if name in OF_A_FLEET else name for name in sorted(COMMANDS)}
            formatter.write_dl([(shown, COMMANDS[name][1]) for name, shown in marked.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="mt5crs")
@click.option(
    "--inventory",
    type=click.Path(path_type=Path, dir_okay=True),
    help="On the controller: all gateways of this fleet, with the operator's key from its vault.",
)
@click.option("--operator", metavar="NAME", help="Whose key; by default the first of fleet_operators.")
@click.pass_context
def main(context: click.Context, inventory: Path | None, operator: str | None) -> None:
    """Check and operate an MT5-CRS trading fleet.

    `mt5crs --inventory inventory/production.yml halt --reason …` stops all order flow of a fleet, from its
    controller. Commands marked * take --inventory.

    Exit status: 0 all well, 1 something failed, 2 wrong usage, 78 settings missing or wrong.
    """
    sys.stdout, sys.stderr = safe(sys.stdout), safe(sys.stderr)
    if inventory is None:
        if operator is not None:
            raise click.UsageError("--operator goes with --inventory")
        return
    if context.invoked_subcommand not in OF_A_FLEET:
        able = ", ".join(sorted(OF_A_FLEET))
        raise click.UsageError(f"{context.invoked_subcommand} is for one host; --inventory goes with {able}")
    from mt5crs.operate.chosen import Chosen

    context.obj = Chosen(inventory, operator)


if __name__ == "__main__":
    main()
