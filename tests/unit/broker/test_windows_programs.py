"""Windows programs under Wine are found on the host, and so are their files."""

from __future__ import annotations

from pathlib import Path

from mt5crs.broker.windows_programs import on_this_host, programs


def test_a_windows_path_is_found_whatever_its_case(tmp_path: Path) -> None:
    drive = tmp_path / "drive_c"
    (drive / "Terminals/Broker").mkdir(parents=True)
    (drive / "Terminals/Broker/terminal64.exe").touch()
    (tmp_path / "dosdevices").mkdir()
    (tmp_path / "dosdevices/c:").symlink_to("../drive_c")
    found = on_this_host("C:/terminals/broker/Terminal64.EXE", tmp_path)
    assert found.is_file()
    assert not on_this_host("C:/terminals/other/terminal64.exe", tmp_path).is_file()
    assert not on_this_host("D:/terminal64.exe", tmp_path).is_file()
    assert on_this_host("C:/x", None) == Path("C:/x")


def test_programs_of_windows_are_seen_with_user_and_prefix(tmp_path: Path) -> None:
    for pid, words in (("7", b"C:\\x\\terminal64.exe\0/portable\0"), ("8", b"/usr/bin/python3\0-m\0x\0")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(words)
        (tmp_path / pid / "environ").write_bytes(b"A=1\0WINEPREFIX=/p\0")
    (found,) = programs(tmp_path)
    assert (found.pid, found.prefix, found.words) == (7, "/p", ("C:\\x\\terminal64.exe", "/portable"))
    assert found.is_terminal()
    assert found.user == tmp_path.owner()
