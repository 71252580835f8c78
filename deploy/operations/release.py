"""Ships a service's generation with the host's release tool: stage, activate, confirm, or put back.

`deploy.rollout.generation` decides, the operations here do it and note in the run's `Rollout` how it went. An
operation never ends pyinfra's run itself, because hosts that were activated before must still be put back;
`deploy.operations.run` ends it.
"""
# mypy: disable-error-code="misc,untyped-decorator"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from deploy.coordination.fleet_lock import FleetLock
from deploy.fleet.services import NAMES, SERVICES
from deploy.operations import locking, stepping
from deploy.operations.context import fleet, variables
from deploy.remote import resuming
from deploy.remote.release_call import LOOK_AGAIN, ROLLBACK, document_of, not_told
from deploy.remote.release_store import Delivery, Needs, deliver
from deploy.remote.ssh import STATUS, TOOL, of_instance
from deploy.rollout.answer import ACCESS, ToolAnswer, apply
from deploy.rollout.batches import BESIDE, GATEWAY, SHADOW, Step
from deploy.rollout.distribution import needs_of, store_of
from deploy.rollout.generation import BUNDLES, Bundle, Desired, code_arguments
from deploy.rollout.plan import Plan, Work
from deploy.rollout.record import Failure, Rollout, failure_of
from deploy.rollout.transfers import CONTROLLER, Transfer

# Longer than the tool's own deadlines, so that it answers before the connection is given up.
STAGE_TIMEOUT_S = 300
ACTIVATE_TIMEOUT_S = 240
SHORT_TIMEOUT_S = 90
JOURNAL_LINES = 12
_RESUMED = ("stage", "activate", "confirm")
_RECONNECT_EVERY_S = 1.0


_delivery = Delivery()
"""What came by way of the Hub's release store; made by the first operation that brings bundles."""


def use(plan: Plan, seen: Mapping[str, Mapping[str, Any]]) -> None:
    """Take what is to be done, and what every host said, for the phases of this run."""
    _work.update(plan.work)
    _statuses.update(seen)


_work: dict[tuple[str, str], Work] = {}
_statuses: dict[str, Mapping[str, Any]] = {}


def _call(rollout: Rollout, arguments: Sequence[str], *, timeout_s: int, stdin: str | None = None) -> bool:
    """One call of the release tool for a service of the current host, taken into the run's record.

    arguments: verb, service and the rest. False when it failed.
    """
    began, verb, service = time.monotonic(), arguments[0], arguments[1]
    answer, text, good = run_tool([*arguments, "--json"], stdin=stdin, timeout_s=timeout_s)
    if answer is not None and answer.get("lost") and verb in _RESUMED:
        generation = rollout.result(host.name, service).generation
        answer, text, good = _resume(arguments, generation, stdin, timeout_s, answer)
    said = ToolAnswer(
        host.name,
        verb,
        service,
        good and answer is not None,
        answer,
        text,
        time.monotonic() - began,
        asked="--dry-run" in arguments,
    )
    apply(rollout, said)
    if said.told_at_once:
        print(said.told_at_once, flush=True)
    return said.good


def _resume(
    arguments: Sequence[str], generation: str, stdin: str | None, timeout_s: int, lost: dict[str, Any]
) -> tuple[dict[str, Any] | None, str, bool]:
    """Connect anew and find out what the host did meanwhile; stage and confirm may simply be repeated."""
    verb, service = arguments[0], arguments[1]
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if not _connected_anew():
            time.sleep(_RECONNECT_EVERY_S)  # pyinfra made it cooperative
            continue
        if verb == "activate":
            listed, _, good = run_tool(["list", service, "--json"], stdin=None, timeout_s=SHORT_TIMEOUT_S)
            found = resuming.answer_of(listed, generation) if good and listed else None
            if found is None:
                time.sleep(_RECONNECT_EVERY_S)
                continue
            if found is not resuming.NOT_BEGUN:
                print(f"  {host.name}: connection lost in {verb} {service}; read from the host")
                return dict(found), "", "error" not in found
        print(f"  {host.name}: connection lost in {verb} {service}; made again")
        return run_tool([*arguments, "--json"], stdin=stdin, timeout_s=timeout_s)
    return lost, "", False


