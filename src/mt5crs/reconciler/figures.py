"""The reconciler's metrics, and the text file that outlives a failed start for the node exporter."""

from __future__ import annotations

import math
import time
from pathlib import Path

from mt5crs.client.published import State
from mt5crs.reconciler.store import write_atomically
from mt5crs.service.metrics import Registry, sample_lines

_STATES: tuple[State, ...] = ("starting", "syncing", "ready", "unknown", "halted", "shadow")
_FAILURES = "mt5crs_reconciler_startup_sync_failures_consecutive"
_LAST = "mt5crs_reconciler_last_startup_sync_timestamp_seconds"


class Figures:
    """Names are fixed by the alert rules."""

    def __init__(self) -> None:
        self.registry = Registry()
        new = self.registry
        self.state = new.gauge("mt5crs_reconciler_state", "1 for the state the reconciler is in.", ("state",))
        self.syncs = new.counter("mt5crs_reconciler_syncs_total", "Syncs by outcome.", ("outcome",))
        self.skipped = new.counter(
            "mt5crs_reconciler_checks_skipped_total", "Checks skipped because a query failed at run time."
        )
        self.connection_errors = new.counter(
            "mt5crs_reconciler_connection_errors_total", "Attempts that got no usable answer."
        )
        self.startup_seconds = new.gauge(
            "mt5crs_reconciler_startup_sync_seconds", "Duration of the start-up sync, all attempts."
        )
        self.retry_seconds = new.gauge(
            "mt5crs_reconciler_retry_answer_seconds",
            "Time to the answer of the last sync that needed a retry.",
        )
        self.retried_at = new.gauge(
            "mt5crs_reconciler_last_retried_sync_timestamp_seconds",
            "When the last sync that needed a retry was answered; 0 when there was none.",
        )
        self.last_sync_seconds = new.gauge(
            "mt5crs_reconciler_last_sync_seconds", "Duration of the last sync."
        )
        self.recovered = new.gauge(
            "mt5crs_reconciler_positions_recovered", "Positions taken over at start-up."
        )
        self.mismatches = new.gauge(
            "mt5crs_reconciler_position_mismatches",
            "Positions that differ from the broker's at the last check.",
        )
        self.accuracy = new.gauge(
            "mt5crs_reconciler_recovery_accuracy_ratio", "Positions held exactly, of those the broker has."
        )
        self.silent = new.gauge(
            "mt5crs_reconciler_gateway_silent_seconds",
            "For how long the gateway has owed answers (0: it answered last) and has sent no events.",
            ("owed",),
        )
        self.gaps = new.counter("mt5crs_reconciler_event_gaps_total", "Times that events were missed.")
        self.messages = new.counter(
            "mt5crs_reconciler_messages_total", "Messages received on the event socket, heartbeats included."
        )
        self.events = new.counter("mt5crs_reconciler_events_total", "Events recorded, by kind.", ("kind",))
        self.external = new.gauge(
            "mt5crs_reconciler_external_positions", "Open positions of other magic numbers (never touched)."
        )
        self.unresolved = new.gauge("mt5crs_reconciler_unresolved_orders", "Orders whose fate is not known.")
        self.discrepancies = new.gauge(
            "mt5crs_reconciler_discrepancies", "Differences that no deal explains, at the last check."
        )
        self.syncs.inc("ok", by=0)
        self.syncs.inc("failed", by=0)
        self.retry_seconds.set(0)
        self.retried_at.set(0)
        self.enter("starting")

    def enter(self, state: State) -> None:
        """Set the state gauge."""
        for name in _STATES:
            self.state.set(1 if name == state else 0, name)

    def retried(self, seconds: float) -> None:
        """A sync was answered only after a retry, after so many seconds."""
        self.retry_seconds.set(seconds)
        self.retried_at.set(time.time())

    def record_startup(self, directory: Path, magic: int, *, succeeded: bool) -> int:
        """Write how a start-up sync ended, for the node exporter; returns how many failed in a row.

        How the positions compared goes with it: a process that gives up takes its own figures along.
        """
        path = text_file(directory)
        failures = 0 if succeeded else _failures_so_far(path) + 1
        left = [
            (_FAILURES, "Start-up syncs that failed in a row.", failures),
            (_LAST, "When the last start-up sync ended.", round(time.time(), 3)),
        ]
        left += [
            (gauge.name, gauge.help_text, gauge.value())
            for gauge in (self.mismatches, self.accuracy)
            if not math.isnan(gauge.value())  # nothing was compared
        ]
        # One machine may have several reconcilers, whose files one node exporter reads.
        samples = ((name, help_text, "gauge", value) for name, help_text, value in left)
        text = "\n".join(sample_lines(samples, f'{{magic="{magic}"}}'))
        write_atomically(path, f"{text}\n".encode(), 0o644)
        return failures


def text_file(directory: Path) -> Path:
    """Where the node exporter finds what the reconciler with this state directory left.

    A machine has one such directory, that of its first reconciler: others (reconciler@NAME) write there, too.
    """
    return directory.with_name(directory.name.partition("@")[0]) / "metrics" / f"{directory.name}.prom"


def make_room(directory: Path) -> None:
    """The directory of the text file, so that the node exporter finds it from the first start on."""
    room = text_file(directory).parent
    room.mkdir(parents=True, exist_ok=True)
    room.chmod(0o755)


def _failures_so_far(path: Path) -> int:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    for line in lines:
        name, _, value = line.partition(" ")
        if name.partition("{")[0] == _FAILURES and value.isdigit():
            return int(value)
    return 0
