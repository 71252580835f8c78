"""What is done on the host that leaves: stop, fetch, remove. Each can be repeated."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from deploy.remote import ssh

TRADING: Final = ("strategy", "reconciler")
"""In the order in which they stop: the one that trades first."""
SERVICES: Final = (*TRADING, "monitoring")
"""What of the fleet is on the host besides its baseline, and leaves with it."""
_WATCHER: Final = "mt5crs-hub-watch.service"
"""The Hub greets those of its inventory alone: one that left would tell everybody that the Hub is dead."""
_UNITS: Final = " ".join(
    (
        *(f"mt5crs-{service}{beside}.service" for service in TRADING for beside in ("", "-standby")),
        "mt5crs-strategy-shadow.service",
        _WATCHER,
    )
)
_EXPORTER: Final = "prometheus-node-exporter.service"
# Not disabled: their units are removed at the end, and until then `start_again` takes this back.
_STOP: Final = f"""
systemctl stop {_UNITS} 2>/dev/null
for unit in {_UNITS}; do
  if [ "$(systemctl is-active "$unit")" = active ]; then echo "$unit is still active" >&2; exit 1; fi
done
"""
_START: Final = f"""
set -e
systemctl start mt5crs-reconciler.service mt5crs-strategy.service
if [ -e /etc/systemd/system/{_WATCHER} ]; then systemctl start {_WATCHER}; fi
"""
# Settings hold the keys, so they stay out. What services wrote, what the release tool did, what was logged.
_FETCH: Final = """
set -e
umask 077
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
journalctl --no-pager -o short-iso-precise -u 'mt5crs-*' >"$scratch/journal.log" 2>&1 || true
cd /
set --
for path in var/lib/mt5crs opt/mt5crs etc/mt5crs; do
  if [ -e "$path" ]; then set -- "$@" "$path"; fi
done
[ "$#" -gt 0 ] || { echo "there is nothing of a fleet on this host" >&2; exit 1; }
tar --exclude='.env' --exclude='*.env' --exclude=opt/mt5crs/runtimes --exclude=opt/mt5crs/bundles \\
  --exclude=opt/mt5crs/store \\
  --warning=no-file-changed -czf - "$@" -C "$scratch" journal.log | base64 -w 0
"""
_REMOVE: Final = f"""
set -e
for unit in {_UNITS} {_EXPORTER}; do
  systemctl disable --now "$unit" 2>/dev/null || true
done
for service in {" ".join(SERVICES)}; do
  rm -f /etc/systemd/system/mt5crs-$service.service /etc/systemd/system/mt5crs-$service-standby.service
  rm -rf /etc/systemd/system/mt5crs-$service.service.* /opt/mt5crs/$service /var/lib/mt5crs/$service
done
rm -f /etc/systemd/system/{_WATCHER} /etc/systemd/system/{_EXPORTER}.d/50-mt5crs.conf
rmdir /etc/systemd/system/{_EXPORTER}.d 2>/dev/null || true
rm -rf /var/lib/mt5crs-hub-watch /var/lib/private/mt5crs-hub-watch
rm -rf /opt/mt5crs/runtimes /opt/mt5crs/bundles /opt/mt5crs/store
systemctl daemon-reload
systemctl reset-failed 2>/dev/null || true
"""
REMAINS: Final = (
    "the baseline as it was (firewall, sshd, kernel, clock, text on the console), the release tool, "
    "Debian's packages (the node exporter's unit is off)"
)
"""What removing leaves on the host."""
_TIMEOUT_S: Final = 120
_GZIP: Final = b"\x1f\x8b"


class HostError(RuntimeError):
    """A host did not do what it was told; the text says why."""


def stop(variables: Mapping[str, Any]) -> None:
    """Stop what trades and what watches it. HostError if one still runs."""
    _run(variables, _STOP)


def start_again(variables: Mapping[str, Any]) -> None:
    """Take `stop` back. HostError if it does not start."""
    _run(variables, _START)


def fetch(variables: Mapping[str, Any]) -> bytes:
    """A gzipped tar of state, records and log of the services; without settings, which hold keys.

    Raises HostError when it did not arrive whole.
    """
    reply = _run(variables, _FETCH)
    try:
        content = base64.b64decode(reply.output.strip(), validate=True)
    except binascii.Error:
        content = b""
    if not content.startswith(_GZIP):
        raise HostError(f"its data did not arrive whole ({ssh.last_line(reply.error) or 'no reason given'})")
    return content


def remove(variables: Mapping[str, Any]) -> None:
    """Remove settings with their keys, code, state and units of the services and of monitoring."""
    _run(variables, _REMOVE)


def _run(variables: Mapping[str, Any], script: str) -> ssh.Reply:
    reply = ssh.run(variables, ["sh", "-c", script], timeout_s=_TIMEOUT_S)
    if reply.status != 0:
        raise HostError(reply.why)
    return reply
