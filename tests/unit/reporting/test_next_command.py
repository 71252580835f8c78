"""The command that a run's last line names is the user's own: none of its options is lost."""

import pytest

from deploy.reporting import next_command
from deploy.rollout.record import Rollout


def rollout(engine: str, command: str, action: str = "deploy", **known: str) -> Rollout:
    return Rollout(engine, "staging", action=action, command=command, **known)


@pytest.mark.parametrize(
    ("engine", "typed", "next_one"),
    [
        (
            "pyinfra",
            "/x/.venv/bin/pyinfra --dry --limit inf-01 i/staging.py deploy.py --data strategy=canary",
            "pyinfra -y --limit inf-01 i/staging.py deploy.py --data strategy=canary --data plan=ab12",
        ),
        (
            "pyinfra",
            "pyinfra -y --dry inventory/staging.py deploy.py --data plan=old",
            "pyinfra -y inventory/staging.py deploy.py --data plan=ab12",
        ),
        (
            "ansible",
            "/x/ansible-playbook -i i/staging.yml site.yml -CD --tags reconciler -e 'why=two words'",
            "ansible-playbook -i i/staging.yml site.yml --tags reconciler -e 'why=two words' -e plan=ab12",
        ),
    ],
)
def test_what_was_looked_at_is_what_is_done(engine: str, typed: str, next_one: str) -> None:
    assert next_command.after_looking(rollout(engine, typed, plan="ab12")) == next_one


def test_the_same_command_again() -> None:
    typed = "/x/bin/pyinfra -y '/a b/staging.py' rollback.py --data part=gateway --limit gtw-01"
    same = next_command.again(rollout("pyinfra", typed, "rollback"))
    assert same == "pyinfra -y '/a b/staging.py' rollback.py --data part=gateway --limit gtw-01"


def test_an_inventory_that_came_from_the_environment_is_named() -> None:
    """ANSIBLE_INVENTORY before one command is not there for the next one."""
    told = rollout("ansible", "ansible-playbook site.yml --check", inventory="inventory/production.yml")
    assert next_command.again(told) == "ansible-playbook -i inventory/production.yml site.yml --check"


def test_a_run_that_nobody_typed_names_the_usual_one() -> None:
    told = rollout("ansible", "/x/molecule test -s default", inventory=".lab/molecule/inventory.yml")
    assert next_command.again(told) == "ansible-playbook -i .lab/molecule/inventory.yml site.yml"
    assert next_command.again(rollout("pyinfra", "python -c x")) == "pyinfra inventory/staging.py deploy.py"


def test_verification_of_the_same_fleet() -> None:
    typed = "pyinfra -y '/a b/own.py' deploy.py"
    told = rollout("pyinfra", typed, inventory="/a b/own.py")
    assert next_command.verify(told) == "make verify INVENTORY='/a b/own.yml'"