def run_again(
    arguments: Sequence[str], *, timeout_s: int, until: float | None = None
) -> tuple[dict[str, Any] | None, str, bool]:
    """As `run_tool`, for a call that may be made twice: again over a new connection if it was lost.

    until: time.monotonic() at which it is given up; by default SHORT_TIMEOUT_S from now.
    """
    until = time.monotonic() + SHORT_TIMEOUT_S if until is None else until
    answer, text, good = run_tool(arguments, stdin=None, timeout_s=timeout_s)
    while answer is not None and answer.get("lost") and time.monotonic() < until:
        if _connected_anew():
            answer, text, good = run_tool(arguments, stdin=None, timeout_s=timeout_s)
        else:
            time.sleep(_RECONNECT_EVERY_S)  # pyinfra made it cooperative
    return answer, text, good


def status() -> dict[str, Any] | Failure:
    """What the release tool says runs on the current host; `{}` where the tool is not installed yet."""
    answer, text, good = _ask(STATUS, stdin=None, timeout_s=SHORT_TIMEOUT_S)
    return answer if good and answer is not None else not_told(host.name, answer, text)


def run_tool(
    arguments: Sequence[str], *, stdin: str | None, timeout_s: int
) -> tuple[dict[str, Any] | None, str, bool]:
    """Run the release tool on the current host: its JSON answer (if it is one), its output, exit status 0."""
    return _ask([TOOL, *arguments], stdin=stdin, timeout_s=timeout_s)


def _ask(
    words: Sequence[str], *, stdin: str | None, timeout_s: int
) -> tuple[dict[str, Any] | None, str, bool]:
    addressed = of_instance(words, variables(host.name)["fleet_instance"])
    command = StringCommand(*(shlex.quote(word) for word in addressed))
    options: dict[str, Any] = {"_sudo": bool(host.data.get("_sudo", False)), "_timeout": timeout_s}
    if stdin is not None:
        options["_stdin"] = stdin
    try:
        good, output = host.run_shell_command(command, print_output=False, print_input=False, **options)
    except Exception as error:  # whatever ends a connection: it must not hide what has to be put back
        reason = f"the connection was lost or timed out ({type(error).__name__}: {error})"
        return _lost(reason), "", False
    text = "\n".join(output.stdout_lines)
    answer = document_of(text)
    if answer is not None:
        return answer, text, good
    if not good and not text and not output.stderr_lines:
        return _lost("the connection was lost: no answer and no exit status"), "", False
    return None, "\n".join([text, *output.stderr_lines]), good


def _lost(reason: str) -> dict[str, Any]:
    return {"lost": True, "error": {"message": reason, "remedy": "check the host and the network"}}


def _connected_anew() -> bool:
    """Replace the connection to the current host; False when that does not succeed now."""
    try:
        _connect_anew()
    except Exception:  # see run_tool
        return False
    return True


def _connect_anew() -> None:
    host.disconnect()
    host.connect(show_errors=False, raise_exceptions=True)


def shell(script: str, *, timeout_s: int) -> tuple[bool, list[str]]:
    """Run shell text on the current host: exit status 0, and its output lines (or why there are none)."""
    sudo = bool(host.data.get("_sudo", False))
    command = StringCommand("sh", "-c", shlex.quote(script))
    try:
        good, output = host.run_shell_command(
            command, print_output=False, print_input=False, _sudo=sudo, _timeout=timeout_s
        )
    except Exception as error:  # see run_tool
        return False, [f"{type(error).__name__}: {error}"]
    return good, [*output.stdout_lines, *output.stderr_lines]


# --- operations: each a step for one service on the current host; none begins after a failure --------


@operation()
def delivered(rollout: Rollout, needs: Needs) -> Generator[FunctionCommand, None, None]:
    """Bring all hosts their bundles by way of the Hub; what does not come is uploaded directly."""
    if not rollout.failed and needs:
        yield FunctionCommand(_deliver, (rollout, needs), {})


@operation()
def uploaded(rollout: Rollout, service: str, bundle: Bundle) -> Generator[FunctionCommand, None, None]:
    """Put the bundle on the host, complete or not at all; nothing if it came from the Hub."""
    if not rollout.failed:
        yield FunctionCommand(_upload, (rollout, service, bundle), {})


@operation()
def staged(rollout: Rollout, want: Desired) -> Generator[FunctionCommand, None, None]:
    """Stage the generation; what runs is not touched."""
    if not rollout.failed:
        yield FunctionCommand(_stage, (rollout, want), {})


@operation()
def activated(rollout: Rollout, want: Desired) -> Generator[FunctionCommand, None, None]:
    """Activate the staged generation under its health gate, provisionally."""
    if not rollout.failed:
        yield FunctionCommand(_activate, (rollout, want), {})


