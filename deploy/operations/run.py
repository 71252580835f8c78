"""A pyinfra run from the first line to the last: what is refused, what is shown, how it exits.

`deploy.inventory.hosts_of` calls `prepare` while pyinfra reads the inventory, before any connection is made;
deploy.py calls `begin`.
"""
# mypy: disable-error-code="misc"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

import logging
import shlex
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from pyinfra import config, logger, state
from pyinfra import host as current_host
from pyinfra.api.exceptions import DeployError, PyinfraError
from pyinfra.api.state import BaseStateCallback

from deploy.controller.stopping import StopRequests
from deploy.fleet import settings
from deploy.fleet.connection import connection_of
from deploy.fleet.inventory import WINDOWS, Fleet
from deploy.operations import command_line, locking, operating, stepping, windows
from deploy.operations.context import fleet, not_reached
from deploy.policy import enforcing as policy
from deploy.reporting import report
from deploy.rollout.batches import STRATEGIES
from deploy.rollout.record import Failure, Phase, Rollout
from mt5crs.settings.schema import SettingsError

_rollout: Rollout | None = None
_exit_status = 0
_requests = StopRequests()
_context: click.Context | None = None  # pyinfra runs deploy files in greenlets, which do not see it
DATA = {
    "deploy.py": ("strategy", "plan", "why", "lock", "alerts"),
    "rollback.py": ("part", "to", "deployment", "access", "why", "lock"),
}
"""What `--data` may name, by file."""
_CHOICES = {"strategy": STRATEGIES, "alerts": ("fail", "report")}
"""What may be said of it; of anything else, any text."""
# Steps whose operations make one phase of the narration; the name of an operation begins with one of these.
_PHASES = (
    "Baseline",
    "Back up",
    "Upload",
    "Stage",
    "Plan",
    "Activate",
    "Ask every host",
    "Move back",
    "Judge",
    "Confirm",
    "Put back",
    "Monitoring",
)

_OF_THE_HOST = {"Baseline": "baseline", "Monitoring": "packages"}


def prepare(of: Fleet) -> None:
    """Refuse what cannot go well, before a connection is made; PyinfraError with every reason.

    Any host that fails ends the run, and Ctrl-C ends it with an exit status that is not 0.
    """
    global _context
    _context = click.get_current_context(silent=True)
    config.FAIL_PERCENT = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    options = _options()
    files = [_name(path) for path in options.get("operations", ())]
    if not command_line.is_ours(options):
        return
    command_line.refuse_wrong_values(options)
    if command_line.OPERATE in files:
        operating.operate(of.inventory, options)
    command_line.refuse_unanswerable(options)
    _refuse_options(options)
    for file in files:
        if file in DATA:
            refuse_data(file, [str(given) for given in options.get("data") or ()])
    refuse_empty_target(of, list(options.get("limit") or ()), list(options.get("exclude") or ()))
    try:
        settings.require(of)
        # A way back is never refused by policy.
        for line in policy.require(of) if "deploy.py" in files else ():
            print(line, flush=True)
    except SettingsError as error:
        raise PyinfraError(str(error)) from None
    if _context is not None:
        _context.call_on_close(lambda: _tell_who_was_not_reached(of, options))


def _tell_who_was_not_reached(of: Fleet, options: dict[str, Any]) -> None:
    """pyinfra ends before a deploy file begins when a host cannot be reached, and says a percentage."""
    if _rollout is not None or not not_reached:
        return
    action = "rollback" if "rollback.py" in map(_name, options.get("operations", ())) else "deploy"
    rollout = Rollout("pyinfra", of.environment, action=action, dry=bool(options.get("dry")))
    rollout.inventory = str(options.get("inventory") or "")
    for failure in _unreached(of):
        rollout.fail(failure)
    report.finish(rollout)


