"""What is done on a host that leaves: stop, fetch, remove. Each can be repeated."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

from deploy.baseline.host_files import KEPT
from deploy.remote import ssh

TRADING: Final = ("strategy", "reconciler")
"""In the order in which they stop: the one that trades first."""
SERVICES: Final = (*TRADING, "monitoring")
"""What of the fleet is on the host besides its baseline, and leaves with it."""
GATEWAY: Final = ("gateway",)
"""The same of a gateway's host."""
_WATCHER: Final = "mt5crs-hub-watch.service"
"""The Hub greets those of its inventory alone: one that left would tell everybody that the Hub is dead."""
_TEXTS: Final = "/etc/issue /etc/issue.net"
"""What consoles show: of a host that is in no fleet Debian's own again. A copy stays for the next time."""
_EXPORTER: Final = "prometheus-node-exporter.service"


def _suffix(variables: Mapping[str, Any]) -> str:
    """What follows the names of services and units if the host is an instance on a machine."""
    instance = variables.get("fleet_instance")
    return f"@{instance}" if instance else ""


def _units(suffix: str, trading: Sequence[str] = TRADING) -> str:
    """The units that stop: what trades, and what watches the Hub, which is the machine's."""
    beside = {"strategy": ("", "-standby", "-shadow"), "reconciler": ("", "-standby"), "gateway": ("",)}
    units = [f"mt5crs-{name}{one}{suffix}.service" for name in trading for one in beside[name]]
    return " ".join([*units, *([] if suffix else [_WATCHER])])


def stop_script(suffix: str) -> str:
    """Not disabled: the units are removed at the end, and until then `start_again` takes this back."""
    units = _units(suffix)
    return f"""
systemctl stop {units} 2>/dev/null
for unit in {units}; do
  if [ "$(systemctl is-active "$unit")" = active ]; then echo "$unit is still active" >&2; exit 1; fi
done
"""


def _start_script(suffix: str) -> str:
    watcher = f"""
if [ -e /etc/systemd/system/{_WATCHER} ]; then systemctl start {_WATCHER}; fi
"""
    return f"""
set -e
systemctl start mt5crs-reconciler{suffix}.service mt5crs-strategy{suffix}.service
{"" if suffix else watcher}"""


# Settings hold the keys, so they stay out. What services wrote, what the release tool did, what was logged.
def _fetch_script(suffix: str) -> str:
    ours = [f"{of}/mt5crs/{name}{suffix}" for of in ("var/lib", "opt") for name in TRADING]
    paths = " ".join(ours) if suffix else "var/lib/mt5crs opt/mt5crs etc/mt5crs"
    return f"""
set -e
umask 077
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
journalctl --no-pager -o short-iso-precise -u 'mt5crs-*{suffix}.service' >"$scratch/journal.log" 2>&1 || true
cd /
set --
for path in {paths}; do
  if [ -e "$path" ]; then set -- "$@" "$path"; fi
done
[ "$#" -gt 0 ] || {{ echo "there is nothing of a fleet on this host" >&2; exit 1; }}
tar --exclude='.env' --exclude='*.env' --exclude=opt/mt5crs/runtimes --exclude=opt/mt5crs/bundles \\
  --exclude=opt/mt5crs/store \\
  --warning=no-file-changed -czf - "$@" -C "$scratch" journal.log | base64 -w 0
"""


def fence_script() -> str:
    """Stop a gateway so that nothing starts it again: no boot, no person, no release tool by mistake."""
    unit = f"mt5crs-{GATEWAY[0]}.service"
    return f"""
systemctl disable --now {unit} 2>/dev/null
rm -f /etc/systemd/system/{unit}
systemctl mask {unit} || exit 1
state=$(systemctl is-active {unit})
case "$state" in inactive|failed) ;; *) echo "{unit} is still $state" >&2; exit 1 ;; esac
"""


def remove_script(suffix: str, trading: Sequence[str] = TRADING) -> str:
    """Units, code, settings and state; of an instance its own, since the machine goes on with the others."""
    services = [f"{name}{suffix}" for name in (trading if suffix else (*trading, "monitoring"))]
    machine = f"""
rm -f /etc/systemd/system/{_WATCHER} /etc/systemd/system/{_EXPORTER}.d/50-mt5crs.conf
rmdir /etc/systemd/system/{_EXPORTER}.d 2>/dev/null || true
rm -rf /var/lib/mt5crs-hub-watch /var/lib/private/mt5crs-hub-watch
rm -rf /opt/mt5crs/runtimes /opt/mt5crs/bundles /opt/mt5crs/store
for text in {_TEXTS}; do
  if [ -e "$text{KEPT}" ]; then cp -aT "$text{KEPT}" "$text"; fi
done
"""
    return f"""
set -e
for unit in {_units(suffix, trading)} {"" if suffix else _EXPORTER}; do
  systemctl disable --now "$unit" 2>/dev/null || true
done
for service in {" ".join(services)}; do
  plain=${{service%@*}}
  instance=${{service#"$plain"}}
  for beside in "" -standby -shadow; do
    rm -rf "/etc/systemd/system/mt5crs-$plain$beside$instance.service" \\
      "/etc/systemd/system/mt5crs-$plain$beside$instance.service".*
  done
  rm -rf "/opt/mt5crs/$service" "/var/lib/mt5crs/$service"
  rm -f "/var/lib/mt5crs/$plain/metrics/$service.prom"
done
{"" if suffix else machine}
systemctl daemon-reload
systemctl reset-failed 2>/dev/null || true
"""


def remains(variables: Mapping[str, Any]) -> str:
    """What removing leaves on the host."""
    if _suffix(variables):
        return "the other services of its machine and the code that they share"
    return (
        "the baseline as it was (firewall, sshd, kernel, clock), the release tool, Debian's packages (the "
        "node exporter's unit is off); what consoles show is Debian's again"
    )


_TIMEOUT_S: Final = 120
_GZIP: Final = b"\x1f\x8b"


class HostError(RuntimeError):
    """A host did not do what it was told; the text says why."""


def stop(variables: Mapping[str, Any]) -> None:
    """Stop what trades and what watches it. HostError if one still runs."""
    _run(variables, stop_script(_suffix(variables)))


def start_again(variables: Mapping[str, Any]) -> None:
    """Take `stop` back. HostError if it does not start."""
    _run(variables, _start_script(_suffix(variables)))


def fetch(variables: Mapping[str, Any]) -> bytes:
    """A gzipped tar of state, records and log of the services; without settings, which hold keys.

    Raises HostError when it did not arrive whole.
    """
    reply = _run(variables, _fetch_script(_suffix(variables)))
    try:
        content = base64.b64decode(reply.output.strip(), validate=True)
    except binascii.Error:
        content = b""
    if not content.startswith(_GZIP):
        raise HostError(f"its data did not arrive whole ({ssh.last_line(reply.error) or 'no reason given'})")
    return content


def remove(variables: Mapping[str, Any], trading: Sequence[str] = TRADING) -> None:
    """Remove settings with their keys, code, state and units of the services and of monitoring."""
    _run(variables, remove_script(_suffix(variables), trading))


def fence(variables: Mapping[str, Any]) -> None:
    """Have a gateway be stopped, and stay so. HostError if it still runs."""
    _run(variables, fence_script())


def _run(variables: Mapping[str, Any], script: str) -> ssh.Reply:
    reply = ssh.run(variables, ["sh", "-c", script], timeout_s=_TIMEOUT_S)
    if reply.status != 0:
        raise HostError(reply.why)
    return reply