@operation()
def started(rollout: Rollout, service: str, units: Iterable[str]) -> Generator[FunctionCommand, None, None]:
    """Start units of a confirmed generation that are down, though they should run."""
    if not rollout.failed:
        yield FunctionCommand(_start, (rollout, service, tuple(units)), {})


@operation()
def settled(rollout: Rollout, want: Desired) -> Generator[FunctionCommand, None, None]:
    """Confirm the generation over a new connection, which proves that the host can still be reached."""
    if not rollout.failed:
        yield FunctionCommand(
            _confirm, (rollout, want.service, lambda lock: lock.decide_to_confirm(rollout)), {}
        )


@operation()
def confirmed(
    rollout: Rollout, decide: Callable[[FleetLock], None]
) -> Generator[FunctionCommand, None, None]:
    """The same for all that waits, once `decide` has recorded that it is to be finished from here on."""
    for result in tuple(rollout.results.values()):
        if result.host == host.name and result.waits and not rollout.failed:
            yield FunctionCommand(_confirm, (rollout, result.service, decide), {})


@operation()
def asked_to_roll_back(
    rollout: Rollout, service: str, to: str | None, verb: str
) -> Generator[FunctionCommand, None, None]:
    """Find out whether the host can go back, before any host does."""
    yield FunctionCommand(_roll_back, (rollout, service, to, verb), {"dry_run": True})


@operation()
def rolled_back(
    rollout: Rollout, service: str, to: str | None, verb: str
) -> Generator[FunctionCommand, None, None]:
    """Go back, unless some host cannot."""
    if not rollout.failed:
        yield FunctionCommand(_roll_back, (rollout, service, to, verb), {"dry_run": False})


@operation()
def put_back(rollout: Rollout) -> Generator[FunctionCommand, None, None]:
    """When anything failed anywhere: return to what ran before, last service first."""
    if rollout.failed and rollout.touched(host.name):
        yield FunctionCommand(_put_back, (rollout,), {})


@operation()
def looked_at(rollout: Rollout) -> Generator[FunctionCommand, None, None]:
    """Once everything has gone back everywhere: wait for the health of what runs again."""
    if rollout.failed and not rollout.lock_lost and rollout.went_back(host.name):
        yield FunctionCommand(_look_at, (rollout,), {})


def _deliver(rollout: Rollout, needs: Needs) -> None:
    done = deliver(store_of(fleet().hosts, fleet().groups), fleet().hosts, needs)
    for line in done.said:
        print(f"  {line}", flush=True)
    rollout.brought(done.transfers)
    _delivery.there |= done.there
    _delivery.why |= done.why


def _upload(rollout: Rollout, service: str, bundle: Bundle) -> None:
    if bundle.path.name in _delivery.there.get(host.name, ()):
        return
    began = time.monotonic()
    part = f"{bundle.remote}.{rollout.id[:8]}.part"
    sudo = bool(host.data.get("_sudo", False))
    step = f"upload {bundle.path.name}"
    try:
        done = host.put_file(str(bundle.path), part, print_output=False, print_input=False, _sudo=sudo)
        script = (
            f"chown root:root {part} && chmod 0644 {part} && sync {part} && mv -f {part} {bundle.remote} "
            f"|| {{ rm -f {part}; exit 1; }}"
        )
        reason = "the file could not be written"
        if done:
            done, lines = shell(script, timeout_s=SHORT_TIMEOUT_S)
            reason = "\n".join(lines)
    except Exception as error:  # see run_tool
        done, reason = False, f"{type(error).__name__}: {error}"
    rollout.result(host.name, service).seconds += time.monotonic() - began
    rollout.spent(host.name, service, "upload", began, "changed" if done else "failed")
    if not done:
        remedy = f"check the space and the rights of {BUNDLES} on the host"
        rollout.fail(Failure(host.name, step, reason or "it failed and gave no reason", remedy))
        return
    size, seconds = bundle.path.stat().st_size, round(time.monotonic() - began, 3)
    why = _delivery.why.get(host.name, "")
    rollout.brought([Transfer(host.name, bundle.path.name, CONTROLLER, size, seconds, why=why)])


def _stage(rollout: Rollout, want: Desired) -> None:
    arguments = ["stage", want.service]
    if want.bundle is not None:
        arguments += code_arguments(want, _statuses[host.name])
    _call(rollout, arguments, timeout_s=STAGE_TIMEOUT_S, stdin=want.specification)


