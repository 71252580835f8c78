"""Records of phases: signed for phases only, by who may, and for nothing else."""

import subprocess

import pytest

from mt5crs.phases.record import NAMESPACE, RecordError, read, sign, signer_problem, text_of, verify
from tests.unit.gateway.phased import MICRO, Phased, key, signers


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return text_of(Phased(tmp_path_factory.mktemp("order_manager")).record(MICRO))


def test_what_was_signed_is_read(text: str) -> None:
    assert read(text).profile == MICRO
    verify(text, sign(text, key("alice")), "alice", signers("alice", "bob"))


def test_who_is_not_listed_or_another_key(text: str) -> None:
    signature = sign(text, key("mallory"))
    with pytest.raises(RecordError, match=r"the signature is not shown to be that of alice"):
        verify(text, signature, "alice", signers("alice"))
    with pytest.raises(RecordError, match=r"mallory may not sign phases here \(alice may\)"):
        verify(text, signature, "mallory", signers("alice"))
    with pytest.raises(
        RecordError, match="the signature is not shown to be that of bob"
    ):  # a name of one, a key of another
        verify(text, sign(text, key("alice")), "bob", signers("alice", "bob"))


def test_a_changed_text_and_another_purpose(text: str) -> None:
    signature = sign(text, key("alice"))
    with pytest.raises(RecordError, match="the signature is not shown to be that of alice"):
        verify(text.replace(MICRO, "live_scaled_atomic_v1"), signature, "alice", signers("alice"))
    bundle = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key("alice")), "-n", "mt5crs-bundle"]
    other = subprocess.run(bundle, input=text.encode(), capture_output=True, check=True).stdout.decode()
    assert NAMESPACE != "mt5crs-bundle"
    with pytest.raises(RecordError, match="the signature is not shown to be that of alice"):
        verify(text, other, "alice", signers("alice"))


@pytest.mark.parametrize("broken", ["", "{}", "[]", '{"magic": 1, "magic": 2}', '{"format": 2}'])
def test_what_is_no_record(broken: str) -> None:
    with pytest.raises(RecordError, match="the record cannot be read"):
        read(broken)


def test_a_signer_with_an_option_or_a_second_line_is_refused() -> None:
    good = signers("alice")["alice"]
    assert signer_problem("alice", good) is None
    for bad in ("", "alice", f"cert-authority {good}", f"{good}\nbob * {good}", f"{good}'s laptop"):
        assert signer_problem("alice", bad) is not None
    assert signer_problem("alice bob", good) is not None
