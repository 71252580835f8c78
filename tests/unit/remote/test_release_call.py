import re
from pathlib import Path

import pytest

from deploy.remote.release_call import call_of

LINUX = "/usr/local/sbin/mt5crs-release"
WINDOWS = '& "C:\\Program Files\\Python\\python.exe" "C:\\mt5crs\\bin\\mt5crs-release.pyz"'


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ([LINUX, "activate", "gateway", "--json"], ("activate", "gateway")),
        ([LINUX, "undo", "--dry-run", "--json"], ("undo", "")),
        (f"if [ -x {LINUX} ]; then {LINUX} status --json; else echo '{{}}'; fi", ("status", "")),
        (f"{WINDOWS} confirm gateway --json", ("confirm", "gateway")),
        (f"{WINDOWS} undo --json", ("undo", "")),
        ([LINUX, "extend", "baseline", "--json"], ("extend", "baseline")),
        ([LINUX, "list", "gateway", "--json"], None),
        (["systemctl", "restart", "mt5crs-gateway"], None),
        (None, None),
    ],
)
def test_a_call_of_the_release_tool_is_recognised_on_both_systems(
    command: object, call: tuple[str, str] | None
) -> None:
    assert call_of(command) == call


def test_every_call_of_the_roles_is_recognised() -> None:
    roles = Path(__file__).resolve().parents[3] / "roles"
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(roles.rglob("*.yml")))
    verbs = set(re.findall(r"_release(?:_windows)?_tool(?:,| \+ \[) ?'([a-z-]+)'", text))
    assert {"activate", "confirm", "undo"} <= verbs
    assert {verb for verb in verbs if call_of([LINUX, verb, "baseline"]) is None} == set()
