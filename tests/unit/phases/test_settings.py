"""What the gateway's settings on phases are refused for, all of it at once."""

import json

import pytest

from mt5crs.settings.gateway import GatewaySettings
from mt5crs.settings.schema import SettingsError, load
from tests.unit.gateway.phased import MICRO, SCALED, signers

BASE = {"GATEWAY_BIND": "127.0.0.1", "GATEWAY_SECRET_KEY": "0" * 63 + "1"}


def test_everything_wrong_is_told_at_once() -> None:
    wrong = {"PHASES": "true", "PROFILE_NAME": "live_huge", "PROFILE_NAMES": '{"202401": "live_tiny"}'}
    with pytest.raises(SettingsError) as caught:
        load(GatewaySettings, BASE | wrong)
    said = str(caught.value)
    assert "PHASES is true but PHASE_SIGNERS is empty" in said
    assert "PROFILE_NAME: there is no profile 'live_huge'" in said
    assert "202401: there is no profile 'live_tiny'" in said
    with pytest.raises(SettingsError, match="the key of alice is no OpenSSH public key"):
        load(GatewaySettings, BASE | {"PHASE_SIGNERS": '{"alice": "ssh-rsa AAAA"}'})


def test_the_highest_profile_of_one_magic_number_and_of_the_others() -> None:
    of = {"PHASES": "true", "PHASE_SIGNERS": json.dumps(signers("alice")), "PROFILE_NAME": MICRO}
    settings = load(GatewaySettings, BASE | of | {"PROFILE_NAMES": json.dumps({"202401": SCALED})})
    assert (settings.highest_profile(202401), settings.highest_profile(202402)) == (SCALED, MICRO)
    assert not load(GatewaySettings, BASE).phases
