"""`.env` files as editors save them: read rightly, or refused with what is wrong and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mt5crs.probes.health import health
from mt5crs.service import exits
from mt5crs.settings.envfile import read
from mt5crs.settings.schema import SettingsError

TEXT = "# a comment\nSYMBOL='EURUSD'\nCLIENT_NAME='Zürich'\n"


def saved(directory: Path, content: bytes) -> Path:
    path = directory / ".env"
    path.write_bytes(content)
    return path


def test_the_ends_of_lines_may_be_those_of_windows(tmp_path: Path) -> None:
    expected = {"SYMBOL": "EURUSD", "CLIENT_NAME": "Zürich"}
    for text in (TEXT, TEXT.replace("\n", "\r\n")):
        assert read(saved(tmp_path, text.encode())) == expected


WRONG = [
    (TEXT.encode("utf-8-sig"), "byte order mark; save it as UTF-8 without one"),
    (TEXT.encode("utf-16"), "byte order mark; save it as UTF-8 without one"),
    (TEXT.encode("latin-1"), "line 3 is not UTF-8 (but Latin-1, perhaps); save the file as UTF-8"),
]


@pytest.mark.parametrize(("content", "says"), WRONG, ids=["bom", "utf-16", "latin-1"])
def test_other_encodings_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(SettingsError) as error:
        read(path)
    assert says in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [WRONG[0][0], WRONG[2][0], b"METRICS_PORT=many\n"])
def test_the_health_check_has_no_traceback_for_them(tmp_path: Path, content: bytes) -> None:
    ran = CliRunner().invoke(health, ["gateway", "--env-file", str(saved(tmp_path, content))])
    assert ran.exit_code == exits.CONFIGURATION
    assert ran.output.startswith("error: ")
