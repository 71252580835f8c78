"""How a Linux host is reached, from the same variables that Ansible reads; alike for both engines.

Pure. Which variables there are and which of two names wins: ansible-core's plugins `connection/ssh` and
`become/sudo`, whose later names win over earlier ones. What is not honoured here is refused by `refusals`
before anything starts, since two engines that reach a host by different ways deploy to different hosts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_HOST = ("ansible_host", "ansible_ssh_host")
_PORT = ("ansible_port", "ansible_ssh_port")
_USER = ("ansible_user", "ansible_ssh_user")
_KEY = ("ansible_private_key_file", "ansible_ssh_private_key_file")
_OPTIONS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
_BECOME = ("ansible_become",)
VARIABLES = (*_HOST, *_PORT, *_USER, *_KEY, *_OPTIONS, *_BECOME)
"""Those that are honoured; none holds a secret."""

_ONLY = {
    "ansible_connection": ("ssh", "smart", "ansible.builtin.ssh"),
    "ansible_become_method": ("sudo", "ansible.builtin.sudo"),
    "ansible_become_user": ("root",),
}
_BY_KEY = "reaching hosts takes a key, which may be in an agent; take the password out"
_SUDO_ASKS_NOTHING = (
    "a deployment also asks hosts beside its engine and cannot answer sudo; let the user become root without "
    "a password: `<user> ALL=(root) NOPASSWD: ALL`, and leave it out"
)
_NOT_HONOURED = {
    **dict.fromkeys(("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"), _BY_KEY),
    **dict.fromkeys(
        (
            "ansible_become_password",
            "ansible_become_pass",
            "ansible_sudo_pass",
            "ansible_become_password_file",
        ),
        _SUDO_ASKS_NOTHING,
    ),
    **dict.fromkeys(
        ("ansible_private_key", "ansible_ssh_private_key"), "name a file in ansible_ssh_private_key_file"
    ),
    **dict.fromkeys(
        ("ansible_private_key_passphrase", "ansible_ssh_private_key_passphrase"), "put the key into an agent"
    ),
    **dict.fromkeys(
        ("ansible_host_key_checking", "ansible_ssh_host_key_checking"),
        "host keys are always checked; put them into a known_hosts file",
    ),
    **dict.fromkeys(
        ("ansible_become_exe", "ansible_sudo_exe", "ansible_become_flags", "ansible_sudo_flags"),
        "sudo is called as `sudo -n`; leave it out",
    ),
    "ansible_ssh_executable": "OpenSSH's own client is used; put the right one first in PATH",
    **dict.fromkeys(
        ("ansible_sftp_extra_args", "ansible_scp_extra_args"),
        "put what every connection needs into ansible_ssh_common_args",
    ),
}
_TRUE = ("y", "yes", "on", "1", "true", "t", "1.0")
_FALSE = ("n", "no", "off", "0", "false", "f", "0.0")
"""As Ansible reads them, in any case."""


@dataclass(frozen=True)
class Connection:
    """One host's address, port, user and key, further words for ssh, and whether it takes sudo to be root."""

    host: str
    port: int | None
    user: str | None
    key: str | None
    options: tuple[str, ...]
    become: bool

    @property
    def words(self) -> list[str]:
        """The words of an ssh command line up to the host, in Ansible's order: the first of a kind counts."""
        found = []
        if self.port is not None:
            found += ["-o", f"Port={self.port}"]
        if self.key:
            found += ["-o", f'IdentityFile="{self.key}"']
        if self.user:
            found += ["-o", f'User="{self.user}"']
        return [*found, *self.options, self.host]


def connection_of(variables: Mapping[str, Any]) -> Connection:
    """How the host with these variables is reached. ValueError for a value that `refusals` names."""
    port = _last(variables, _PORT)
    return Connection(
        host=str(_last(variables, _HOST) or variables["inventory_hostname"]),
        port=int(port) if port not in (None, "") else None,
        user=_text(_last(variables, _USER)),
        key=_text(_last(variables, _KEY)),
        options=tuple(word for name in _OPTIONS for word in shlex.split(str(variables.get(name) or ""))),
        become=is_true(_last(variables, _BECOME) or False),
    )


def only_connection(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Of a host's variables those that say how it is reached; none of them is a secret."""
    names = ("inventory_hostname", "fleet_instance", *VARIABLES)
    return {name: variables[name] for name in names if name in variables}


def is_true(value: object) -> bool:
    """What Ansible takes a value for. ValueError for what it takes for neither."""
    text = str(value).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise ValueError(f"{value!r} is neither yes nor no")
    return text in _TRUE


def refusals(variables: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and reason, with remedy, of each variable of the connection that cannot be honoured alike."""
    for name, allowed in _ONLY.items():
        if name in variables and str(variables[name]) not in allowed:
            yield name, f"is {variables[name]!r}; Linux hosts are reached with {allowed[0]} only"
    for name, remedy in _NOT_HONOURED.items():
        if variables.get(name) not in (None, ""):
            yield name, f"is not honoured by both engines: {remedy}"
    for name in _BECOME:
        try:
            is_true(variables.get(name, False))
        except ValueError as error:
            yield name, f"is {str(error).replace('is neither', 'which is neither')}; write true or false"
    for name in _PORT:
        text = str(variables.get(name, 22) or 22)
        if not text.isdecimal() or not 0 < int(text) < 65536:
            yield name, f"is {text!r}, expected a port from 1 to 65535"
    for name in _OPTIONS:
        try:
            shlex.split(str(variables.get(name) or ""))
        except ValueError as error:
            yield name, f"cannot be split into words ({error}); close its quotes"


def jumps(variables: Mapping[str, Any]) -> tuple[str, ...]:
    """Names or addresses of the hosts over which a host is reached (`-J`, ProxyJump), as they are given."""
    words = [
        word for name in _OPTIONS for word in shlex.split(str(variables.get(name) or "").replace("=", " "))
    ]
    after = zip([word.lower() for word in words], words[1:], strict=False)
    given = [value for word, value in after if word in ("-j", "proxyjump", "-oproxyjump")]
    ends = [one.rpartition("@")[2].removeprefix("ssh://") for value in given for one in value.split(",")]
    return tuple(re.sub(r"^\[(.*)\](:\d+)?$|^([^:]+):\d+$", r"\1\3", end) for end in ends)


def _last(variables: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    given = [variables[name] for name in names if variables.get(name) is not None]
    return given[-1] if given else None


def _text(value: object) -> str | None:
    return None if value in (None, "") else str(value)