def _activate(rollout: Rollout, want: Desired) -> None:
    result = rollout.result(host.name, want.service)
    timeout_s = want.reached_within_s or want.confirm_timeout_s
    arguments = ["activate", want.service, "--confirm-timeout", str(timeout_s)]
    arguments += ["--deployment", rollout.id]
    if rollout.strategy in BESIDE and want.stands_by:
        arguments.append("--standby")
    if want.both_keys:
        arguments.append("--former-key")
    patience_s = ACTIVATE_TIMEOUT_S
    if rollout.strategy == SHADOW and want.shadow is not None:
        arguments += want.shadow.arguments
        patience_s += want.shadow.window_s
    # Noted before the call: if the connection is lost in it, the host may have gone ahead.
    result.state = "provisional"
    good = _call(rollout, arguments, timeout_s=patience_s)
    if not good or not result.waits or (want.reached_within_s and not _let_in_again(rollout, want)):
        return
    timeout_s = want.confirm_timeout_s
    stepping.deadlines_of(rollout).waits(host.name, want.service, result.generation, timeout_s)


def _let_in_again(rollout: Rollout, want: Desired) -> bool:
    """Whether a host that decides anew who gets in lets us in; only then it has time to be confirmed."""
    began, within_s = time.monotonic(), want.reached_within_s or 0
    # sshd does not listen for a moment while it reads its configuration anew.
    while not _connected_anew():
        if time.monotonic() - began > within_s / 2:
            message = (
                "it cannot be reached over a new connection with its new firewall and sshd configuration; "
                f"it puts the old one back within {within_s} s"
            )
            remedy = "add this controller's address to baseline_ssh_sources, or correct templates/baseline"
            rollout.fail(Failure(host.name, f"activate {want.service}", message, remedy))
            return False
        time.sleep(_RECONNECT_EVERY_S)  # pyinfra made it cooperative
    generation = rollout.result(host.name, want.service).generation
    arguments = ["extend", want.service, "--generation", generation]
    arguments += ["--confirm-timeout", str(want.confirm_timeout_s)]
    return _call(rollout, arguments, timeout_s=SHORT_TIMEOUT_S)


def _start(rollout: Rollout, service: str, units: Sequence[str]) -> None:
    result = rollout.result(host.name, service)
    names = " ".join(shlex.quote(unit) for unit in units)
    of_units = " ".join(f"-u {shlex.quote(unit)}" for unit in units)
    journal = f"journalctl -n {JOURNAL_LINES} --no-pager -o short-iso {of_units}"
    script = f"systemctl reset-failed {names}; systemctl start {names} || {{ {journal}; exit 1; }}"
    began = time.monotonic()
    good, lines = shell(script, timeout_s=ACTIVATE_TIMEOUT_S)
    result.seconds += time.monotonic() - began
    rollout.spent(host.name, service, "start", began, "changed" if good else "failed")
    result.state, result.changed = ("started", True) if good else ("down", False)
    if not good:
        remedy = "read the journal lines; what it depends on may be down"
        why = f"{names} is down and does not start"
        rollout.fail(Failure(host.name, f"start {service}", why, remedy, tuple(lines)))


def _confirm(rollout: Rollout, service: str, decide: Callable[[FleetLock], None]) -> None:
    result = rollout.result(host.name, service)
    if not result.waits:
        return
    locking.decide(rollout, decide)
    if not _reconnected(rollout):
        return
    arguments = ["confirm", service, "--generation", result.generation]
    _call(rollout, arguments, timeout_s=SHORT_TIMEOUT_S)


def _reconnected(rollout: Rollout) -> bool:
    """Whether the host can be reached over a new connection (made once a run)."""
    if host.name in _fresh:
        return True
    try:
        _connect_anew()
    except Exception as error:  # see run_tool
        message = f"the host cannot be reached over a new connection ({error})"
        rollout.fail(Failure(host.name, "confirm", message, "see sshd and the firewall of the host"))
        return False
    _fresh.add(host.name)
    return True


_fresh: set[str] = set()


def _roll_back(rollout: Rollout, service: str, to: str | None, verb: str, *, dry_run: bool) -> None:
    if not dry_run and verb == ROLLBACK:
        locking.decide(rollout, lambda lock: lock.decide_to_roll_back(rollout.way_back))
    arguments = [verb, service, *(["--to", to] if to else []), *(["--dry-run"] if dry_run else [])]
    _call(rollout, arguments, timeout_s=ACTIVATE_TIMEOUT_S)


