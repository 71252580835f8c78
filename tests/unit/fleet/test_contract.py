"""What pyinfra is given is exactly what Ansible itself resolves: every variable of every host."""

import json
import stat
from pathlib import Path

import pytest

from deploy import keys
from deploy.fleet.connection import connection_of
from deploy.fleet.curve import public_half
from deploy.fleet.inventory import InventoryError, plain, resolve
from deploy.fleet.settings import check
from deploy.fleet.vault_password import vault_lib
from deploy.operations.context import connection
from deploy.vaults import store
from tests.unit.fleets import EXTRA, HOSTS, ansible, inventory_text, make_inventory

# Set by the test's own ansible command line.
OF_THE_RUN = {"ansible_become"}


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inventory(tmp_path_factory.mktemp("contract"))


def test_every_variable_is_what_ansible_resolves(inventory: Path, tmp_path: Path) -> None:
    wanted = (
        "{% set all = {} %}{% for name in query('ansible.builtin.varnames', '^[a-z0-9_]+$') %}"
        "{% if name.startswith(('fleet_', 'baseline_', 'gateway_', 'reconciler_', 'strategy_', 'hub_',"
        " 'review_', 'monitoring_', 'vault_', 'ansible_ssh_private', 'ansible_ssh_common',"
        " 'ansible_host', 'ansible_user', 'group_names', 'inventory_hostname')) %}"
        "{% set _ = all.update({name: lookup('ansible.builtin.vars', name)}) %}{% endif %}{% endfor %}"
        "{{ all | to_json }}\n"
    )
    target = str(tmp_path / "{{ inventory_hostname }}.json")
    arguments = json.dumps({"content": wanted, "dest": target})
    ran = ansible(inventory, "all", "-m", "ansible.builtin.copy", "-a", arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    fleet = resolve(inventory, EXTRA)
    assert fleet.unresolved == ()
    compared = 0
    for host, ours in fleet.hosts.items():
        theirs = json.loads((tmp_path / f"{host}.json").read_text())
        assert ours.keys() - OF_THE_RUN == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == value, f"{host}: {name}"
            compared += 1
    assert compared > 4 * 100


def test_vault_and_jinja_arrive_as_plain_values(inventory: Path) -> None:
    values = resolve(inventory, EXTRA).hosts["inf-01"]
    secret = values["strategy_client_secret_key"]
    assert type(secret) is str
    assert len(bytes.fromhex(secret)) == 32
    assert type(values["reconciler_magic_number"]) is int
    assert values["reconciler_gateway_host"] == "10.9.9.14"
    assert {type(item) for item in values["fleet_clients"]} == {dict}


def test_groups_and_a_clean_bill(inventory: Path) -> None:
    fleet = resolve(inventory, EXTRA)
    assert {group: list(fleet.in_group(group)) for group in HOSTS} == HOSTS
    assert check(fleet) == []


def test_a_second_reading_finds_files_of_variables_added_since(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    before = resolve(inventory, EXTRA).hosts["inf-01"]
    group_vars = inventory.parent / "group_vars" / "lab"
    (group_vars / "added.yml").write_text("added_to_the_group: 1\n")
    host_vars = inventory.parent / "host_vars"
    assert not host_vars.exists()
    host_vars.mkdir()
    (host_vars / "inf-01.yml").write_text("added_to_the_host: 2\n")
    after = resolve(inventory, EXTRA).hosts["inf-01"]
    assert after == {**before, "added_to_the_group": 1, "added_to_the_host": 2}


def test_connection_is_ansibles(inventory: Path) -> None:
    fleet = resolve(inventory, EXTRA)
    found = connection_of(fleet.hosts["inf-02"])
    assert (found.host, found.user, found.port, found.become) == ("10.9.9.13", "ops", None, True)
    assert found.key == str(inventory.parent / "id_ed25519")
    assert f'UserKnownHostsFile="{inventory.parent / "known_hosts"}"' in found.options
    assert "StrictHostKeyChecking=yes" in found.options
    assert connection(fleet, "inf-02")["_sudo"] is True


def test_host_data_for_pyinfra_holds_no_secret(inventory: Path) -> None:
    fleet = resolve(inventory, EXTRA)
    secrets = {v for k, v in fleet.hosts["gtw-01"].items() if k == "gateway_secret_key"}
    assert secrets
    for host in fleet.hosts:
        assert not any(secret in repr(connection(fleet, host)) for secret in secrets)
        assert not any(secret in repr(fleet) for secret in secrets)


def test_extra_variables_win(inventory: Path) -> None:
    fleet = resolve(inventory, {**EXTRA, "reconciler_sync_retry_count": 7})
    assert fleet.hosts["inf-01"]["reconciler_sync_retry_count"] == 7


def test_an_expression_that_cannot_be_resolved_is_named(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    text = json.loads(inventory.read_text())
    text["lab"]["vars"]["strategy_symbol"] = "{{ nowhere }}"
    inventory.write_text(json.dumps(text))
    fleet = resolve(inventory, EXTRA)
    assert {(item.name, "nowhere" in item.reason) for item in fleet.unresolved} == {("strategy_symbol", True)}


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("group_vars/lab/bad.yml", "a: [1\nb: 2\n", r"did not find expected.*\(.*group_vars/lab/bad.yml:2\)"),
        ("host_vars/inf-01.yml", "a: {\n", r"\(.*host_vars/inf-01.yml:2\)"),
        ("inventory.yml", "lab:\n  hosts: [\n", r"did not find expected.*\(.*inventory.yml:3\)"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, file: str, text: str, expected: str
) -> None:
    inventory = make_inventory(tmp_path)
    bad = inventory.parent / file
    bad.parent.mkdir(exist_ok=True)
    bad.write_text(text)
    with pytest.raises(InventoryError, match=expected):
        resolve(inventory, EXTRA)


@pytest.mark.parametrize("text", ["", "---\n# nothing yet\n"])
def test_an_empty_inventory_is_called_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "new.yml").write_text(text)
    with pytest.raises(InventoryError, match="it is empty; describe hosts in it"):
        resolve(tmp_path / "new.yml", EXTRA)


def test_an_inventory_in_another_format_names_the_way_to_convert_it(tmp_path: Path) -> None:
    plain = tmp_path / "hosts.ini"
    plain.write_text("[inf]\ninf-01 ansible_host=10.9.9.1\n")
    with pytest.raises(InventoryError, match=r"no YAML file; `ansible-inventory --list --yaml --export -i`"):
        resolve(plain, EXTRA)


def test_a_wrong_value_is_blamed_where_it_is(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    (inventory.parent / "host_vars").mkdir()
    (inventory.parent / "host_vars/inf-02.yml").write_text("---\nreconciler_log_level: LOUD\n")
    (problem,) = check(resolve(inventory, EXTRA))
    assert problem.startswith("inf-02: reconciler_log_level (")
    assert "host_vars/inf-02.yml:2) is 'LOUD'" in problem


def test_wrong_vault_password_is_one_sentence(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    password = inventory.parent / "vault-password"
    password.write_text("not the one")
    with pytest.raises(InventoryError, match=r"wrong password.*ANSIBLE_VAULT_PASSWORD_FILE") as caught:
        resolve(inventory, EXTRA)
    assert str(password) in str(caught.value)


def test_missing_vault_password_names_the_remedy(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    (inventory.parent / "vault-password").unlink()
    with pytest.raises(InventoryError, match=r"`\.venv/bin/python -m lab up`"):
        resolve(inventory, EXTRA)


def test_missing_inventory_is_named(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match=r"nowhere\.yml does not exist"):
        resolve(tmp_path / "nowhere.yml")


def test_plain_keeps_values_and_drops_types() -> None:
    class Tagged(str):
        pass

    value = plain({Tagged("a"): [Tagged("b"), True, 1, 1.5, None]})
    assert value == {"a": ["b", True, 1, 1.5, None]}
    assert {type(key) for key in value} == {str}
    assert type(value["a"][0]) is str


def test_keys_are_made_once_and_for_new_hosts_only(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    before = resolve(inventory, EXTRA).hosts["inf-01"]["reconciler_client_secret_key"]
    vault = inventory.parent / "group_vars" / "lab" / "vault.yml"
    sealed = vault.read_bytes()
    assert keys.make(inventory).create == []
    assert vault.read_bytes() == sealed

    inventory.write_text(inventory_text({**HOSTS, "inf": ["inf-01", "inf-02", "inf-03"]}))
    made = keys.make(inventory).create
    assert made == [("client", "inf-03-reconciler"), ("client", "inf-03-strategy")]
    fleet = resolve(inventory, EXTRA)
    assert fleet.hosts["inf-01"]["reconciler_client_secret_key"] == before
    assert check(fleet) == []


def test_keys_of_hosts_that_are_gone_are_stale_until_pruned(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    inventory.write_text(inventory_text({**HOSTS, "inf": ["inf-01"]}))
    gone = [("client", "inf-02-reconciler"), ("client", "inf-02-strategy")]
    assert keys.make(inventory).stale == gone
    assert keys.make(inventory, prune=True).stale == gone
    assert keys.make(inventory).stale == []


def test_a_rotated_key_is_another_one(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    before = resolve(inventory, EXTRA).hosts["inf-01"]
    keys.make(inventory, rotate=["inf-01-strategy"])
    after = resolve(inventory, EXTRA).hosts["inf-01"]
    assert after["strategy_client_secret_key"] != before["strategy_client_secret_key"]
    assert after["reconciler_client_secret_key"] == before["reconciler_client_secret_key"]


def test_a_key_that_is_rotated_leaves_every_comment(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    vault = inventory.parent / "group_vars" / "lab" / "vault.yml"
    lib = vault_lib((inventory.parent / "vault-password").read_text().strip())
    text = lib.decrypt(vault.read_bytes()).decode().replace("  ops:", "  # Jane's\n  ops:")
    vault.write_bytes(lib.encrypt(text.encode()))
    keys.make(inventory, rotate=["ops"])
    after = lib.decrypt(vault.read_bytes()).decode()
    assert "  # Jane's\n  ops:" in after
    assert after != text
    (inventory.parent / "group_vars/lab/keys.yml").write_text("---\n# theirs\n")
    assert len(keys.make(inventory).mended) == 8
    assert (inventory.parent / "group_vars/lab/keys.yml").read_text().startswith("---\n# theirs\n")


def test_a_rotation_that_died_between_vault_and_public_keys_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = make_inventory(tmp_path)
    replace = store.replace

    def dies_after_the_vault(path: Path, content: bytes, mode: int = 0o600) -> None:
        if path.name == "keys.yml":
            raise KeyboardInterrupt
        replace(path, content, mode)

    with monkeypatch.context() as dying:
        dying.setattr(store, "replace", dies_after_the_vault)
        with pytest.raises(KeyboardInterrupt):
            keys.make(inventory, rotate=["inf-01-strategy"])
    torn = resolve(inventory, EXTRA).hosts["inf-01"]["strategy_client_secret_key"]
    made = keys.make(inventory, rotate=["inf-01-strategy"])
    assert (made.create, made.mended) == ([], [("client", "inf-01-strategy")])
    fleet = resolve(inventory, EXTRA)
    assert fleet.hosts["inf-01"]["strategy_client_secret_key"] == torn, "it is not made twice"
    public = fleet.hosts["inf-01"]["fleet_client_public_keys"]["inf-01-strategy"]
    assert public_half(torn) == public


def test_an_unknown_key_cannot_be_rotated(tmp_path: Path) -> None:
    with pytest.raises(keys.KeysError, match=r"cannot rotate nobody.*inf-01-strategy"):
        keys.make(make_inventory(tmp_path), rotate=["nobody"])


def test_secret_files_are_private_and_sealed(inventory: Path) -> None:
    vault = inventory.parent / "group_vars" / "lab" / "vault.yml"
    for path in (vault, inventory.parent / "vault-password"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert vault.read_text().startswith("$ANSIBLE_VAULT;1.1;AES256\n")


def test_keys_with_a_wrong_password_change_nothing(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    vault = inventory.parent / "group_vars" / "lab" / "vault.yml"
    sealed = vault.read_bytes()
    (inventory.parent / "vault-password").write_text("not the one")
    with pytest.raises(keys.KeysError, match="wrong one"):
        keys.make(inventory, rotate=["ops"])
    assert vault.read_bytes() == sealed
