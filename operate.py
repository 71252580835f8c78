"""Operates a fleet that is deployed; the same tasks as operate.yml, and the same commands.

    pyinfra -y inventory/<environment>.py operate.py --data do=halt --data why="…"
    pyinfra inventory/<environment>.py operate.py --data do=fleet

What each task has to be told is in deploy/controller/operating.py; without `do` all are listed. What only
looks needs no -y; `--dry` does nothing but look. It is done while pyinfra reads the inventory, before it
connects to any host: one that is down keeps nobody from being halted.
"""

from deploy.operations.operating import NOT_OURS

raise NOT_OURS
