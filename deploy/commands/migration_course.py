"""A move of a host from its journal on: described, deployed, looked at, and kept or restored; its report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.commands import migration_evidence as evidence
from deploy.commands.hosts import deploying, statuses
from deploy.commands.named_fleet import fleet_of
from deploy.commands.preflight import decision_of
from deploy.commands.steps import deploy, deployment_command, step
from mt5crs.operate.acts import acted
from mt5crs.operate.chosen import Chosen

if TYPE_CHECKING:
    from deploy.migration.journal import Journal

_GONE_WITHIN_S = 180
"""So long the deployment of a dead run is waited for, until its lock may be taken over."""
_GOOD_WITHIN_S = 120
"""So long links and services may take until they are as they were."""


class MoveError(click.ClickException):
    """It cannot go on; the text says why, and what was done."""


def go_on(made: Journal, chosen: Chosen, *, undo: bool, as_json: bool) -> None:
    """Everything from the journal on; can be repeated."""
    try:
        if undo and made.phase != "undoing":
            _give_up(made, "it was to be taken back (--undo)")
        if made.resumed:
            _wait_for_the_dead(made, chosen)
        if made.phase != "undoing":
            _forwards(made, chosen)
        if made.phase == "undoing":
            _back(made, chosen)
    except KeyboardInterrupt:
        raise MoveError(f"interrupted in phase {made.phase}; {_again(made)}") from None
    _end(made, chosen, as_json=as_json)


def _again(made: Journal) -> str:
    return f"call this again to go on (`{_call(made)}`), or with --undo to take it back"


def _undo_again(made: Journal) -> str:
    return f"call `{_call(made)} --undo`"


def _call(made: Journal) -> str:
    return f"mt5crs --inventory {made.inventory} migrate {made.host} {made.new}"


def _wait_for_the_dead(made: Journal, chosen: Chosen) -> None:
    """A run that was killed may have left a deployment behind, whose lock can be taken once it is dead."""
    fleet = fleet_of(chosen.inventory)
    with _step(made, "see that nobody deploys"):
        left = evidence.until_good(lambda: [why] if (why := deploying(fleet)) else [], _GONE_WITHIN_S)
    if left:
        raise MoveError(f"{left[0]}; wait for its end, then {_again(made)}")


def _forwards(made: Journal, chosen: Chosen) -> None:
    if made.phase == "begun":
        with _step(made, f"write {made.new} into {chosen.inventory.name} and the known hosts"):
            _describe(made, chosen.inventory, made.old, made.new)
        made.reached("described")
    if made.phase == "described":
        if why := _sends_from(made, chosen, made.new):
            return _give_up(made, why)
        if not _deployed(made, chosen, made.new):
            return _give_up(made, "the deployment failed; its own words are above")
        made.reached("deployed")
    if made.phase == "deployed":
        wrong = _verified(made, chosen, made.new)
        if wrong:
            return _give_up(made, "; ".join(wrong))
        made.reached("verified")
    return None


def _give_up(made: Journal, why: str) -> None:
    made.why_undone = why
    made.reached("undoing")
    click.echo(f"taking it back: {why}", err=True)


def _back(made: Journal, chosen: Chosen) -> None:
    with _step(made, f"write {made.old} into {chosen.inventory.name} again"):
        _describe(made, chosen.inventory, made.new, made.old)
    if why := _sends_from(made, chosen, made.old):
        raise MoveError(f"{why}; mend that, then {_undo_again(made)}")
    if _to_be_deployed(chosen) and not _deployed(made, chosen, made.old):
        raise MoveError(
            f"the inventory says {made.old} again, but its deployment failed (its own words are above): "
            f"mend that, then {_undo_again(made)}"
        )
    wrong = _verified(made, chosen, made.old)
    if wrong:
        raise MoveError(
            f"{made.host} is deployed at {made.old} again, but: {'; '.join(wrong)}; mend that, then "
            f"{_undo_again(made)}"
        )


def _describe(made: Journal, inventory: Path, before: str, after: str) -> None:
    """Have the inventory say `after`, and the known hosts know the new address or not."""
    from deploy.fleet.restoring import write
    from deploy.migration import inventory_file, known_hosts

    fleet = fleet_of(inventory)
    now = str((fleet.hosts.get(made.host) or {}).get("fleet_address"))
    if now not in (before, after):
        raise MoveError(
            f"the inventory says that {made.host} is at {now}: somebody has edited it meanwhile. Write "
            f"{after}, then {_again(made)}"
        )
    if now == before:
        try:
            text = inventory_file.moved(
                inventory.read_text(encoding="utf-8"), fleet.on_machine(made.host), before, after
            )
        except inventory_file.NotEditableError as error:
            raise MoveError(f"{error}; after that {_again(made)}") from None
        write(inventory.resolve(), text)
    if made.known_hosts and made.added:
        file = Path(made.known_hosts)
        change = known_hosts.with_lines if after == made.new else known_hosts.without_lines
        there = file.read_text(encoding="utf-8")
        if (text := change(there, made.added)) != there:
            write(file, text)


def _sends_from(made: Journal, chosen: Chosen, address: str) -> str:
    """Have the host send from an address; empty, or why it does not."""
    from deploy.migration.source import send_from

    with _step(made, f"have {made.host} send from {address}"):
        why = send_from(fleet_of(chosen.inventory).hosts[made.host], address, made.peers)
    return f"{made.host}: {why}" if why else ""


def _to_be_deployed(chosen: Chosen) -> bool:
    """Whether any host runs otherwise than the inventory wants; what is not known counts as such."""
    from deploy.rollout import plan
    from deploy.rollout.batches import OrderError
    from deploy.rollout.generation import BundleError

    fleet = fleet_of(chosen.inventory)
    told = statuses(fleet)
    known = {host: status for host, status in told.items() if not isinstance(status, str)}
    if len(known) < len(told):
        return True
    try:
        work = plan.make(fleet, known).work
    except (BundleError, OrderError):
        return True
    return any(not one.todo.nothing for one in work.values())


def _deployed(made: Journal, chosen: Chosen, address: str) -> bool:
    """Deploy what the inventory says now, the host at this address; whether it went well."""
    what, before = f"deploy the fleet with {made.host} at {address}", {made.old, made.new} - {address}
    fleet = fleet_of(chosen.inventory)
    # Who is cut off until their own step is cut off for the shortest time when all have theirs at once.
    strategy = "" if made.host in fleet.in_group("inf") else "all_at_once"
    command = deployment_command(
        chosen.inventory,
        strategy=strategy,
        why=f"{made.host} from {before.pop()} to {address}: {made.reason}",
    )
    click.echo(what, err=True)
    began = time.monotonic()
    status = deploy(command, err=True)
    _done(made, what, time.monotonic() - began, "done" if status == 0 else f"failed, status {status}")
    return status == 0


def _verified(made: Journal, chosen: Chosen, address: str) -> list[str]:
    """What does not work with the host at an address, after a time in which it may settle."""
    fleet = fleet_of(chosen.inventory)
    hosts = evidence.links_of(fleet, made.host)

    def look() -> list[str]:
        wrong = list(evidence.broken(evidence.links(fleet, hosts), address))
        if not wrong:
            now = decision_of(fleet, chosen.operator)
            lost = set(made.held) - set(evidence.passing(now, made.held))
            wrong = list(evidence.findings(now, lost))
        return wrong

    with _step(made, f"look at {len(hosts)} links in nine layers, and at what held before"):
        return evidence.until_good(look, _GOOD_WITHIN_S)


@contextmanager
def _step(made: Journal, what: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        with step(what, err=True):
            yield
    except BaseException:
        _done(made, what, time.monotonic() - began, "failed")
        raise
    _done(made, what, time.monotonic() - began, "done")


def _done(made: Journal, what: str, seconds: float, outcome: str) -> None:
    made.steps.append({"what": what, "seconds": round(seconds, 1), "outcome": outcome})
    made.write()


# ---- the report ----


def _end(made: Journal, chosen: Chosen, *, as_json: bool) -> None:
    from deploy.fleet.vault_password import PROJECT
    from deploy.migration import page

    kept = made.phase == "verified"
    fleet = fleet_of(chosen.inventory)
    hosts = evidence.links_of(fleet, made.host)
    report = {
        "id": made.id,
        "environment": fleet.environment,
        "host": made.host,
        "from": made.old,
        "to": made.new,
        "outcome": "moved" if kept else "restored",
        "why_undone": "" if kept else made.why_undone,
        "reason": made.reason,
        "who": made.who,
        "began": made.began,
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "resumed": made.resumed,
        "steps": made.steps,
        "links": evidence.links(fleet, hosts),
        "quiet": evidence.quiet(fleet, chosen.operator, hosts, made.broker_msc),
        "checklist": evidence.checklist(decision_of(fleet, chosen.operator), str(chosen.inventory)),
        "left": list(_left(made, kept=kept)),
    }
    base = PROJECT / "reports" / "migrations" / made.id
    base.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    words = page.text(report)
    base.with_name(f"{made.id}.json").write_text(evidence.as_json(report) + "\n", encoding="utf-8")
    base.with_name(f"{made.id}.txt").write_text(words + "\n", encoding="utf-8")
    base.with_name(f"{made.id}.html").write_text(page.html(report), encoding="utf-8")
    acted(
        "host.migrated" if kept else "host.migration_undone",
        host=made.host,
        old=made.old,
        new=made.new,
        reason=made.reason,
        why=None if kept else made.why_undone,
    )
    made.remove()
    click.echo(evidence.as_json(report) if as_json else f"{words}\n{base}.html")
    if not kept:
        raise SystemExit(1)


def _left(made: Journal, *, kept: bool) -> Iterator[str]:
    from deploy.migration.source import TAKE_AWAY

    gone = made.old if kept else made.new
    yield f"take {gone} off {made.host}, now and in the configuration of its network"
    if made.peers:
        yield (
            f"see that {made.host} sends from {made.new if kept else made.old} by that configuration: until "
            f"its next start routes of this move may do it (`{TAKE_AWAY}` there takes them away)"
        )
    if kept:
        yield (
            f"once nothing answers at {made.old}: `ssh-keygen -R {made.old} -f {made.known_hosts}`"
            if made.known_hosts
            else f"once nothing answers at {made.old}, forget its host key"
        )
        yield "commit the inventory"
