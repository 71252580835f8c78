"""Part `monitoring`: node exporter on every host, Prometheus and Alertmanager on the Hub.

Debian's packages, with configuration and sandbox shipped as a generation. Same outcome as `roles/monitoring`.
"""
# mypy: disable-error-code="untyped-decorator"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploy.operations.baseline import observe, packages_of_monitoring, packages_present
from deploy.operations.context import variables


@deploy("Monitoring")
def monitoring_packages() -> None:
    """Install what the current host's monitoring needs; its configuration comes with the generation."""
    if variables(host.name)["fleet_instance"]:
        return  # the machine has its own
    wanted = packages_of_monitoring(variables(host.name))
    packages_present(name="Packages", missing=sorted(set(wanted) - observe().packages))