def _unreached(of: Fleet) -> list[Failure]:
    """The hosts that did not let us in, each with ssh's reason."""
    found = []
    for host, why in not_reached.items():
        words = shlex.join(connection_of(of.hosts[host]).words)
        found.append(Failure(host, "connect", why, f"try it by hand: ssh {words}"))
    return found


def _name(path: object) -> str:
    return Path(str(path)).name


def _refuse_options(options: dict[str, Any]) -> None:
    for name in ("no_wait", "serial"):
        if options.get(name):
            raise PyinfraError(
                f"--{name.replace('_', '-')} breaks the order of a deployment (gateway before Inf, all "
                "healthy before any is confirmed); run without it"
            )


def refuse_data(file: str, given: list[str]) -> None:
    """PyinfraError when a `--data name=value` has a name the file does not know, or no value of it."""
    for text in given:
        name, _, value = text.partition("=")
        if name not in DATA[file]:
            raise PyinfraError(
                f"--data {text}: {file} knows no {name!r}; it takes {', '.join(DATA[file])}. "
                "Nothing was changed"
            )
        if name in _CHOICES and value not in _CHOICES[name]:
            raise PyinfraError(
                f"--data {text}: there is no such {name}; choose one of {', '.join(_CHOICES[name])}. "
                "Nothing was changed"
            )


def as_typed(given: Iterable[str]) -> dict[str, str]:
    """What `--data` says, as text: pyinfra takes an id such as 01234567 or 1e456789 for a number."""
    return {name: value for name, _, value in (str(text).partition("=") for text in given)}


def refuse_empty_target(of: Fleet, limit: list[str], exclude: list[str]) -> None:
    """PyinfraError when a pattern of --limit or --exclude matches no host, or none is left."""
    hosts = list(of.hosts)
    for option, patterns in (("--limit", limit), ("--exclude", exclude)):
        for pattern in patterns:
            if not any(windows.chosen_by([pattern], host, of) for host in hosts):
                groups = [name for name, members in of.groups.items() if members and name != "all"]
                raise PyinfraError(
                    f"{option} {pattern} matches no host of {of.inventory.name}; it has {', '.join(hosts)} "
                    f"and the groups {', '.join(groups)}"
                )
    chosen = [
        host
        for host in hosts
        if (not limit or windows.chosen_by(limit, host, of)) and not windows.chosen_by(exclude, host, of)
    ]
    if not chosen:
        raise PyinfraError(
            f"no host is left to deploy to; {of.inventory.name} has {', '.join(hosts) or 'none'}"
        )
    if not set(chosen) - set(of.in_group(WINDOWS)):
        raise PyinfraError(
            "only Windows gateways are left, and pyinfra needs a Linux host to run on; use "
            f"`ansible-playbook -i {of.inventory} site.yml --tags baseline,gateway --limit "
            f"{','.join(chosen)}`, or rollback.yml --tags gateway. Nothing was changed"
        )


def begin(action: str) -> Rollout:
    """The record of this run, made at the first call; later calls (one per host) get the same."""
    global _rollout
    if _rollout is not None:
        return _rollout
    options = _options()
    dry = bool(options.get("dry"))
    _rollout = Rollout("pyinfra", fleet().environment, action=action, dry=dry)
    state.inventory.override_data.update(as_typed(options.get("data") or ()))
    _rollout.why = str(current_host.data.get("why") or "")
    _rollout.inventory = str(options.get("inventory") or "")
    state.add_callback_handler(_Narration(_rollout))
    if dry:
        state.check_for_changes = True  # with `-y` pyinfra would not look
    if _context is not None:
        _context.call_on_close(_end)
    if not_reached:
        # pyinfra asks whether to go on without them; a part of the fleet is chosen with --limit.
        raise refusal(_rollout, *_unreached(fleet()))
    return _rollout


def refusal(rollout: Rollout, *failures: Failure) -> DeployError:
    """Note in the run's record why it was refused; returns what is to be raised."""
    for failure in failures:
        rollout.fail(failure)
    return DeployError("refused; the reason is above")


