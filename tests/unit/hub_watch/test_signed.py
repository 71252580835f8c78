"""What the watcher posts is signed, and verified as the Hub's posts are."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mt5crs.hub import signature
from tests.unit.hub.test_webhook import FORMER, SECRET, example
from tests.unit.hub_watch.running import MODULES, Receiver, a_hub, until, watching

OTHER = f"whsec_{base64.b64encode(b'o' * 32).decode()}"


def test_posts_are_genuine_for_the_new_secret_and_the_former_one(tmp_path: Path) -> None:
    is_genuine = example()
    receiver = Receiver(500)
    with watching(tmp_path, receiver, secret=f"{SECRET} {FORMER}") as watcher:
        until(lambda: len(receiver.taken) == 1, lambda: watcher.log)
        with a_hub(watcher):
            until(lambda: len(receiver.taken) == 2, lambda: watcher.log)
    refused, silent, back = receiver.posts
    for headers, body in receiver.posts:
        assert is_genuine(SECRET, headers, body)
        assert is_genuine(FORMER, headers, body)
        assert not is_genuine(OTHER, headers, body)
        assert not is_genuine(SECRET, headers, body.replace(b"hub-01", b"hub-02"))
    assert refused[0]["webhook-id"] == silent[0]["webhook-id"] != back[0]["webhook-id"]
    assert int(silent[0]["webhook-timestamp"]) > int(refused[0]["webhook-timestamp"]), "when it was sent"


def test_without_a_secret_nothing_is_signed_and_that_is_said(tmp_path: Path) -> None:
    receiver = Receiver()
    with watching(tmp_path, receiver) as watcher:
        until(lambda: receiver.taken, lambda: watcher.log)
        assert "monitoring_hub_watch_secret is empty" in watcher.log
    assert not [name for name in receiver.posts[0][0] if name.startswith("webhook-")]


@pytest.mark.parametrize("secret", ["whsec_c2hvcnQ=", SECRET[6:], f"{SECRET} {FORMER} {OTHER}"])
def test_a_secret_that_cannot_sign_ends_it_without_being_shown(tmp_path: Path, secret: str) -> None:
    environment = {
        "HUB": "hub-01",
        "HUB_ADDRESS": "127.0.0.1",
        "WATCHER": "inf-01",
        "ENVIRONMENT": "lab",
        "GATEWAYS": "[]",
        "SILENCE_S": "1",
        "URL": "http://127.0.0.1:9/",
        "SECRET": secret,
        "STATE_DIRECTORY": str(tmp_path),
        "ADDRESS": "127.0.0.1",
        "PORT": "9",
        "PATH": os.environ["PATH"],
    }
    command = [sys.executable, "-B", "-E", "-s", "-m", "hub_watch"]
    ran = subprocess.run(
        command, cwd=MODULES, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ran.returncode, ran.stdout) == (78, "")
    assert "cannot be used (SecretError)" in ran.stderr
    assert secret not in ran.stderr


def test_the_signature_is_the_hub_s_own() -> None:
    """A copy, since the watcher runs without our package; a link could not be reviewed."""
    assert Path(signature.__file__).read_bytes() == (MODULES / "hub_watch" / "signature.py").read_bytes()
