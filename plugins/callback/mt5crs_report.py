"""Callback: one line per play, the final table and the kept report, the same as a pyinfra run shows.

Enabled in ansible.cfg; speaks up for site.yml and rollback.yml only. Reads the release tool's answers from
the results of the tasks; tasks with secrets are hidden from it as from everyone.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.callback import CallbackBase
from ansible.utils.vars import load_extra_vars

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.controller import extra_vars, tags
from deploy.controller.stopping import StopRequests
from deploy.coordination import interrupted
from deploy.coordination.audit_log import Reach
from deploy.coordination.deadlines import Deadlines
from deploy.coordination.fleet_lock import FleetLock
from deploy.fleet.inventory import InventoryError, explain, files_of, require_file, resolve
from deploy.fleet.vault_password import environment_of, vault_files
from deploy.remote import ssh
from deploy.remote.release_call import LOOK_AGAIN, call_of, document_of, not_told
from deploy.reporting import report
from deploy.rollout import undo_steps
from deploy.rollout.answer import ToolAnswer, apply
from deploy.rollout.batches import BASELINE
from deploy.rollout.record import DEPLOYMENT, Failure, Phase, Rollout, failure_of
from deploy.rollout.transfers import Transfer
from mt5crs.foreign_text import safe

DOCUMENTATION = """
name: mt5crs_report
type: aggregate
short_description: Narrates a deployment and keeps its record under reports/
description:
  - One line per play, a table of services at the end, a record and a report of every run.
