"""Whether all that runs on a host is healthy: asked once everything has gone back that has to."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from mt5crs_release.errors import FailedError
from mt5crs_release.generations.session import open_session
from mt5crs_release.lifecycle.health import patiently, watch_all
from mt5crs_release.storage.paths import Host


def check(host: Host, service: str | None, *, wait_s: float) -> dict[str, Any]:
    """Wait until ``service``, or each service of the host, is healthy by the policy of what it runs.

    :raises FailedError: one is not
    :raises BusyError: another run is at work on one of them
    """
    with ExitStack() as stack:
        # In one order, as every command that takes several.
        names = [service] if service else host.services()
        opened = [stack.enter_context(open_session(host, name, "check", wait_s=wait_s)) for name in names]
        runs = {s.service: s.content(s.state.current) for s in opened if s.state.current is not None}
        sessions = [session for session in opened if session.service in runs]
        reports = watch_all([patiently(s, runs[s.service]) for s in sessions], give_up=False)
        services = {
            name: {"generation": runs[name].name, "health": report.as_json()}
            for name, report in reports.items()
        }
        bad = [name for name, report in reports.items() if not report.healthy]
        if bad:
            units = [unit for name in bad for unit in runs[name].start]
            raise FailedError(
                "; ".join(
                    f"{name} runs {runs[name].name}, which is not healthy: {reports[name].reason}"
                    for name in bad
                ),
                remedy="read the journal lines; what it depends on may be down",
                details={"services": services, "journal": sessions[0].systemd.last_lines(units)},
            )
        return {"changed": False, "services": services}
