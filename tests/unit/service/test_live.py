"""Live settings in force are those that a start with the same file would have, or those of before."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import pytest

from mt5crs.service.live import LiveSettings, digest_of
from mt5crs.settings.gateway import GatewaySettings
from mt5crs.settings.hub import HubSettings
from mt5crs.settings.reconciler import ReconcilerSettings
from mt5crs.settings.review import ReviewSettings
from mt5crs.settings.schema import LogLevel, Settings, SettingsError, fields, setting
from mt5crs.settings.strategy import StrategySettings


class Example(Settings, frozen=True, kw_only=True):
    port: Annotated[int, setting("A port.")] = 1
    log_level: Annotated[LogLevel, setting("A level.", live=True)] = "INFO"
    most: Annotated[int, setting("A limit.", ge=1, le=100, live=True)] = 10

    def problems(self) -> list[str]:
        return ["MOST is 13"] if self.most == 13 else []


ENVIRON = {"PORT": "7", "MOST": "20"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "live.env"
    path.write_text("LOG_LEVEL='WARNING'\n")
    return path


def live(file: Path) -> LiveSettings[Example]:
    return LiveSettings(Example, str(file), ENVIRON)


def test_the_file_wins_over_the_environment(file: Path) -> None:
    made = live(file)
    assert made.settings == Example(port=7, log_level="WARNING", most=20)
    made.show()  # asked before there is an end point
    assert made.told() == {"in_force": digest_of(file.read_bytes()), "refused": None}
    assert LiveSettings(Example, "", ENVIRON).told() == {"in_force": "", "refused": None}


def test_what_is_read_again_equals_what_a_start_reads(file: Path) -> None:
    made, dice = live(file), random.Random(18)  # noqa: S311
    for _ in range(200):
        lines = [
            f"LOG_LEVEL='{dice.choice(['DEBUG', 'INFO', 'ERROR', 'LOUD'])}'\n" if dice.random() < 0.7 else "",
            f"MOST='{dice.choice(['1', '99', '13', '0', 'x', ''])}'\n" if dice.random() < 0.7 else "",
            dice.choice(["", "", "", "# a note\n", "PORT='8'\n", "nonsense\n"]),
        ]
        dice.shuffle(lines)
        file.write_text("".join(lines))
        before = (made.settings, made.digest)
        problem = made.read_again()
        if not problem:
            started = live(file)
            assert (made.settings, made.digest, made.refused) == (started.settings, started.digest, None)
            continue
        assert (made.settings, made.digest) == before, "what was in force stays"
        assert made.refused == {"digest": digest_of(file.read_bytes()), "reason": problem}
        with pytest.raises(SettingsError) as refused:
            live(file)
        assert all(sentence in problem for sentence in refused.value.problems), lines


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"PORT='8'\n", "cannot change without a restart"),
        (b"LOG_LEVL='DEBUG'\n", "did you mean LOG_LEVEL?"),
        (b"LOG_LEVEL='LOUD'\n", "expected one of DEBUG"),
        (b"MOST='13'\n", "MOST is 13"),
        (b"\xff\n", "is not UTF-8"),
        (b"\xef\xbb\xbfMOST='1'\n", "byte order mark"),
    ],
)
def test_a_bad_file_changes_nothing_and_says_why(file: Path, content: bytes, cause: str) -> None:
    made = live(file)
    file.write_bytes(content)
    assert cause in made.read_again()
    assert made.settings.log_level == "WARNING"
    with pytest.raises(SettingsError):
        live(file)


def test_a_file_that_is_gone_changes_nothing(file: Path) -> None:
    made = live(file)
    file.unlink()
    assert "cannot be read" in made.read_again()
    assert made.refused is not None
    assert made.refused["digest"] == ""
    assert made.settings.log_level == "WARNING"
    with pytest.raises(SettingsError, match="cannot be read"):
        live(file)


def test_every_service_has_live_settings_and_none_of_them_is_secret() -> None:
    for cls in (GatewaySettings, HubSettings, ReconcilerSettings, ReviewSettings, StrategySettings):
        found = [field for field in fields(cls) if field.live and field.env]
        assert "log_level" in {field.name for field in found}
        assert not any(field.secret for field in found), "the file can be read by everyone on the host"
