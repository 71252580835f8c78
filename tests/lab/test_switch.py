"""Nobody who asks loses a request while a service is switched to another generation and back."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from tests.lab.asking import Asker
from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

ASKED = {"gateway": "gtw-01", "reconciler": "inf-01"}


def test_every_request_is_answered_across_a_switch_and_a_rollback(fleet: Fleet) -> None:
    before = fleet.pids()
    fleet.override(gateway_heartbeat_interval_s=1.5, reconciler_recheck_interval_s=11.0)
    with asking(fleet) as askers:
        ran = fleet.pyinfra()
        assert ran.status == 0, ran.output[-3000:]
        moved = fleet.pids()
        gaps = {part: cutover_of_rollback(fleet, part) for part in ASKED}
    back = fleet.pids()
    for part, host in ASKED.items():
        assert len({pids[host, part] for pids in (before, moved, back)}) == 3  # it was switched, twice
        assert askers[part].result["asked"] > 100
        assert askers[part].result["lost"] == []
        assert 0 < gaps[part]["stopped_s"] <= gaps[part]["gap_s"]


def test_a_stopped_service_is_not_started_by_who_asks(fleet: Fleet) -> None:
    """And its port is shut, as people expect of a stop."""
    unit, host = "mt5crs-gateway.service", ASKED["gateway"]
    show = ["systemctl", "show", "-p", "ActiveState", "-p", "NFileDescriptorStore", "--value", unit]
    lab = fleet.lab
    assert lab.exec(host, show).stdout.split() == ["2", "active"]
    lab.exec(host, ["systemctl", "stop", unit])
    try:
        listening = lab.exec(host, ["ss", "-Hltn", "sport = :5555 or sport = :5556"]).stdout
        refused = lab.exec(
            "inf-01", ["bash", "-c", f"exec 3<>/dev/tcp/{lab.plan.host(host).address}/5555"], check=False
        )
        state = lab.exec(host, show).stdout.split()
    finally:
        lab.exec(host, ["systemctl", "start", unit])
    assert listening == ""
    assert "refused" in refused.stderr
    assert state == ["0", "inactive"]


@contextlib.contextmanager
def asking(fleet: Fleet) -> Any:
    """Ask both services, each as it is asked in production, while the body runs."""
    with contextlib.ExitStack() as stack:
        yield {part: stack.enter_context(Asker(fleet.lab, "inf-01", part)) for part in ASKED}


def cutover_of_rollback(fleet: Fleet, part: str) -> dict[str, float]:
    """Roll a service back on its host; what systemd says that cost it."""
    done = fleet.lab.exec(
        ASKED[part], ["/usr/local/sbin/mt5crs-release", "rollback", part, "--json"], timeout_s=90
    )
    gap: dict[str, float] = json.loads(done.stdout)["cutover"][f"mt5crs-{part}.service"]
    return gap
