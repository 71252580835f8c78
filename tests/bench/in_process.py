"""`python -m tests.bench.in_process`: the gateway with the simulated broker in its own process.

Nothing is deployed so: it shows what the terminal process costs, in one run beside a gateway that has one.
"""

from pathlib import Path

from mt5crs.broker.sim.backend import SimulatedBroker
from mt5crs.gateway import service
from mt5crs.gateway.__main__ import main
from mt5crs.service import exits
from mt5crs.settings.gateway import GatewaySettings


class InProcess(SimulatedBroker):
    """What the gateway asks of its terminal process beside the broker itself."""

    def launch(self) -> None:
        """There is no process."""

    def down(self) -> str:
        """Never."""
        return ""

    def waiting_s(self) -> float:
        """Not known: the call is made by the thread that would be asked."""
        return 0.0


def open_broker(settings: GatewaySettings, _: object) -> tuple[InProcess, int, str]:
    """In place of `mt5crs.gateway.service.open_broker`."""
    simulator = service._simulator(settings, settings.state_dir)
    broker = InProcess(Path(simulator.directory), simulator.profile, allow_faults=simulator.allow_faults)
    return broker, settings.sim_login, settings.sim_server


if __name__ == "__main__":
    service.open_broker = open_broker  # type: ignore[assignment]
    exits.leave(main())
