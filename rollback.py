"""Returns a part to its previous generation, or the fleet to what ran before a deployment.

    pyinfra -y inventory/<environment>.py rollback.py --data part=reconciler
    pyinfra -y inventory/<environment>.py rollback.py --data part=fleet

A part: code, .env and unit go back together, all other parts keep running; `--data to=<generation>` names
another generation. The fleet: everything that the newest deployment brought goes back, on all hosts at once;
`--data deployment=<id>` names another one. Who may connect to a gateway stays as it is; `part=access` puts
its earlier access list in force again, `--data access=back` does so together with the fleet. `--limit HOST`
takes one host. The same as rollback.yml with a tag.
"""

from pyinfra import host

from deploy.operations import fleet_rollback, locking, run, windows
from deploy.operations.release import service_named

rollout = run.begin("rollback")
locking.take(rollout, last=True)
if host.data.get("part") == "fleet":
    fleet_rollback.roll_back(rollout, host.data.get("deployment"), host.data.get("access"))
else:
    try:
        part = service_named(host.data.get("part"))
    except ValueError as error:
        raise run.refusal(rollout, run.not_begun(str(error))) from None
    to = host.data.get("to")
    targets = run.windows_targets() if part.name == "gateway" else ()
    windows.ask_rollback(rollout, targets, to, part.goes_back_by)
    part.ask_rollback(rollout, to)
    windows.rollback(rollout, targets, to, part.goes_back_by)
    part.rollback(rollout, to)