def not_begun(reason: str) -> Failure:
    """What keeps the run as a whole from beginning; the reason names cause and remedy."""
    return Failure("fleet", "prepare", reason)


def windows_targets() -> tuple[str, ...]:
    """Windows gateways this run is for."""
    options = _options()
    return windows.targets(fleet(), list(options.get("limit") or ()), list(options.get("exclude") or ()))


def _options() -> dict[str, Any]:
    return dict(_context.params) if _context is not None else {}


def _end() -> None:
    rollout = _rollout
    if rollout is None:
        return
    error = sys.exc_info()[1]
    if error is not None and not rollout.failed:
        for failure in given_up(error):
            rollout.fail(failure)
    lock, deadlines = locking.lock_of(rollout), stepping.deadlines_of(rollout)
    deadlines.end()
    if rollout.dry and not rollout.failed and (found := _changes_of_hosts()):
        print("", *found, sep="\n", flush=True)
    report.finish(rollout)
    lock.release({**rollout.record(), "sentence": report.sentence(rollout)})
    for line in (*deadlines.said, *lock.said):
        print(line, file=sys.stderr)
    if _exit_status:
        sys.exit(_exit_status)


def _changes_of_hosts() -> list[str]:
    """What a run that only looks has found to change on hosts besides services: packages, firewall, files."""
    found: dict[str, list[str]] = {}
    for op_hash in state.get_op_order():
        name = ", ".join(sorted(state.get_op_meta(op_hash).names))
        if name.startswith(tuple(_OF_THE_HOST)):
            for host, of in state.ops.items():
                if op_hash in of and of[op_hash].operation_meta.will_change:
                    found.setdefault(name, []).append(host.name)
    return [f"would change  {name}: {', '.join(sorted(hosts))}" for name, hosts in found.items()]


def given_up(error: BaseException) -> list[Failure]:
    """Why pyinfra itself ended the run; nothing when it ended well, or was told not to go on."""
    if isinstance(error, click.ClickException):  # pyinfra wraps every other exception in one
        reason = str(getattr(error, "exception", error)) or type(error).__name__
        remedy = "the output above says more; with -vvv also every command"
        return [Failure("controller", "prepare", reason, remedy)]
    names = [one.name for one in state.failed_hosts]
    reason = "pyinfra gave the host up; its output is above"
    return [Failure(name, "prepare", reason, "run again with -vvv to see the commands") for name in names]


def _interrupted(number: int, _frame: object) -> None:
    """Leave at once when nothing waits for confirmation; otherwise put it back first, unless asked again."""
    global _exit_status
    if not _requests.is_new():
        return
    again = _exit_status != 0
    if _rollout is not None and not again and not _rollout.failed and locking.lock_of(_rollout).decision:
        _exit_status = 128 + number
        print(
            "interrupted: every host is ready, so this is finished first; once more to leave at once (the "
            "next run then finishes it)",
            file=sys.stderr,
            flush=True,
        )
        return
    if _rollout is not None:
        _rollout.interrupted = True
        if not again and any(entry.state == "provisional" for entry in _rollout.results.values()):
            print(
                "interrupted: what is not confirmed is put back; once more to leave at once (hosts then go "
                "back by themselves)",
                file=sys.stderr,
                flush=True,
            )
            _exit_status = 128 + number
            return
    print("interrupted", file=sys.stderr)
    sys.exit(128 + number)


