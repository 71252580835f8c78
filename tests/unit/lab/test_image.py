import shutil
from pathlib import Path

import pytest

from lab import image
from lab.image import DEFINITION, build_argv, packages, reference


def test_packages_are_read_without_comments_and_blank_lines() -> None:
    assert packages("# why\nsudo\n\n  systemd \n") == ["sudo", "systemd"]


def test_recipe_names_release_packages_and_mirror() -> None:
    argv = build_argv("12", DEFINITION, Path("/tmp/root.tar"), "http://mirror.example/debian")

    assert argv[-3:] == ["bookworm", "/tmp/root.tar", "http://mirror.example/debian"]
    included = next(argument for argument in argv if argument.startswith("--include="))
    assert {"openssh-server", "sudo", "systemd-sysv", "python3", "nftables", "chrony"} <= set(
        included.removeprefix("--include=").split(",")
    )


def test_image_name_changes_with_each_file_of_the_definition_and_with_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(DEFINITION, copy)
    committed = reference("13")
    monkeypatch.setattr(image, "DEFINITION", copy)

    assert reference("13") == committed
    seen = {committed, reference("12")}
    for file in sorted(copy.iterdir()):
        file.write_text(file.read_text().replace("e", "E", 1))
        seen.add(reference("13"))
    assert len(seen) == 2 + len(list(copy.iterdir()))
