"""The data files of a strategy's bundle, as its class gets at them."""

from pathlib import Path

import pytest

from mt5crs.settings.schema import SettingsError
from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy import loading
from mt5crs.strategy.api import Strategy


class Reader(Strategy):
    def __init__(self, options: dict[str, str]) -> None:
        super().__init__(options)
        self.text = self.data_file(options["model"]).read_text()


def settings(directory: Path, model: str) -> StrategySettings:
    return StrategySettings(
        gateway_host="127.0.0.1",
        gateway_public_key="0" * 64,
        client_name="x",
        client_secret_key="0" * 64,
        magic_number=1,
        expected_account_login=1,
        strategy="mine",
        strategy_options={"model": model},
        data_dir=str(directory),
    )


def test_a_file_is_found_where_it_was_when_the_process_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_strategy", lambda _: type("Mine", (Reader,), {}))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text(name)
    (tmp_path / "current").symlink_to("one")
    made = loading.make_strategy(settings(tmp_path / "current", "model.json"))
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("two")
    assert made.data_file("model.json").read_text() == "one"
    with pytest.raises(SettingsError, match=r"no data file 'other.json' .*there is: model.json"):
        loading.make_strategy(settings(tmp_path / "current", "other.json"))


def test_without_a_bundle_files_are_looked_for_in_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"there is: none.*name it under `data`"):
        Reader({"model": "model.json"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data/model.json").write_text("mine")
    assert Reader({"model": "model.json"}).text == "mine"