class _Narration(BaseStateCallback):
    """One line per phase: consecutive operations whose names begin alike."""

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.name = ""
        self.began = 0.0
        self.hosts: set[str] = set()
        self.changed: set[str] = set()
        self.failures_before = 0
        self.barrier = False  # an operation on one host for all of them
        self.host_began: dict[str, float] = {}
        self.host_ended: dict[str, float] = {}

    def operation_start(self, of: Any, op_hash: str) -> None:
        """A new phase begins when the operation's name says so."""
        if not _options().get("verbosity") and not _options().get("debug"):
            # pyinfra's own line per host and operation is for debugging; ours is one per phase.
            logger.setLevel(logging.WARNING)
        name = ", ".join(of.get_op_meta(op_hash).names)
        lock = locking.lock_of(self.rollout)
        lock.check(self.rollout)
        if self.rollout.failed:
            stepping.deadlines_of(self.rollout).end()
        phase = next((word for word in _PHASES if name.startswith(word)), name)
        if phase in ("Stage", "Activate", "Confirm"):
            phase = name.partition(" | ")[0]
        self.barrier = phase in ("Plan", "Lock", "Lock again") or name.endswith(("| checks", "| store"))
        if phase != self.name:
            self.close()
            self.name, self.began = phase, time.monotonic()
            if not phase.startswith(("Lock", "Confirm")):
                lock.phase(phase.lower(), self.rollout)

    def operation_host_start(self, _state: Any, host: Any, _op_hash: str) -> None:
        """The first operation of a phase on a host begins its span."""
        self.host_began.setdefault(host.name, time.monotonic())

    def operation_host_success(self, _state: Any, host: Any, _op_hash: str, _retry_count: int = 0) -> None:
        """So far the last operation of the phase on this host."""
        self.host_ended[host.name] = time.monotonic()

    def operation_host_error(
        self, _state: Any, host: Any, _op_hash: str, _retry_count: int = 0, _max_retries: int = 0
    ) -> None:
        """An operation that is not ours to judge has failed: pyinfra has said why, and ends the run."""
        if self.barrier and self.rollout.failed:
            return
        reason = "an operation failed; its output is above"
        self.rollout.fail(Failure(host.name, self.name, reason, "run again with -vvv to see its commands"))

    def operation_end(self, of: Any, op_hash: str) -> None:
        """The last operation closes its phase; from here on pyinfra knows of a failure and exits with 1."""
        for host in of.inventory.iter_activated_hosts():
            if op_hash in of.ops[host] and not self.barrier:
                self.hosts.add(host.name)
                done = of.get_op_data_for_host(host, op_hash).operation_meta
                if done.is_complete() and done.did_change() and not self._only_looked():
                    self.changed.add(host.name)
        if of.get_op_order()[-1] == op_hash:
            self.close()
            if self.rollout.failed:
                of.failed_hosts.update(of.inventory.iter_activated_hosts())

    def _only_looked(self) -> bool:
        """Whether the phase's operations change nothing, though they run."""
        return self.name.startswith(("Ask", "Judge")) or windows.nothing_changed(self.name)

    def close(self) -> None:
        """Print the line of the phase that ends."""
        failed = {failure.host for failure in self.rollout.failures[self.failures_before :]}
        skipped = self.rollout.failed and not self.changed and not failed
        if self.name and self.hosts and not (self.name == "Put back" and not self.changed):
            seconds = time.monotonic() - self.began
            phase = Phase(self.name, len(self.hosts), len(self.changed), seconds, len(failed), skipped)
            self.rollout.phases.append(phase)
            print(report.phase_line(phase), flush=True)
            if self.name in _OF_THE_HOST and (self.changed or failed or self.name == "Baseline"):
                self._spans(failed)
        self.name = ""
        self.hosts, self.changed = set(), set()
        self.host_began, self.host_ended = {}, {}
        self.failures_before = len(self.rollout.failures)

    def _spans(self, failed: set[str]) -> None:
        """What concerns a host as a whole has no release tool's call that records its step."""
        for host, began in self.host_began.items():
            outcome = "failed" if host in failed else "changed" if host in self.changed else "unchanged"
            ended = self.host_ended.get(host, time.monotonic())
            self.rollout.spent(host, "", _OF_THE_HOST[self.name], began, outcome, until=ended)
