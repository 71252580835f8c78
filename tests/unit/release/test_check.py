"""A service that needs another host is judged once everything has gone back, not while it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.release_host.host import FakeHost
from tests.unit.release.test_undo import FIRST, SECOND, spec


class Host(FakeHost):
    """A host whose services are healthy exactly as long as what they need, elsewhere, is there."""

    @property
    def needed(self) -> Path:
        return self.root / "needed"

    def activate(self, service: str, text: str, *options: str) -> tuple[int, dict[str, Any]]:
        made = spec(service, text)
        made["health"] |= {"command": ["test", "-e", str(self.needed)], "healthy_deadline_s": 2.0}
        status, _ = self.run("stage", service, spec=made)
        assert status == 0, self.last_output
        return self.run("activate", service, *options)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(FakeHost.create(tmp_path).root)
    made.needed.touch()
    for service in ("gateway", "reconciler"):
        assert made.activate(service, "one", "--deployment", FIRST, "--confirm-timeout", "0")[0] == 0
    return made


def test_in_a_deployment_who_needs_others_goes_back_without_waiting_for_them(host: Host) -> None:
    host.needed.unlink()
    status, failed = host.activate("reconciler", "two #fail", "--deployment", SECOND)
    assert (status, failed["restored_healthy"]) == (1, None)
    assert host.running("reconciler.service") == "one"
    status, sick = host.run("check", "reconciler")
    assert status == 1
    assert "reconciler runs 0001" in sick["error"]["message"]
    assert "not healthy" in sick["error"]["message"]
    host.needed.touch()
    status, well = host.run("check")
    assert (status, set(well["services"])) == (0, {"gateway", "reconciler"})


@pytest.mark.parametrize(("service", "options"), [("gateway", ("--deployment", SECOND)), ("reconciler", ())])
def test_anything_else_is_judged_at_once(host: Host, service: str, options: tuple[str, ...]) -> None:
    host.needed.unlink()
    status, failed = host.activate(service, "two #fail", *options)
    assert (status, failed["restored_healthy"]) == (1, False)
    assert "WHICH IS NOT HEALTHY EITHER" in failed["error"]["message"]
