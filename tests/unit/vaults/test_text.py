"""The text of a vault: what is wrong with it is told by name and line, never by value; comments stay."""

from __future__ import annotations

import pytest

from deploy.vaults.text import (
    Changes,
    VaultTextError,
    changes,
    entries,
    nearest,
    problems,
    unused,
    values,
    with_value,
    without,
)

CANARY = "Hunter2Canary"
KEY = "ab" * 32
GOOD = {"vault_client_secret_keys": {"ops": KEY}, "vault_gateway_secret_keys": {"gtw-01": KEY}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a: 1\nvault_x: *{CANARY}\n", "line 2, column 10"),
        (f"vault_x: !{CANARY} x\n", "needs quotes"),
        (f"vault_x: '{CANARY}\nb: 1\n", "no YAML"),
        (f"vault_x: {CANARY}: {CANARY}\n", "line 1"),
        (f"- {CANARY}\n", "must be variables"),
        (CANARY, "must be variables"),
        (f"vault_x: {CANARY}\nb: 2\nvault_x: {CANARY}\n", "vault_x stands 2 times, in lines 1 and 3"),
        (f"vault_x:\n  ops: {CANARY}\n  ops: {CANARY}\n", "vault_x.ops stands 2 times, in lines 2 and 3"),
        ("vault_x: 2026-13-45\n", "in quotes"),
    ],
)
def test_what_is_no_vault_is_said_without_its_secrets(text: str, said: str) -> None:
    with pytest.raises(VaultTextError) as told:
        values(text)
    assert said in str(told.value)
    assert CANARY not in str(told.value)


def test_ansibles_own_tags_and_an_empty_vault_are_good() -> None:
    assert values("a: !unsafe '{{x'\n") == {"a": "{{x"}
    assert values("---\n# nothing yet\n") == {}


def test_changes_are_names() -> None:
    before = {"a": "1", "keys": {"x": "1", "y": "2"}, "l": ["1"]}
    after = {"a": 1, "keys": {"x": "1", "z": "3"}, "l": ["2"]}
    assert changes(before, after) == Changes(("keys.z",), ("a", "l[0]"), ("keys.y",))
    assert changes(before, before).names == ()
    assert entries({"empty": {}}) == {"empty": {}}


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"vault_client_secret_keys": CANARY}, "must be a mapping"),
        ({"vault_client_secret_keys": {"ops": CANARY}}, "vault_client_secret_keys.ops must be 64 hex"),
        ({"vault_client_secret_keys": {"ops": "cd" * 32}}, "not the secret half of its public key"),
        ({"vault_windows_account_passwords": {"gtw-01": "short"}}, "at least 14 characters"),
        ({"gateway_mt5_pasword": CANARY}, "did you mean gateway_mt5_password"),
        ({"vault_gateway_mt5_passwort": CANARY}, "did you mean vault_gateway_mt5_password"),
        ({"vault_gateway_mt5_password": 12345}, "is a number"),
        ({"vault_gateway_mt5_password": None}, "has no value"),
        ({"gateway_mt5_password": [CANARY]}, "gateway_mt5_password is <hidden>, expected"),
        ({"gateway_mt5_password": f"{CANARY}'"}, "cannot be written to .env"),
        ({"monitoring_webhok_url": CANARY}, "did you mean monitoring_webhook_url"),
        ({"bad-name": CANARY}, "is none of a variable"),
        ({"gateway_nonsense": CANARY}, "gateway_nonsense is unknown"),
    ],
)
def test_mistakes_are_found_with_the_nearest_known_name(of: dict[str, object], said: str) -> None:
    wanted = {"vault_gateway_mt5_password"} if "mt5_pass" in str(of) else set()
    found = problems(
        {**GOOD, **of},
        wanted=wanted,
        public={"fleet_client_public_keys": {"ops": "public of " + KEY}},
        public_half=lambda secret: f"public of {secret}",
    )
    assert said in "\n".join(found)
    assert CANARY not in "\n".join(found)


def test_a_good_vault_has_no_problem_and_what_nothing_names_is_told() -> None:
    assert problems({**GOOD, "vault_mine": "x"}, wanted=()) == []
    assert problems({}, wanted={"vault_mine"}) == ["vault_mine is missing, and the fleet's files refer to it"]
    assert unused({**GOOD, "vault_mine": "x", "vault_b": "x"}, {"vault_b"}) == ["vault_mine"]
    assert nearest("vault_min", ["vault_mine"]) == "; did you mean vault_mine?"
    assert nearest("q", ["b", "a"]) == "; there are a, b"


TEXT = """---
# of the fleet
vault_client_secret_keys:  # by name
  # the people
  ops: old  # since May
  inf-01-strategy: 'other'
vault_note: |
  two
  lines
vault_empty: {}
vault_last: x"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("vault_client_secret_keys", "ops"), '  ops: "new"  # since May'),
        (("vault_client_secret_keys", "inf-01-strategy"), '  inf-01-strategy: "new"'),
        (("vault_client_secret_keys", "added"), '  added: "new"'),
        (("vault_note",), 'vault_note: "new"'),
        (("vault_empty", "gtw-01"), '  gtw-01: "new"'),
        (("vault_last",), 'vault_last: "new"'),
        (("vault_more",), 'vault_more: "new"'),
        (("vault_gateway_secret_keys", "no"), '  "no": "new"'),
    ],
)
def test_one_value_is_put_in_place_and_every_comment_stays(path: tuple[str, ...], line: str) -> None:
    changed = with_value(TEXT, path, "new")
    assert line in changed.splitlines()
    for comment in ("# of the fleet", "# by name", "# the people", "# since May"):
        assert comment in changed
    assert len(changes(values(TEXT), values(changed)).names) in (1, 2)  # {} goes when it is filled


def test_what_cannot_be_put_in_place_is_refused() -> None:
    with pytest.raises(VaultTextError, match="secrets edit"):
        with_value("a: {b: &x one, c: *x}\n", ("a", "d"), "new")
    with pytest.raises(VaultTextError, match="a is no mapping"):
        with_value("a: text\n", ("a", "d"), "new")


def test_an_entry_is_taken_out_with_its_line() -> None:
    left = without(TEXT, ("vault_client_secret_keys", "ops"))
    assert "ops" not in left
    assert "# the people" in left
    assert (
        values(without(left, ("vault_client_secret_keys", "inf-01-strategy")))["vault_client_secret_keys"]
        == {}
    )