def _put_back(rollout: Rollout) -> None:
    until = time.monotonic() + SHORT_TIMEOUT_S
    for result in rollout.touched(host.name):
        began = time.monotonic()
        arguments = ["revert", result.service, "--confirmed", result.generation, "--json"]
        # What is confirmed does not go back by itself, so a host that comes back in time is told.
        answer, text, good = run_again(arguments, timeout_s=ACTIVATE_TIMEOUT_S, until=until)
        said = good and answer is not None
        seconds = time.monotonic() - began
        apply(rollout, ToolAnswer(host.name, "revert", result.service, said, answer, text, seconds))


def _look_at(rollout: Rollout) -> None:
    answer, text, good = run_again(["check", "--json"], timeout_s=ACTIVATE_TIMEOUT_S)
    if not good or answer is None:
        rollout.fail(failure_of(host.name, LOOK_AGAIN, answer, text))


@dataclass(frozen=True)
class Service:
    """A part that runs as a service: which hosts have it, and its phases for pyinfra.

    Each phase is called in deploy.py for every host, so that no host is a phase ahead of another.
    """

    name: str
    group: str
    goes_back_by: str = ROLLBACK
    """The release tool's command that takes it back: the generation, or only its access list."""

    @property
    def here(self) -> bool:
        """Whether the current host has this service."""
        return host.name in fleet().in_group(self.group)

    def _work(self) -> Work | None:
        """What is to be done for this service on the current host; None when the host has no such service."""
        return _work.get((host.name, self.name))

    def missing_bundles(self) -> tuple[Bundle, ...]:
        """What the current host has not got yet of what is to run there."""
        work = self._work()
        return work.todo.upload if work is not None else ()

    def stage(self, rollout: Rollout) -> None:
        """Put the wanted generation on the host, beside what runs."""
        work = self._work()
        if work is None:
            return
        result = rollout.result(host.name, self.name)
        result.generation, result.previous = work.todo.generation, work.todo.previous
        if work.todo.stage:
            staged(rollout, work.want, name=f"Stage {self.name}")

    def activate(self, rollout: Rollout, step: Step) -> None:
        """Run the staged generation, provisionally, if the current host's turn is in this step."""
        work = self._work()
        if work is None or host.name not in step.hosts or self.name not in step.services:
            return
        if work.todo.activate:
            activated(rollout, work.want, name=f"Activate {step.name} | {self.name}")
        if work.todo.start:
            started(rollout, self.name, work.todo.start, name=f"Activate {step.name} | start {self.name}")

    def confirm(self, rollout: Rollout) -> None:
        """Make the provisional generation the one to stay."""
        work = self._work()
        if work is not None and work.todo.activate:
            settled(rollout, work.want, name=f"Confirm {self.name}")

    def ask_rollback(self, rollout: Rollout, to: str | None) -> None:
        """Find out whether the current host can return to `to` (None: the generation before)."""
        if self.here:
            asked_to_roll_back(rollout, self.name, to, self.goes_back_by, name=f"Ask about {self.name}")

    def rollback(self, rollout: Rollout, to: str | None) -> None:
        """Return to `to`, once every host has said that it can."""
        if self.here:
            rolled_back(rollout, self.name, to, self.goes_back_by, name=f"Roll back {self.name}")


def services(last: str = "") -> Iterator[Service]:
    """For deploy.py: every service in the order of activation, but the one named `last` at the end."""
    for entry in host.loop(sorted(SERVICES, key=lambda entry: entry.name == last)):
        yield Service(entry.name, entry.group)


def service_named(name: str | None) -> Service:
    """The part called `name`; ValueError that lists the parts if there is none."""
    for entry in SERVICES:
        if entry.name == name:
            return Service(entry.name, entry.group)
        if name == ACCESS and entry.name == GATEWAY:
            return Service(entry.name, entry.group, ACCESS)
    given = f"there is no part {name!r}" if name else "no part is named"
    parts = "|".join([*NAMES, ACCESS, "fleet"])
    raise ValueError(f"{given}; add --data part=<{parts}>. Nothing was changed")


def bring_bundles(rollout: Rollout, plan: Plan) -> None:
    """For deploy.py: bring the bundles of all hosts by way of the Hub's release store."""
    delivered(rollout, needs_of(plan, fleet()), name="Upload | store", _run_once=True)


def upload_bundle(rollout: Rollout) -> None:
    """Put the bundles that its services need on the current host; one upload serves them all."""
    missing = {
        bundle: entry.name
        for entry in reversed(SERVICES)
        for bundle in Service(entry.name, entry.group).missing_bundles()
    }
    for bundle, service in missing.items():
        uploaded(rollout, service, bundle, name=f"Upload {bundle.path.name}")
