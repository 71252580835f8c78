"""What makes a host harder to misuse: modules, dumps, shells, the console, and kernel settings."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.baseline.plan import RENDERED
from deploy.fleet.inventory import Fleet
from deploy.fleet.rendering import render

FOR_GOOD = ("kernel.unprivileged_bpf_disabled", "kernel.modules_disabled", "kernel.kexec_load_disabled")
"""Kernel settings that nothing but a reboot takes back, so no revert could."""


def rendered(fleet: Fleet, path: str, **changes: Any) -> str:
    return render(f"baseline/{RENDERED[path]}", {**fleet.hosts["gtw-01"], **changes})


def kernel(fleet: Fleet, **changes: Any) -> dict[str, str]:
    """Kernel setting, with its leading `-`, → value."""
    text = render("baseline/sysctl.conf.j2", {**fleet.hosts["gtw-01"], **changes})
    lines = [line.partition(" = ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in lines}


def test_a_refused_module_is_loaded_neither_by_need_nor_by_name(fleet: Fleet) -> None:
    path = "/etc/modprobe.d/50-mt5crs.conf"
    said = rendered(fleet, path, baseline_kernel_modules_refused=["sctp"]).splitlines()
    assert said[1:] == ["blacklist sctp", "install sctp /bin/false"]
    assert len(rendered(fleet, path, baseline_kernel_modules_refused=[]).splitlines()) == 1


def test_the_machine_beneath_a_container_keeps_its_own_kernel_settings(fleet: Fleet) -> None:
    inside, whole = (kernel(fleet, baseline_sysctl_strict=strict) for strict in (False, True))
    assert {name.lstrip("-").partition(".")[0] for name in inside} == {"net"}
    assert all(name.startswith("-") for name in inside)
    assert {"kernel.kptr_restrict", "fs.suid_dumpable", "-kernel.yama.ptrace_scope"} <= whole.keys()
    assert {name.lstrip("-") for name in inside} <= {name.lstrip("-") for name in whole}


def test_every_kernel_setting_can_be_taken_back(fleet: Fleet) -> None:
    whole = kernel(fleet, baseline_sysctl_strict=True)
    assert not set(FOR_GOOD) & {name.lstrip("-") for name in whole}
    assert whole["-kernel.yama.ptrace_scope"] != "3"


def test_one_s_own_kernel_setting_comes_before_ours(fleet: Fleet) -> None:
    own = {"net.ipv4.conf.all.log_martians": "0"}
    assert kernel(fleet, baseline_sysctl=own)["-net.ipv4.conf.all.log_martians"] == "0"


@pytest.mark.parametrize(("seconds", "told"), [(900, "900 0 0"), (0, " 0 0")])
def test_an_idle_prompt_ends_and_scripts_know_nothing_of_it(
    fleet: Fleet, tmp_path: Path, seconds: int, told: str
) -> None:
    profile = tmp_path / "profile.sh"
    profile.write_text(rendered(fleet, "/etc/profile.d/50-mt5crs.sh", baseline_shell_idle_s=seconds))
    script = f'. {profile}; echo "$TMOUT $(ulimit -c) $(env | grep -c ^TMOUT=)"'
    for shell in ("/bin/sh", "/bin/bash"):
        done = subprocess.run(
            [shell, "-c", script], capture_output=True, text=True, timeout=10, check=True, env={}
        )
        assert (done.stdout.rstrip("\n"), done.stderr) == (told, ""), shell


def test_nobody_s_memory_is_dumped(fleet: Fleet) -> None:
    limits = rendered(fleet, "/etc/security/limits.d/50-mt5crs.conf").splitlines()[1:]
    assert limits == ["* hard core 0", "root hard core 0"]
    dumps = rendered(fleet, "/etc/systemd/coredump.conf.d/50-mt5crs.conf").splitlines()
    assert dumps[1:] == ["[Coredump]", "Storage=none", "ProcessSizeMax=0"]


def test_the_console_says_whose_system_it_is(fleet: Fleet) -> None:
    assert rendered(fleet, "/etc/issue") == rendered(fleet, "/etc/issue.net")
    assert rendered(fleet, "/etc/issue", baseline_banner="Keep out.") == "Keep out.\n"
    # sshd would send it before every answer, which both engines read.
    assert "Banner" not in render("baseline/sshd.conf.j2", fleet.hosts["gtw-01"])
