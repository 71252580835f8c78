"""Returns a part to its previous generation, or the fleet to what ran before a deployment.

    pyinfra -y inventory/<environment>.py rollback.py --data part=reconciler
    pyinfra -y inventory/<environment>.py rollback.py --data part=fleet

A part: code, .env and unit go back together, all other parts keep running; `--data to=<generation>` names
another generation. The fleet: everything that the newest deployment brought goes back, on all hosts at once;
`--data deployment=<id>` names another one. `--limit HOST` takes one host. The same as rollback.yml with a
tag.
"""

from pyinfra import host

from deploy import fleet_rollback, locking, run, windows
from deploy.release import service_named

rollout = run.begin("rollback")
locking.take(rollout, last=True)
if host.data.get("part") == "fleet":
    fleet_rollback.roll_back(rollout, host.data.get("deployment"))
else:
    try:
        part = service_named(host.data.get("part"))
    except ValueError as error:
        raise run.refusal(rollout, str(error)) from None
    if part.name == "gateway":
        windows.roll_back(rollout, run.windows_targets(), host.data.get("to"))
    part.ask_rollback(rollout, host.data.get("to"))
    part.rollback(rollout, host.data.get("to"))