"""

LAB_INVENTORY = Path("inventory/lab.yml")
ACTIONS = {"site.yml": "deploy", "rollback.yml": "rollback"}
OPERATE = "operate.yml"
"""Keeps no record; only its words are checked."""
_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TOUCHING = ("Activate", "Move back", "Judge", "Confirm", "Put back", "Roll back")
"""How the plays begin that change what runs."""
_ON_LINUX = "host_command"
"""What makes calls there; on Windows nobody asks what became of a lost one, so that has failed."""
_GOING_BACK = re.compile(r"(?:^|: )Roll back \w+$")
STEP = "Activate "
"""How the plays begin whose batches are the steps of the plan, one after the other."""
_REMEDY = "Ansible's own message is above; run again with -vvv to see what was asked and answered"
# Staging on Windows has secrets among its arguments: of its result only the name of the task is to be seen.
_STAGING = re.compile(r"(?:^|: )Stage ([\w-]+)$")


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Fills a Rollout from Ansible's events."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "mt5crs_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.rollout: Rollout | None = None
        self.play = ""
        self.began = 0.0
        self.hosts: set[str] = set()
        self.changed: set[str] = set()
        self.failed: set[str] = set()
        self.task_began: dict[tuple[str, str], float] = {}
        self.host_began: dict[str, float] = {}
        self.host_ended: dict[str, float] = {}
        self.steps: list[str] = []
        self.lock = FleetLock(None, "")
        self.deadlines = Deadlines(LAB_INVENTORY)
        self.process = os.getpid()
        self.stopping = StopRequests()
        self.inventory = Path()

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Begin a record if it is one of our playbooks."""
        playbook_name = Path(playbook._file_name).name
        action = ACTIONS.get(playbook_name)
        if (
            (action is None and playbook_name != OPERATE)
            or context.CLIARGS.get("syntax")
            or context.CLIARGS.get("listtasks")
        ):
            return
        sys.stdout, sys.stderr = (
            safe(sys.stdout),
            safe(sys.stderr),
        )  # also what Ansible itself shows of a task
        named = [tag for option in ("tags", "skip_tags") for tag in context.CLIARGS.get(option) or ()]
        wrong = tags.unknown(Path(playbook._file_name), named)
        wrong = wrong or extra_vars.leftover(context.CLIARGS.get("extra_vars") or ())
        if wrong:
            self._display.error(wrong)
            raise SystemExit(1)
        if action is None:
            return
        try:
            for source in (
                () if files_of(context.CLIARGS["inventory"]) else context.CLIARGS["inventory"] or ()
            ):
                require_file(Path(source))
        except InventoryError as error:
            self._display.error(str(error))
            raise SystemExit(1) from None
        self.inventory = next(iter(files_of(context.CLIARGS["inventory"])), LAB_INVENTORY)
        self.deadlines = Deadlines(self.inventory)
        self._open_vaults(playbook._loader, self.inventory)
        dry = bool(context.CLIARGS.get("check"))
        self.rollout = Rollout("ansible", environment_of(self.inventory), action=action, dry=dry)
        os.environ.setdefault(DEPLOYMENT, self.rollout.id)
        here = Path.cwd()
        near = self.inventory.is_relative_to(here)
        self.rollout.inventory = str(self.inventory.relative_to(here) if near else self.inventory)
        self.rollout.why = str(load_extra_vars(playbook._loader).get("why") or "")
        ssh.control_directory()  # made here, so that it ends with this process and not with a task's
        for number in _STOP:
            signal.signal(number, self._told_to_stop)
        atexit.register(self._given_up)

    def _open_vaults(self, loader: Any, inventory: Path) -> None:
        """End at once when a vault does not open: Ansible's own error names neither vault nor password."""
        for vault in vault_files(inventory):
            try:
                loader.load_from_file(str(vault))
            except AnsibleError as error:
                self._display.error(explain(inventory, error))
                raise SystemExit(1) from None

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Close the phase before, open this one."""
        self._close()
        self.play, self.began = play.get_name(), time.monotonic()
        if self.rollout is None:
            return
        self._still_ours()
        if self.rollout.failed:
            self.deadlines.end()
        if self.play.startswith("Confirm") and not self.lock.decision and not self.rollout.failed:
            if self.rollout.action == "rollback":
                self.lock.decide_to_roll_back(undo_steps.held(self.rollout))
            else:
                self.lock.decide_to_confirm(self.rollout)
        elif not self.play.startswith("Confirm"):
            self.lock.phase(self.play.lower(), self.rollout)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Every host has said that it can go back once the first of these tasks begins."""
        del is_conditional
        if self.rollout is None or self.rollout.failed or self.rollout.dry:
            return
        known = self.lock.decision.get("provisional", ())
        if _GOING_BACK.search(task.get_name()) and len(self.rollout.way_back) > len(known):
            self.lock.decide_to_roll_back(self.rollout.way_back)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Remember when a task began on a host, for its span."""
        now = time.monotonic()
        self.task_began[host.get_name(), task._uuid] = now
        self.host_began.setdefault(host.get_name(), now)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Count the host; read the release tool's answer if the task called it."""
        self._seen(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Note the failure, with the tool's own explanation if there is one."""
        self._seen(result)
        if self.rollout is None or ignore_errors:
            return
        host = result._host.get_name()
        self.failed.add(host)
        if any(failure.host == host for failure in self.rollout.failures):
            return
        name, data = result._task.get_name(), result._result
        answer = document_of(str(data.get("msg", "")))
        if answer is not None:
            self.rollout.fail(failure_of(host, name, answer, ""))
        else:
            remedy = "" if call_of(data.get("cmd")) is None else _REMEDY
            self.rollout.fail(Failure(host, name, _reason(data), remedy))

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host that cannot be reached is a failure of the run."""
        if self.rollout is not None:
            host = result._host.get_name()
            task = result._task
            if task.action == _ON_LINUX and task.ignore_unreachable:
                self.hosts.add(host)
                return  # the next task finds out what became of it
            self.failed.add(host)
            message = str(result._result.get("msg", "unreachable")).strip()
            self.rollout.fail(Failure(host, task.get_name(), message, "check the host and the network"))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Close the last phase, print the end, keep the record."""
        self._close()
        rollout = self.rollout
        if rollout is not None:
            self._finish(rollout)
            if rollout.failed and not stats.failures and not stats.dark:
                raise SystemExit(1)  # no task has failed, so Ansible takes it for a success

    def _finish(self, rollout: Rollout) -> None:
        """Show how it ended, keep the record on the Hub, give the lock back; once."""
        self.rollout = None
        self.deadlines.end()
        report.finish(rollout)
        self.lock.release({**rollout.record(), "sentence": report.sentence(rollout)})
        for line in (*self.deadlines.said, *self.lock.said):
            self._display.display(line)

    def _given_up(self) -> None:
        """At the end of the process: a run that did not come to its end was given up by Ansible."""
        if self.rollout is not None and os.getpid() == self.process:
            reason = "Ansible gave the run up; its own message is above"
            self.rollout.fail(Failure("controller", self.play or "prepare", reason))
            self._finish(self.rollout)

    def _told_to_stop(self, number: int, _frame: object) -> None:
        """Put back what is not confirmed, or finish what was decided; asked again, leave at once."""
        if os.getpid() != self.process:
            os._exit(128 + number)
        if not self.stopping.is_new():
            return
        again = self.stopping.asked > 1
        # The tasks' processes have sessions of their own. What they began on the hosts goes on without them.
        for worker in multiprocessing.active_children():
            worker.terminate()
        if self.rollout is not None and not again:
            self.rollout.interrupted = True
            if self.lock.held and not self.lock.lost and self.play.startswith(_TOUCHING):
                try:
                    self._settle(self.rollout)
                except Exception as error:  # whatever it is, the record is kept and the lock given back
                    remedy = "run again: the next run settles what is left"
                    self.rollout.fail(Failure("fleet", "settle", f"{type(error).__name__}: {error}", remedy))
        if self.rollout is not None:
            self._finish(self.rollout)
        raise SystemExit(128 + number)

    def _settle(self, rollout: Rollout) -> None:
        """What the next run would do otherwise, over connections of its own."""
        finish, record = interrupted.left(rollout, self.lock.decision)
        what = "what was decided is finished" if finish else "what was activated is put back"
        self._display.display(
            f"interrupted: {what}; once more to leave at once (the next run then does it)", stderr=True
        )
        interrupted.settle(rollout, resolve(self.inventory), record, self._display.display, finish=finish)

    def _still_ours(self) -> None:
        """End the run here and now when it has lost the fleet's lock: the new holder settles the rest."""
        assert self.rollout is not None  # noqa: S101 -- only called with one
        self.lock.check(self.rollout)
        if self.rollout.lock_lost:
            self._finish(self.rollout)
            raise SystemExit(1)

    def _seen(self, result: Any) -> None:
        if self.rollout is None:
            return
        host = result._host.get_name()
        self.hosts.add(host)
        self.host_ended[host] = time.monotonic()
        data = result._result
        self._told(data)
        if data.get("changed"):
            self.changed.add(host)
        call = call_of(data.get("cmd"))
        staging = _STAGING.search(result._task.get_name()) if call is None else None
        if staging is not None and not data.get("failed"):
            began = self.task_began.get((host, result._task._uuid), time.monotonic())
            self.rollout.spent(
                host, staging[1], "stage", began, "changed" if data.get("changed") else "unchanged"
            )
        if call is None:
            return
        answer = document_of(str(data.get("stdout", "")))
        if call.verb == "status":
            self._looked(host, answer, data)
        elif call.verb == "check":
            if data.get("rc") != 0:
                self.rollout.fail(failure_of(host, LOOK_AGAIN, answer, _output(data)))
                self.failed.add(host)
        elif call.verb == "undo":
            self._undone(host, result, answer)
        else:
            began = self.task_began.get((host, result._task._uuid), time.monotonic())
            good = data.get("rc") == 0 and answer is not None
            asked = "--dry-run" in data.get("cmd", ()) and not self.rollout.dry
            seconds = time.monotonic() - began
            self._answered(ToolAnswer(host, *call, good, answer, _output(data), seconds, asked), data["cmd"])

    def _looked(self, host: str, answer: dict[str, Any] | None, data: dict[str, Any]) -> None:
        """What runs on a host; one that cannot say so has failed, whatever Ansible makes of it."""
        assert self.rollout is not None  # noqa: S101 -- only called with one
        if data.get("rc") == 0 and answer is not None:
            self.rollout.seen(host, answer)
            return
        self.rollout.fail(not_told(host, answer, _output(data)))
        self.failed.add(host)

    def _told(self, data: dict[str, Any]) -> None:
        """Show what the plan and the checks between its steps have said; note a failed check."""
        assert self.rollout is not None  # noqa: S101 -- only called with one
        for line in data.get("rollout_said", ()):
            self._display.display(line if line.startswith(("plan ", "  ")) else f"  {line}")
        self.rollout.brought(Transfer(**one) for one in data.get("rollout_transfers", ()))
        failure = data.get("rollout_failure")
        if failure is not None:
            self.rollout.fail(Failure(**{**failure, "journal": tuple(failure["journal"])}))
            self.failed.add(failure["host"])
        self.rollout.undoes = str(data.get("rollout_undoes") or self.rollout.undoes)
        taken = data.get("fleet_lock")
        if taken and not self.lock.held:
            log = Reach(**taken["log"]) if taken["log"] else None
            self.lock = FleetLock(taken["hub"], self.rollout.id, held=True, settled=taken["settled"], log=log)
            self.lock.watch()
        plan = data.get("rollout_plan")
        if plan is not None:
            self.rollout.strategy, self.rollout.plan = str(plan["strategy"]), str(plan["id"])
            self.rollout.steps = [
                {"name": str(step["name"]), "hosts": list(step["hosts"])} for step in plan["steps"]
            ]
            self.steps = [str(step["name"]) for step in plan["steps"]]
            self.rollout.foretell(plan["foretold"])

    def _answered(self, answer: ToolAnswer, command: Any) -> None:
        assert self.rollout is not None  # noqa: S101 -- only called with one
        apply(self.rollout, answer)
        if not answer.good:
            self.failed.add(answer.host)
            return
        if answer.told_at_once:
            self._display.display(answer.told_at_once)
        entry = self.rollout.result(answer.host, answer.service)
        # Windows gateways, which are told of as one line of text, have got their time beforehand.
        # A generation that decides who gets in waits from the moment that a new connection has let us in.
        if (
            answer.verb == ("extend" if answer.service == BASELINE else "activate")
            and entry.waits
            and command[0] == ssh.TOOL
        ):
            timeout_s = float(command[command.index("--confirm-timeout") + 1])
            self.deadlines.waits(answer.host, answer.service, entry.generation, timeout_s)

    def _undone(self, host: str, result: Any, answer: Any) -> None:
        """A step of undoing a deployment has ended on a host."""
        assert self.rollout is not None  # noqa: S101 -- only called with one
        data = result._result
        began = self.task_began.get((host, result._task._uuid), time.monotonic())
        step, good = undo_steps.step_of(data["cmd"]), data.get("rc") == 0 and answer is not None
        undo_steps.note(self.rollout, host, step, answer, _output(data), good=good, since=began)
        if not good:
            self.failed.add(host)
        command = data["cmd"]
        if good and step == undo_steps.HOLD and command[0] == ssh.TOOL:
            timeout_s = float(command[command.index("--hold") + 1])
            for (on, service), generation in undo_steps.held(self.rollout).items():
                if on == host:
                    self.deadlines.waits(host, service, generation, timeout_s)

    def _close(self) -> None:
        """Print the line of the play that ends."""
        if self.rollout is not None and self.play and self.hosts:
            seconds = time.monotonic() - self.began
            if self.play.startswith(STEP) and self.steps:
                self.play = f"{STEP}{self.steps.pop(0)}"
            phase = Phase(self.play, len(self.hosts), len(self.changed), seconds, len(self.failed))
            self.rollout.phases.append(phase)
            self._display.display(report.phase_line(phase))
            if self.play == "Baseline":
                self._spans()
        self.play = ""
        self.hosts, self.changed, self.failed = set(), set(), set()
        self.task_began, self.host_began, self.host_ended = {}, {}, {}

    def _spans(self) -> None:
        """What concerns a host as a whole has no release tool's call that records its step."""
        assert self.rollout is not None  # noqa: S101 -- only called with one
        for host, began in self.host_began.items():
            outcome = "failed" if host in self.failed else "changed" if host in self.changed else "unchanged"
            ended = self.host_ended.get(host, time.monotonic())
            self.rollout.spent(host, "", "baseline", began, outcome, until=ended)


def _output(data: dict[str, Any]) -> str:
    """What a command printed; Ansible's own words if it could not even be run."""
    said = f"{data.get('stdout', '')}\n{data.get('stderr', '')}"
    return said if said.strip() else str(data.get("msg", ""))


def _reason(data: dict[str, Any]) -> str:
    """Why a task failed, from what Ansible tells of it."""
    if data.get("attempts"):
        otherwise = f"not as it should be after {data['attempts']} tries"
    else:
        otherwise = str(data.get("changed_when_result") or "it failed and gave no reason")
    return str(data.get("msg") or data.get("stderr") or otherwise)
