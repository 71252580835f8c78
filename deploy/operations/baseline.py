"""Part `baseline`: what every Linux host needs before a service is put on it.

One fact tells all there is to know, `deploy/baseline/plan.py` decides, the operations do; so does the role.
Firewall, sshd and kernel settings are a generation like a service's: activated first, confirmed last.
"""
# mypy: disable-error-code="misc,untyped-decorator"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable, Mapping
from typing import Any

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, deploy, operation
from pyinfra.api.exceptions import DeployError

from deploy.baseline import apt, steps
from deploy.baseline.plan import (
    Observed,
    ReleaseToolMissingError,
    managed_files,
    observed,
    packages_of_baseline,
    plan,
    question,
    system_problem,
)
from deploy.baseline.steps import Step
from deploy.fleet.rendering import render
from deploy.operations.context import variables


class BaselineState(FactBase[Observed]):
    """Everything baseline wants to know about a host, in one command."""

    def command(self, packages: tuple[str, ...]) -> str:
        """Shell text whose output lines `process` reads."""
        return f"sh -c {shlex.quote(question(packages))}"

    @staticmethod
    def default() -> Observed:
        """What is assumed when the command printed nothing."""
        return Observed()

    def process(self, output: Iterable[str]) -> Observed:
        """Make sense of the command's lines."""
        return observed(output)


@operation()
def brought(todo: Iterable[Step]) -> Generator[StringCommand, None, None]:
    """Do steps of the plan, one command each."""
    for step in todo:
        with_input = {"_stdin": step.stdin} if step.stdin else {}
        yield StringCommand("sh", "-c", shlex.quote(step.script), **with_input)


@operation()
def packages_present(missing: Iterable[str]) -> Generator[StringCommand, None, None]:
    """Install Debian packages; the package lists are fetched only when those at hand do not do."""
    names = " ".join(shlex.quote(name) for name in missing)
    if names:
        install = (
            f"DEBIAN_FRONTEND=noninteractive apt-get install -y -q {apt.WAITS} --no-install-recommends "
            f"-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold {names}"
        )
        yield StringCommand("sh", "-c", shlex.quote(apt.patient(install)))


def observe() -> Observed:
    """What the current host is like, asked once a run (also about the packages that later parts want)."""
    names = wanted_packages(variables(host.name))
    now: Observed = host.get_fact(BaselineState, packages=names)
    return now


def wanted_packages(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Every Debian package that any part wants on a host with these variables."""
    return tuple(sorted({*packages_of_baseline(settings), *packages_of_monitoring(settings)}))


def packages_of_monitoring(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Debian packages of the part `monitoring` on a host with these variables."""
    on_hub = settings["monitoring_packages_hub"] if "hub" in settings["group_names"] else ()
    return (*settings["monitoring_packages"], *on_hub)


@deploy("Baseline")
def baseline_installed() -> None:
    """Put on the current host what has to be there before any generation is staged."""
    settings = variables(host.name)
    if settings["fleet_instance"]:
        return  # the machine's baseline is that of its first host
    try:
        files = managed_files(lambda template: render(template, settings))
    except ReleaseToolMissingError as error:
        raise DeployError(str(error)) from None
    names = packages_of_baseline(settings)
    now = observe()
    if problem := system_problem(now.system, names):
        raise DeployError(f"{host.name} {problem}")
    todo = plan(files, names, now)
    # Files before packages: a package starts its service at once, which must find its configuration.
    brought(steps.layout(todo, files), name="Files and directories")
    packages_present(name="Packages", missing=todo.packages)
    brought(steps.account(todo), name="User mt5crs")
    brought(steps.notice(todo), name="Firewall, sshd, kernel settings, journal, time")
