"""Deploys the fleet: `pyinfra -y inventory/<environment>.py deploy.py` (`--dry` without -y only looks).

Each line below is done on every host before the next one begins. Nothing is activated before everything is
staged; then it goes step by step (--data strategy=…), each checked before the next one. Nothing is confirmed
before everything is healthy, and a failure puts back what was activated.
"""

from deploy.operations import locking, planning, run, safeguard, stepping, windows
from deploy.operations.baseline import baseline_installed
from deploy.operations.monitoring import monitoring_packages
from deploy.operations.release import bring_bundles, looked_at, put_back, services, upload_bundle

rollout = run.begin("deploy")
plan = planning.plan(rollout)

locking.take(rollout, last=False)
# By Ansible, since pyinfra does Linux only; they take their turn in the steps like the others.
windows.prepare(rollout, run.windows_targets())

baseline_installed()
monitoring_packages()
locking.take(rollout, last=True)
safeguard.back_up(rollout, plan)

bring_bundles(rollout, plan)
upload_bundle(rollout)
for service in services():
    service.stage(rollout)

for step in stepping.steps(rollout, plan):
    windows.activate(rollout, plan, step)
    for service in services():
        service.activate(rollout, step)

windows.confirm(rollout, run.windows_targets())
# Who is admitted during the change is so until every service has made it.
for service in services(last="baseline"):
    service.confirm(rollout)

put_back(rollout, name="Put back")
windows.put_back(rollout, run.windows_targets())
looked_at(rollout, name="Put back | look at what runs again")
