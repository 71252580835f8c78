"""A host is reached as Ansible itself reaches it, or the variable is refused before anything starts."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from deploy.fleet.connection import VARIABLES, connection_of, is_true, jumps, only_connection, refusals
from deploy.fleet.inventory import prepare_ansible

HERE = {"inventory_hostname": "inf-01", "ansible_host": "10.9.9.1"}
CASES: list[dict[str, Any]] = [
    {},
    {"ansible_host": "10.9.9.2"},
    {"ansible_ssh_host": "10.9.9.3"},
    {"ansible_port": 2222},
    {"ansible_port": 22, "ansible_ssh_port": "2223"},
    {"ansible_user": "ops", "ansible_ssh_user": "other"},
    {"ansible_private_key_file": "/k 1", "ansible_ssh_private_key_file": "/k2"},
    {"ansible_private_key_file": "/k 1"},
    {"ansible_ssh_common_args": "-o ProxyJump=jump -o 'UserKnownHostsFile=\"/a b\"'"},
    {"ansible_ssh_extra_args": "-4", "ansible_ssh_common_args": "-J jump"},
]


@pytest.mark.parametrize("given", CASES, ids=lambda given: ",".join(given) or "none")
def test_each_variable_means_what_ansible_takes_it_for(given: dict[str, Any]) -> None:
    prepare_ansible()
    from ansible.playbook.play_context import PlayContext
    from ansible.plugins.loader import connection_loader

    variables = {**HERE, **given}
    plugin = connection_loader.get("ssh", PlayContext(), "/dev/null")
    plugin.set_options(var_options=variables)
    ours = connection_of(variables)
    assert ours.host == plugin.get_option("host")
    assert ours.port == plugin.get_option("port")
    assert ours.user == plugin.get_option("remote_user")
    assert ours.key == plugin.get_option("private_key_file")
    theirs = [plugin.get_option(name) or "" for name in ("ssh_common_args", "ssh_extra_args")]
    assert list(ours.options) == shlex.split(" ".join(theirs))
    assert not list(refusals(variables))


def test_the_command_line_has_them_in_ansibles_order() -> None:
    given = {"ansible_port": 2222, "ansible_user": "ops", "ansible_ssh_private_key_file": "/a b"}
    words = connection_of({**HERE, **given, "ansible_ssh_common_args": "-J jump"}).words
    assert words == [
        *("-o", "Port=2222", "-o", 'IdentityFile="/a b"', "-o", 'User="ops"', "-J", "jump", "10.9.9.1")
    ]


@pytest.mark.parametrize("value", ["no", "No", "off", "0", "false", False, 0, "n", "f"])
def test_no_is_no(value: object) -> None:
    from ansible.module_utils.parsing.convert_bool import boolean

    assert boolean(value) is False
    assert is_true(value) is False
    assert connection_of({**HERE, "ansible_become": value}).become is False


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("ansible_connection", "paramiko", "reached with ssh only"),
        ("ansible_become_method", "su", "with sudo only"),
        ("ansible_become_user", "admin", "with root only"),
        ("ansible_become_password", "canary", "NOPASSWD"),
        ("ansible_sudo_pass", "canary", "NOPASSWD"),
        ("ansible_password", "canary", "take the password out"),
        ("ansible_ssh_private_key", "canary", "ansible_ssh_private_key_file"),
        ("ansible_host_key_checking", False, "host keys are always checked"),
        ("ansible_become", "perhaps", "write true or false"),
        ("ansible_port", "ssh", "expected a port"),
        ("ansible_ssh_common_args", "-o 'open", "close its quotes"),
    ],
)
def test_what_cannot_be_honoured_is_refused(name: str, value: object, remedy: str) -> None:
    ((found, reason),) = refusals({**HERE, name: value})
    assert found == name
    assert remedy in reason
    assert "canary" not in reason


def test_no_secret_is_handed_on() -> None:
    variables = {
        **HERE,
        "gateway_secret_key": "canary",
        "ansible_become_password": "canary",
        "ansible_user": "o",
    }
    assert only_connection(variables) == {**HERE, "ansible_user": "o"}
    assert not any("pass" in name for name in VARIABLES)


@pytest.mark.parametrize(
    ("options", "over"),
    [
        ("", ()),
        ("-o ConnectTimeout=5", ()),
        ("-J hub-01", ("hub-01",)),
        ("-o ProxyJump=ops@10.9.9.1:22,second", ("10.9.9.1", "second")),
        ("-oProxyJump=[2001:db8::1]:2222", ("2001:db8::1",)),
    ],
)
def test_the_hosts_over_which_one_is_reached(options: str, over: tuple[str, ...]) -> None:
    assert jumps({"ansible_ssh_common_args": options}) == over
