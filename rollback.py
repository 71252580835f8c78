"""Returns a part to its previous generation.

    pyinfra -y inventory/<environment>.py rollback.py --data part=reconciler

Code, .env and unit go back together, all other parts keep running. `--data to=<generation>` names another
generation, `--limit HOST` takes one host. The same as rollback.yml with a tag.
"""

from pyinfra import host

from deploy import run, windows
from deploy.release import service_named

rollout = run.begin("rollback")
part = service_named(host.data.get("part"))
to = host.data.get("to")
targets = run.windows_targets() if part.name == "gateway" else ()
windows.ask_rollback(rollout, targets, to)
part.ask_rollback(rollout, to)
windows.rollback(rollout, targets, to)
part.rollback(rollout, to)
