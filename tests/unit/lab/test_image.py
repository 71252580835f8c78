import shutil
from pathlib import Path

import pytest

from lab import image
from lab.errors import LabError
from lab.image import DEFINITION, Extra, build_argv, packages, reference
from lab.podman import Podman


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


def test_an_image_with_more_is_another_and_leaves_the_plain_one_as_it_is() -> None:
    extra = Extra("wine-", ("wine64",), ((Path("/var/cache/wine-1/opt/python"), "/opt/mt5crs-wine"),))
    argv = build_argv("13", DEFINITION, Path("/tmp/root.tar"), None, extra)
    assert "wine64" in next(each for each in argv if each.startswith("--include=")).split(",")
    hooks = [each.removeprefix("--customize-hook=") for each in argv if each.startswith("--customize-hook=")]
    assert hooks[-2:] == [
        'mkdir -p "$1/opt/mt5crs-wine"',
        "copy-in /var/cache/wine-1/opt/python /opt/mt5crs-wine",
    ]
    assert reference("13", extra).startswith(f"{image.REPOSITORY}:wine-debian13-")
    newer = Extra("wine-", extra.packages, ((Path("/var/cache/wine-2/opt/python"), "/opt/mt5crs-wine"),))
    assert len({reference("13"), reference("13", extra), reference("13", newer)}) == 3


def test_ubuntu_hosts_have_both_of_its_sections_and_need_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = build_argv("ubuntu24.04", DEFINITION, Path("/tmp/root.tar"), None)
    assert argv[-2:] == ["noble", "/tmp/root.tar"]
    assert "--components=main,universe" in argv
    assert not any(
        "--components" in each for each in build_argv("13", DEFINITION, Path("/tmp/root.tar"), None)
    )
    monkeypatch.setattr(image, "UBUNTU_KEYS", Path("/nowhere/keys.gpg"))
    with pytest.raises(
        LabError, match=r"/nowhere/keys\.gpg is not there: install the package ubuntu-keyring"
    ):
        image.build(Podman(("unused",)), "ubuntu24.04")
