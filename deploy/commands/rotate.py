"""`mt5crs --inventory … secrets rotate KIND`: another key or password, what restarts, what is revoked when.

Called again after an interruption each finishes what was begun. No secret is an argument, or shown.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path

import click

from deploy.commands.named_fleet import inventory_named
from deploy.commands.vault import consequences, deployment, one_sentence
from mt5crs.operate.acts import acted


class Kinds(click.Group):
    """A group that names the nearest kind when there is none of that name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a sentence of ours."""
        known = self.list_commands(ctx)
        if args and args[0] not in known:
            near = difflib.get_close_matches(args[0], known, n=1)
            told = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise click.UsageError(f"no kind of secret is called {args[0]!r}; {told}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Kinds)
def rotate() -> None:
    """Replace a key or password by its kind; say what restarts, what is to be deployed, what ends when."""


def _plan_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--plan", "dry", is_flag=True, help="Say what would happen, and change nothing.")(
        command
    )


@rotate.command()
@_plan_option
def vault(dry: bool) -> None:
    """Give the vault another password (256 random bits), and encrypt all that the former one opens anew."""
    from deploy.fleet.vault_password import password_file
    from deploy.vaults.password import rotate as rotated

    inventory = inventory_named()
    if dry:
        click.echo(
            f"{password_file(inventory)} gets a new password, and all that the former one opens "
            "is encrypted anew"
        )
    else:
        with one_sentence():
            done = rotated(inventory)
        if done.resumed:
            click.echo("a change of the password that was interrupted is finished")
        for path in done.files:
            click.echo(f"encrypted anew  {path}")
        click.echo(f"the password in force: {done.in_force}")
        click.echo(
            f"the former one: {done.former}; backups of until now open with it alone. Remove the file when "
            "they are gone (fleet_backup_keep_days)"
        )
    click.echo("nothing restarts and nothing is to be deployed: no host has the password")
    click.echo(
        "put the new password in your safe, and where others deploy from (controllers, CI), together with "
        "the vault: commit the files above"
    )
    click.echo(
        "who has the former password still reads older copies of the vault (git, backups): if it is lost, "
        "rotate what is in it as well"
    )
    if not dry:
        acted("vault.rekeyed", files=[path.name for path in done.files])


@rotate.command()
@click.argument("name", metavar="NAME|all")
@_plan_option
def client(name: str, dry: bool) -> None:
    """Make a new CURVE key for a client of the gateways, or for all.

    Old and new count together while the deployment is at it, so no request is lost.
    """
    _pair(name, dry=dry, kind="client")


@rotate.command()
@click.argument("name", metavar="NAME|all")
@_plan_option
def gateway(name: str, dry: bool) -> None:
    """Make a new CURVE key for a gateway, or for all.

    Its Inf hosts come first in the deployment and take both keys, so they miss its restart alone.
    """
    _pair(name, dry=dry, kind="gateway")


def _pair(name: str, *, kind: str, dry: bool) -> None:
    from deploy import keys

    inventory = inventory_named()
    with one_sentence():
        made = keys.rotate(inventory, kind, name, dry=dry)
    done = [each for of, each in (*made.plan.create, *made.plan.mended) if of == kind]
    for of, each in made.plan.create:
        click.echo(f"{'would be made' if dry else 'made'}  {of} {each}")
    for of, each in made.plan.mended:
        click.echo(f"{'would be finished' if dry else 'finished'}  {of} {each}: begun before, interrupted")
    if kind == "client":
        click.echo(
            "until it is deployed the old key counts; while the deployment is at it, both; once the "
            "gateways' generations are confirmed, the new one alone, and who holds the old one is thrown out"
        )
        if keys.OPERATOR in done:
            click.echo(
                f"commands of operators (halt, resume) take the old key of {keys.OPERATOR} until the new "
                "one is deployed; other controllers need the new vault from then on"
            )
    else:
        click.echo(
            "in the deployment the Inf hosts come before the gateway and take both keys until it is "
            "confirmed: they miss the gateway while it restarts, and an order whose answer is cut off is "
            "looked up. The Hub misses it until its own step, its page and its halts by alert with it; "
            "halts from here get through"
        )
        click.echo("the old key counts until the gateway's step, and never again; a rollback brings it back")
    if made.before:
        consequences(inventory, made.before, made.after if dry else None)
    if not dry:
        acted("secret.rotated", kind=kind, names=done)


_BOTH_SIGN = (
    "once it is deployed, posts have both signatures, the new one and that of before: no receiver "
    "refuses one. Give the receiver the new one (the first of the two that `secrets view --show` shows); "
    "the old one ends when the receiver takes it no more"
)
_TOLD = {
    "broker": (
        "change it at the broker first: there the old one ends at once. The terminal stays logged in until "
        "the deployment starts it anew with the new one; deploy before it has to log in again"
    ),
    "webhook": (
        "the old address counts until whoever gave it out withdraws it: do that once an alert has come "
        "through the new one"
    ),
    "watchdog": "the old address counts until the service elsewhere withdraws it; that one alerts meanwhile",
    "hub-watch": (
        "the old address counts until whoever gave it out withdraws it: do that once it is deployed"
    ),
    "signed-webhook": (
        "the old address counts until whoever gave it out withdraws it: do that once it is deployed"
    ),
    "webhook-secret": _BOTH_SIGN,
    "hub-watch-secret": _BOTH_SIGN,
    "windows-account": "the old password ends when the deployment sets the new one on the host",
}


def _replace(kind: str, name: str | None, file: Path | None, *, dry: bool) -> None:
    from deploy.fleet.inventory import resolve
    from deploy.vaults import replacing, store, text

    inventory = inventory_named()
    made_here = kind in replacing.MADE_HERE

    def value(old: str) -> str:
        if made_here:
            return replacing.made(kind, old)
        if file is not None:
            return replacing.from_file(file)
        if not sys.stdin.isatty():
            raise store.VaultError(
                "no terminal to ask for the new value: write it to a file of yours (0600), --from-file FILE"
            )
        given: str = click.prompt("new value", hide_input=True, confirmation_prompt=True, err=True)
        return given

    with one_sentence():
        fleet = resolve(inventory)
        place = replacing.find(fleet, text.values(store.open_vault(inventory).text), kind, name)
        click.echo(f"{place.entry}: {place.setting} of {', '.join(place.hosts)}")
        click.echo(_TOLD[kind])
        if dry:
            return
        path, before = replacing.replace(inventory, place, value)
    click.echo(f"changed  {place.entry}")
    consequences(inventory, {path: before})
    acted("secret.rotated", kind=kind, names=[place.entry])


def _of_others(kind: str, what: str) -> click.Command:
    @click.command(kind, help=f"Replace {what}: asked for on the terminal without echo, or from a file.")
    @click.argument("name", required=False)
    @click.option(
        "--from-file",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Where the new value is, alone in a file of yours, mode 0600.",
    )
    @_plan_option
    def command(name: str | None, file: Path | None, dry: bool) -> None:
        _replace(kind, name, file, dry=dry)

    return command


for _kind, _what in (
    ("broker", "the password of the account at the broker"),
    ("webhook", "the address that alerts are posted to"),
    ("watchdog", "the address that the Hub's sign of life is posted to"),
    ("signed-webhook", "the address that signed alerts are posted to"),
    ("hub-watch", "the address that Inf hosts post to when they hear nothing of the Hub"),
):
    rotate.add_command(_of_others(_kind, _what))


@rotate.command("webhook-secret")
@click.argument("name", required=False)
@_plan_option
def webhook_secret(name: str | None, dry: bool) -> None:
    """Make a new secret that alerts are signed with; the old one signs beside it, until the next rotation."""
    _replace("webhook-secret", name, None, dry=dry)


@rotate.command("hub-watch-secret")
@click.argument("name", required=False)
@_plan_option
def hub_watch_secret(name: str | None, dry: bool) -> None:
    """Make a new secret that Inf hosts sign with what they tell of the Hub; the old one signs beside it."""
    _replace("hub-watch-secret", name, None, dry=dry)


@rotate.command("windows-account")
@click.argument("name", required=False)
@_plan_option
def windows_account(name: str | None, dry: bool) -> None:
    """Make a new password for the account that a Windows gateway runs as."""
    _replace("windows-account", name, None, dry=dry)


@rotate.command()
@click.option(
    "--new",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Public half of the new key (FILE.pub): admitted beside the old one.",
)
@click.option("--remove", metavar="NAME", help="The old key, by its comment or the end of it: removed.")
@click.option("--lost", is_flag=True, help="With --remove: whatever hosts and bundles say; it is stolen.")
@_plan_option
def signing(file: Path | None, remove: str | None, lost: bool, dry: bool) -> None:
    """Replace a key that signs releases: first --new, then --remove; a deployment after each.

    Without options: who signs, and what comes next.
    """
    from deploy.fleet.inventory import resolve
    from deploy.vaults import signers, store

    if (file is not None) + (remove is not None) > 1 or (lost and remove is None):
        raise click.UsageError("name --new FILE.pub, or later --remove NAME (which --lost goes with)")
    inventory = inventory_named()
    with one_sentence():
        fleet = resolve(inventory)
        path, there = signers.listed(fleet)
        if file is None and remove is None:
            for each in there:
                click.echo(each)
            click.echo(_next(there))
            return
        before = store.read(path).decode()
        if file is not None:
            new = signers.public_key(file)
            if any(signers.same(new, each) for each in there):
                click.echo(f"that key is admitted already; {_next(there)}")
                return
            after, told = signers.changed(before, add=new), f"admitted  {new}"
            left = [*there, new]
        else:
            old = signers.fitting(there, str(remove))
            left = [each for each in there if each != old]
            if not left:
                raise store.VaultError("it is the only one: first --new FILE.pub, and deploy")
            wrong = [] if lost else [*signers.unsigned(fleet, left), *signers.unaware(fleet, left)]
            if wrong:
                raise store.VaultError(f"{'; '.join(wrong)}. Nothing was changed")
            after, told = signers.changed(before, remove=old), f"removed  {old}"
        if not dry:
            store.replace(path, after.encode(), path.stat().st_mode & 0o777)
    click.echo(f"{'would be ' if dry else ''}{told}")
    click.echo(f"to be deployed: {deployment(inventory)} (no service restarts)")
    click.echo(_next(left) if file is not None else "from then on hosts refuse what the old key has signed")
    if not dry:
        acted("secret.rotated", kind="signing", names=[told])


def _next(there: list[str]) -> str:
    if len(there) < 2:
        return "to replace it: make a key, `secrets rotate signing --new FILE.pub`, deploy"
    return (
        "once that is deployed: sign with the new key (`make bundle`; MT5CRS_SIGNING_KEY names it), deploy, "
        "then `secrets rotate signing --remove OLD` and deploy again. Until then the old one counts; "
        "afterwards what it has signed is refused, for a rollback too"
    )
