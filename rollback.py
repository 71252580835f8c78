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
if part.name == "gateway":
    windows.roll_back(rollout, run.windows_targets(), host.data.get("to"))
part.ask_rollback(rollout, host.data.get("to"))
part.rollback(rollout, host.data.get("to"))
