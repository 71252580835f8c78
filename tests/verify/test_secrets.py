"""Secrets are where they belong and nobody else can read them."""

import base64

from testinfra.host import Host

from tests.verify.node import Node

SEARCHED = ("/opt/mt5crs", "/etc/mt5crs", "/var/lib/mt5crs", "/run", "/tmp", "/var/tmp", "/var/log")
# Prints every file that anybody may read and that holds one of the strings given on standard input.
FIND_READABLE = """
import os, sys
needles = [line.encode() for line in sys.stdin.read().split("\\n") if line]
for top in sys.argv[1:]:
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            try:
                state = os.lstat(path)
                if state.st_mode & 0o170004 != 0o100004 or state.st_size > 50_000_000:
                    continue
                content = open(path, "rb").read()
            except OSError:
                continue
            if any(needle in content for needle in needles):
                print(path)
"""


def secrets_of(node: Node) -> list[str]:
    """Every secret the inventory knows for this host, as it would stand in a file."""
    found: list[str] = []

    def collect(value: object) -> None:
        if isinstance(value, dict):
            for one in value.values():
                collect(one)
        elif isinstance(value, list):
            for one in value:
                collect(one)
        elif isinstance(value, str) and len(value) >= 8:
            found.append(value)

    for name, value in node.variables.items():
        if name.startswith("vault_"):
            collect(value)
    return found


def test_env_is_readable_by_root_alone(node: Node, unit: str, host: Host) -> None:
    env = host.file(f"/opt/mt5crs/{node.installed(unit)}/current/.env")
    assert env.exists
    assert (env.user, env.group, oct(env.mode)) == ("root", "root", "0o600")


def test_no_secret_in_a_file_that_others_can_read(node: Node) -> None:
    secrets = secrets_of(node)
    assert secrets, "the inventory has no vault_ variables: nothing would be looked for"
    planted = base64.b16encode(node.name.encode()).decode() + "-readable-by-all"
    trap = node.run(
        "sh",
        "-c",
        "umask 022; f=$(mktemp /tmp/verify.XXXXXX); chmod 644 $f; cat > $f; echo $f",
        stdin=planted,
    )
    path = trap.stdout.strip()
    try:
        found = node.run("python3", "-c", FIND_READABLE, *SEARCHED, stdin="\n".join([*secrets, planted]))
    finally:
        node.run("rm", "-f", path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [path], (
        "files readable by others hold a secret (the trap alone is expected)"
    )


def test_no_secret_in_a_process_list_or_unit(node: Node) -> None:
    shown = node.run(
        "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; systemctl show 'mt5crs-*' --no-pager"
    ).stdout
    assert "mt5crs-release" in shown or "mt5crs" in shown
    leaked = [index for index, secret in enumerate(secrets_of(node)) if secret in shown]
    assert leaked == [], "secrets (by position in the vault) stand in a command line or a unit"
