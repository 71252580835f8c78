"""What a generation changes is told by name, and no value is ever told."""

import json
from pathlib import Path

from mt5crs_release.lifecycle import changes


def generation(path: Path, runtime: str, **files: str) -> Path:
    path.mkdir()
    named = {name.replace("_", "."): content for name, content in files.items()}
    for name, content in named.items():
        (path / name).write_text(content)
    digests = {name: {"sha256": content} for name, content in named.items()}
    (path / "manifest.json").write_text(json.dumps({"runtime": runtime, "files": digests}))
    return path


def test_settings_by_key_other_files_by_name_and_the_code(tmp_path: Path) -> None:
    old = generation(
        tmp_path / "1", "a", x_env="# A=1\nA=1\nKEY=s3cret\nGONE=1\n", unit_service="one", same="s"
    )
    new = generation(
        tmp_path / "2", "b", x_env="# A=2\nA=1\nKEY=0ther\nNEW=1\n", unit_service="two", same="s"
    )
    assert changes.between(old, new) == ["code", "unit.service", "x.env GONE", "x.env KEY", "x.env NEW"]


def test_a_comment_names_its_file_and_the_same_names_nothing(tmp_path: Path) -> None:
    old = generation(tmp_path / "1", "a", x_env="A=1\n")
    assert changes.between(old, generation(tmp_path / "2", "a", x_env="#\nA=1\n")) == ["x.env"]
    assert changes.between(old, old) == []


def test_the_first_generation_and_a_damaged_one_tell_nothing(tmp_path: Path) -> None:
    new = generation(tmp_path / "2", "a", x_env="A=1\n")
    assert changes.between(None, new) == []
    assert changes.between(tmp_path / "gone", new) == []
