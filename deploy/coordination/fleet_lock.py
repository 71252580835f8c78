"""One deployer at a time: the fleet's lock, which the Hub keeps together with the record of each deployment.

Alike for both engines, over connections of its own (`deploy.remote.ssh`), so it also works for a run that is
limited to other hosts. A process of its own (`deploy.coordination.heartbeat`) says every few seconds that the
deployer lives; it outlives a killed deployer by a moment and says that too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.coordination import audit_log, unfinished
from deploy.coordination.sidecar import Sidecar
from deploy.fleet.connection import only_connection
from deploy.fleet.inventory import Fleet
from deploy.fleet.snapshot import snapshot_of
from deploy.remote import ssh
from deploy.rollout.record import Failure, Rollout

HELD = "MT5CRS_FLEET_LOCK"
"""Environment variable for a run inside a run (the play for Windows gateways): the lock is held already."""
LIMIT_S = 60
EVERY_S = 10
_CALL_TIMEOUT_S = 40
_ABSENT = "absent"
# A Hub that has no release tool yet says so itself: no answer is not taken for that.
_OPEN = (
    "sh",
    "-c",
    f"if [ -x {ssh.TOOL} ]; then exec {ssh.TOOL} deployment open --json; fi; echo '{{\"{_ABSENT}\": true}}'",
)


class LockError(RuntimeError):
    """The lock cannot be had; the text names cause and remedy, and nothing was changed."""


def hub_of(fleet: Fleet) -> dict[str, Any] | None:
    """How to reach the Hub that keeps the lock; None when the inventory has none."""
    hubs = fleet.in_group("hub")
    return only_connection(fleet.hosts[hubs[0]]) if hubs else None


@dataclass
class FleetLock:
    """The lock of one run; `hub` None: there is nobody to ask, so there is no lock."""

    hub: Mapping[str, Any] | None
    id: str
    held: bool = False
    without: str = "lock=none (pyinfra --data, Ansible -e)"
    """How whoever runs it goes without; empty: not at all."""
    settled: list[dict[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    put_back: tuple[str, ...] = ()
    """Hosts on which dead runs were settled when the lock was taken, for whoever judges alerts afterwards."""
    decision: dict[str, Any] = field(default_factory=dict)
    """What is carried out from here on, also by the next run if this one dies: `phase`, `provisional`."""
    log: audit_log.Reach | None = None
    """Where the audit log is and who is to see its end; None: nobody, until the lock is taken."""
    _beats: Sidecar | None = None
    _lost: str = ""
    _looked: float = field(default_factory=time.monotonic)

    def take(
        self,
        rollout: Rollout,
        fleet: Fleet,
        *,
        last: bool,
        beat: bool = True,
        given: Collection[str] = (),
    ) -> None:
        """Take the lock, then finish or undo what dead deployments have left. LockError when refused.

        last: the release tool should be on the Hub by now; before that, a Hub without it is asked again.
        beat: send heartbeats from here on; a short-lived process leaves that to another.
        given: names of the settings that this run was given besides the inventory, for the audit log.
        """
        if self.held or os.environ.get(HELD):
            return
        if self.hub is None:
            if last:
                self.said.append("no Hub in the inventory: no fleet lock, and the record is in reports/ only")
            return
        configuration, unread = _configuration(fleet, given) if rollout.action == "deploy" else (None, "")
        request = {
            **rollout.record(),
            "hosts": list(fleet.hosts),
            "limit_s": LIMIT_S,
            "configuration": configuration,
        }
        reply = ssh.run(self.hub, _OPEN, stdin=json.dumps(request), timeout_s=_CALL_TIMEOUT_S)
        answer = reply.document
        if reply.status is None or answer is None:
            what = "does not answer" if reply.status is None else "gives an answer that cannot be read"
            hurry = "If that cannot wait and nobody else deploys: "
            raise LockError(
                f"the Hub, which keeps the fleet's lock, {what} ({reply.why}). Nothing was "
                "changed; mend the Hub or the way to it"
                + (f". {hurry}{self.without} goes without lock and record" if self.without else "")
            )
        if answer.get(_ABSENT):
            if last:
                self.said.append("the Hub has no release tool yet: no fleet lock, no record there")
            return
        if reply.status != 0:
            error = answer.get("error") or {}
            raise LockError(f"{error.get('message')}. Nothing was changed; {error.get('remedy')}")
        self.held = True
        self.log = audit_log.reach_of(fleet)
        self.said += [unread] if unread else []
        self._logged(answer.get("audit_log"))
        if beat:
            self.watch()
        taken = answer.get("took_over")
        if taken:
            self.said.append(
                f"took the fleet's lock over from {taken['who']} on {taken['controller']} "
                f"(id {taken['id']}), dead or silent for {taken['age_s']} s in phase '{taken['phase']}'"
            )
        unfinished_runs = answer.get("unfinished") or ()
        overtaken = [self._settle(record, fleet) for record in unfinished_runs]
        rolled_back = any(record.get("phase") == unfinished.ROLL_BACK for record in unfinished_runs)
        if rolled_back or (any(overtaken) and rollout.action == "deploy"):
            # What this run is about to do was planned, or would be chosen, from what ran before that. (A
            # rollback chooses later, so it goes on after a deployment that went back.)
            self.release({"id": self.id, "outcome": "unchanged"})
            raise LockError(
                "an interrupted run was on its way back, and has come to its end now: "
                f"{' '.join(str(entry['sentence']) for entry in self.settled)} "
                "This run has changed nothing else. If the fleet runs what you want, nothing is left to do; "
                "otherwise run the command again"
            )

    def _settle(self, record: Mapping[str, Any], fleet: Fleet) -> bool:
        """Whether services have left what was confirmed, so that what was planned before does not count."""
        said = f"unfinished deployment {str(record['id'])[:8]} of {record.get('who')}"
        self.said.append(f"{said}, in phase '{record.get('phase') or 'unknown'}'")
        done = unfinished.settle(fleet, record)
        self.put_back = tuple(dict.fromkeys([*self.put_back, *done.hosts]))
        self.said += [f"  {line}" for line in done.lines]
        if done.failures:
            self.release({"id": self.id, "outcome": "unchanged"})
            raise LockError(
                f"{said} could not be finished or undone: {'; '.join(done.failures)}. Mend the hosts, or "
                "wait until they have gone back by themselves, then run again"
            )
        self.settled.append({"id": str(record["id"]), "outcome": done.outcome, "sentence": done.sentence})
        return done.overtook

    def watch(self) -> None:
        """Begin to send heartbeats, in a process that does not share this one's fate."""
        if self._beats is not None or not self.held:
            return
        self._beats = Sidecar(
            "deploy.coordination.heartbeat", {"hub": self.hub, "id": self.id, "every_s": EVERY_S}
        )

    def phase(self, name: str, rollout: Rollout) -> None:
        """Say with the next heartbeat what is being done.

        A decision stays until the run fails; a run that goes well puts nothing back.
        """
        if rollout.failed or not (self.decision or name.startswith(unfinished.PUT_BACK)):
            self._tell({"phase": name})

    def decide_to_confirm(self, rollout: Rollout) -> None:
        """Record that everything is healthy: if the deployer dies from here on, the next one finishes it."""
        waiting = [entry for entry in rollout.results.values() if entry.state == "provisional"]
        self._decide(
            unfinished.CONFIRM,
            [unfinished.target(entry.host, entry.service, entry.generation) for entry in waiting],
        )

    def decide_to_roll_back(self, targets: Mapping[tuple[str, str], str]) -> None:
        """Record that every host can go back, and to what: (host, service) → generation, first ones first."""
        self._decide(
            unfinished.ROLL_BACK,
            [unfinished.target(host, service, name) for (host, service), name in targets.items()],
        )

    def _decide(self, phase: str, targets: list[str]) -> None:
        if not targets:
            return
        self.decision = {"phase": phase, "provisional": targets}
        if not self.held:
            return
        words = [word for text in targets for word in ("--provisional", text)]
        self._call("beat", self.id, "--phase", phase, *words)
        self._tell({"phase": phase})

    @property
    def lost(self) -> str:
        """Who has the lock now, when it was lost; a heartbeat that does not get through loses nothing."""
        if not self._lost and self._beats is not None:
            self._lost = self._beats.said()
        return self._lost

    def check(self, rollout: Rollout) -> None:
        """A run that has lost the lock must do nothing more, not even put back: the new holder does that."""
        self._ask_after_a_pause()
        if self.lost and not rollout.lock_lost:
            rollout.lock_lost = True
            rollout.fail(
                Failure(
                    "controller",
                    "fleet lock",
                    f"this run has lost the fleet's lock and stops: {self.lost}",
                    "the deployment that took over settles what this one began; run again after it",
                )
            )

    def _ask_after_a_pause(self) -> None:
        """Ask the Hub itself: a deployer that was stopped goes on a moment before its heartbeats do."""
        paused, self._looked = time.monotonic() - self._looked, time.monotonic()
        if not self.held or paused < LIMIT_S / 2:
            return
        answer = self._call("beat", self.id).document or {}
        if answer.get("lost"):
            self._lost = str(answer["error"]["message"])

    def release(self, record: Mapping[str, Any]) -> None:
        """Keep the final record on the Hub and give the lock back. Never raises; `said` tells what failed."""
        if not self.held:
            return
        self.held = False
        if self._beats is not None:
            self._beats.end(_CALL_TIMEOUT_S)
        document = {"record": dict(record), "settled": self.settled}
        reply = self._call("close", self.id, stdin=json.dumps(document))
        if reply.status != 0:
            self.said.append(
                f"the record could not be kept on the Hub ({reply.why}); "
                f"the lock frees itself after {LIMIT_S} s"
            )
            return
        told = (reply.document or {}).get("audit_log")
        self._logged(told)
        if self.log is not None and told is not None:
            audit_log.show_head(self.log, told)

    def _logged(self, told: Mapping[str, Any] | None) -> None:
        """Say when what was done is not in the audit log; it is done all the same."""
        why = audit_log.noted(self.log, told) if self.log is not None else ""
        if why and why not in self.said:
            self.said.append(why)

    def _tell(self, message: Mapping[str, Any]) -> None:
        if self._beats is not None:
            self._beats.tell(message)

    def _call(self, *words: str, stdin: str = "") -> ssh.Reply:
        assert self.hub is not None  # noqa: S101 -- only held with one
        command = [ssh.TOOL, "deployment", *words, "--json"]
        return ssh.run(self.hub, command, stdin=stdin, timeout_s=_CALL_TIMEOUT_S)


def _configuration(fleet: Fleet, given: Collection[str]) -> tuple[dict[str, Any] | None, str]:
    """What is to be deployed, for the audit log, or why not; that refuses no deployment."""
    try:
        return snapshot_of(fleet, given), ""
    except OSError as error:
        return None, f"the audit log gets no snapshot of the configuration: {error}"
