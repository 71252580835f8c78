"""Rules on secrets: where they are kept, who can read them, what they are like."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from deploy.policy.expiry import due
from deploy.policy.facts import Facts
from deploy.policy.rule import FLEET, Broken, Rule

_SHORTEST, _FEWEST = 8, 5
_KEY_LENGTH, _FEWEST_OF_A_KEY = 64, 8


def _written_plain(facts: Facts) -> Iterator[Broken]:
    for place in facts.written_plain:
        yield Broken(
            FLEET, f"{place.what} is written in {_where(place.file, place.line)}, which is not encrypted"
        )


def _copied_plain(facts: Facts) -> Iterator[Broken]:
    for place in facts.copied_plain:
        yield Broken(FLEET, f"the secret {place.what} stands in {_where(place.file, place.line)}")


def _where(file: str, line: int | None) -> str:
    return f"{file}:{line}" if line else file


def _shared(facts: Facts) -> Iterator[Broken]:
    owners: dict[str, str] = {}
    for secret in facts.secrets:
        first = owners.setdefault(secret.fingerprint, secret.name)
        if first != secret.name:
            yield Broken(FLEET, f"{secret.name} is the same secret as {first}")


def _weak(facts: Facts) -> Iterator[Broken]:
    for secret in facts.secrets:
        if secret.common:
            yield Broken(FLEET, f"{secret.name} is a word that everybody tries first")
        elif secret.length < _SHORTEST:
            yield Broken(FLEET, f"{secret.name} has {secret.length} characters, fewer than {_SHORTEST}")
        elif secret.distinct < (_FEWEST_OF_A_KEY if secret.length == _KEY_LENGTH else _FEWEST):
            yield Broken(FLEET, f"{secret.name} repeats {secret.distinct} characters")


def _not_a_pair(facts: Facts) -> Iterator[Broken]:
    for pair in facts.key_pairs:
        if not pair.fits:
            yield Broken(FLEET, f"the public key of {pair.name} does not belong to its secret key")


def _readable_here(facts: Facts) -> Iterator[Broken]:
    for file in facts.held_files:
        if file.mode & 0o077:
            yield Broken(FLEET, f"{file.what} {file.path} has mode {file.mode:04o}, others can read it")


def _readable_on_hosts(facts: Facts) -> Iterator[Broken]:
    for file in facts.deployed_files:
        name = f"{file.path} of {file.service}"
        if file.path.rpartition("/")[2] == ".env" and file.mode != 0o600:
            yield Broken(file.host, f"{name} would have mode {file.mode:04o}, not 0600")
        elif file.holds_secret and file.mode & 0o007:
            yield Broken(file.host, f"{name} holds a secret and would have mode {file.mode:04o}")


def _example_signer(facts: Facts) -> Iterator[Broken]:
    for host, of in facts.hosts.items():
        for name in ("baseline_release_signers", "baseline_review_signers"):
            if any(_is_no_key(str(line)) for line in of.settings.get(name) or ()):
                yield Broken(host, f"{name} has an example instead of a key")


def _past_their_date(facts: Facts) -> Iterator[Broken]:
    settings = [of.settings for of in facts.hosts.values()]
    yield from (Broken(FLEET, one.text) for one in due(settings, facts.now.date()) if one.passed)


def _is_no_key(line: str) -> bool:
    """Whether the key's own bytes are all zero: for that point of Ed25519 anybody can make signatures."""
    try:
        blob = base64.b64decode(line.split()[1], validate=True)
    except (IndexError, binascii.Error):
        return True
    return not any(blob[-32:])


RULES = (
    Rule(
        "SEC-001",
        "P0",
        "Secrets are written in vaults only",
        "A plain file is read by backups, editors, and everybody who has the repository.",
        "Move the value into the environment's vault (`secrets edit`), and replace the secret: it "
        "has been read.",
        _written_plain,
    ),
    Rule(
        "SEC-002",
        "P0",
        "What a vault keeps stands nowhere else",
        "A copy in a comment, a script or another file undoes the vault.",
        "Remove the copy, and replace the secret: it has been read.",
        _copied_plain,
    ),
    Rule(
        "SEC-003",
        "P1",
        "Every secret is used for one thing",
        "Who gets one of them has the others too, and none can be replaced alone.",
        "Make a secret of its own for each (`python -m deploy.keys --rotate NAME`).",
        _shared,
    ),
    Rule(
        "SEC-004",
        "P1",
        "Secrets cannot be guessed",
        "Short or repeated ones are found by trying.",
        "Replace it by one that was made at random.",
        _weak,
    ),
    Rule(
        "SEC-005",
        "P0",
        "Public and secret keys are pairs",
        "A service with another half connects to nobody.",
        "`python -m deploy.keys --inventory … --rotate NAME` makes a new pair.",
        _not_a_pair,
    ),
    Rule(
        "SEC-006",
        "P0",
        "Only their owner reads vault password and SSH key on the controller",
        "Who reads them has every secret of the environment, or every host.",
        "`chmod 600` the file, and replace what others may have read.",
        _readable_here,
    ),
    Rule(
        "SEC-007",
        "P0",
        "On hosts, `.env` has mode 0600 and no file with a secret is readable by everybody",
        "Any program of the host could read it.",
        "Correct the mode in `templates/release/`.",
        _readable_on_hosts,
    ),
    Rule(
        "SEC-008",
        "P0",
        "Hosts accept bundles that were signed with real keys",
        "For the example key anybody can make signatures.",
        "Put the public key that `make bundle` signs with into baseline_release_signers.",
        _example_signer,
    ),
    Rule(
        "SEC-009",
        "P2",
        "No secret is used past its date",
        "Who gave it out may refuse it at any time, and who took it unseen still has it.",
        "`mt5crs … secrets rotate KIND` replaces it; then set the new date in fleet_secret_expiry.",
        _past_their_date,
    ),
)
