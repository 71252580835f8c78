"""`mt5crs … config export` and `import`: settings as files that other programs, or older set-ups, have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.commands.named_fleet import fleet_of, inventory_named
from mt5crs.settings.schema import instead

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet

_service_option = click.option(
    "--service", type=click.Choice(["gateway", "reconciler", "strategy"]), help="One service of the host."
)


def _host_of(fleet: Fleet, host: str) -> None:
    if host not in fleet.hosts:
        raise click.UsageError(f"{fleet.inventory} has no host {host}{instead(host, fleet.hosts)}")


def _services(fleet: Fleet, host: str, service: str | None) -> list[str]:
    """The services of a host that read an `.env`; UsageError when it has not the named one, or none."""
    from deploy.fleet.exchange import services_with_env
    from deploy.rollout.plan import has_service

    there = [name for name in services_with_env() if has_service(fleet, host, name)]
    if service is not None and service not in there:
        raise click.UsageError(f"{host} has no {service}; it has {', '.join(there) or 'no such service'}")
    if not there:  # a host of none of the three groups
        raise click.UsageError(f"{host} has no service that reads an .env")
    return [service] if service is not None else there


@click.command("export")
@click.argument("host")
@click.option("--format", "form", type=click.Choice(["env", "yaml"]), default="yaml", show_default=True)
@_service_option
@click.option("--secrets", is_flag=True, help="With the secrets themselves.")
def export(host: str, form: str, service: str | None, secrets: bool) -> None:
    """Print the settings of HOST: as the `.env` of its services, or as YAML by the names of the inventory.

    Secrets are masked unless --secrets asks for them. A masked file cannot be deployed.
    """
    from deploy.fleet.exchange import env_text, yaml_text
    from deploy.fleet.inventory import InventoryError
    from deploy.fleet.layers import HIDDEN, layers, shown
    from deploy.fleet.settings import PARTS, variables_of

    fleet = fleet_of(inventory_named())
    _host_of(fleet, host)
    variables = fleet.hosts[host]
    try:
        texts = shown(layers(fleet.inventory)[host], variables)
    except InventoryError as error:
        raise click.ClickException(str(error)) from None
    hidden = set() if secrets else {name for name, text in texts.items() if text == HIDDEN}
    if form == "env":
        names = _services(fleet, host, service)
        parts = [env_text(name, variables, hidden) for name in names]
        heads = [f"# {name}.env of {host}\n" if len(names) > 1 else "" for name in names]
        click.echo("\n".join(f"{head}{part}" for head, part in zip(heads, parts, strict=True)), nl=False)
        return
    chosen = [service] if service is not None else list(PARTS)
    if service is not None:
        _services(fleet, host, service)
    declared = {name for part in chosen for name in variables_of(part)}
    click.echo(yaml_text({name: variables[name] for name in declared if name in variables}, hidden), nl=False)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--host", required=True, help="Whose settings these are to be.")
@_service_option
def import_(file: Path, host: str, service: str | None) -> None:
    """Print what FILE, an `.env` or YAML of an older set-up, says otherwise than the inventory does of HOST.

    The output is meant for host_vars/HOST/. Nothing is written, and no secret is shown: each is named, for
    the vault. Every mistake is told at once, with its line. Exit status 1: there is one.
    """
    from deploy.fleet.exchange import new_text, read_env, read_yaml

    fleet = fleet_of(inventory_named())
    _host_of(fleet, host)
    services = _services(fleet, host, service)
    named = [name for name in services if file.name.startswith(name)]
    if len(services) > 1 and len(named) != 1:
        raise click.UsageError(f"whose settings are these? name one: --service {' or '.join(services)}")
    of = (named or services)[0]
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read as UTF-8 ({error})") from None
    read = (read_yaml if file.suffix in (".yml", ".yaml") else read_env)(text, of, str(file))
    if read.problems:
        raise click.ClickException("nothing was taken over:\n  " + "\n  ".join(read.problems))
    if not (read.settings or read.secrets or read.fixed):
        raise click.ClickException(f"{file} has no setting in it; is it the right file?")
    origins = {name: fleet.origins.get((host, name), "") for name in read.settings}
    lines = list(new_text(read, fleet.hosts[host], origins))
    for line in lines:
        click.echo(line)
    if not lines:
        click.echo(f"# {file} says nothing else than the inventory does")
    for name in read.secrets:
        click.echo(f"{name} is a secret: it belongs into the vault (`secrets edit`)", err=True)
    for name in read.fixed:
        click.echo(f"{name} is decided by the deployment, and left out", err=True)
