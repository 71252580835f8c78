"""Facts in, plan out: what baseline would do on a host."""

from dataclasses import replace

import pytest

from deploy.baseline import plan as baseline
from deploy.baseline.host_files import ManagedFile
from deploy.baseline.plan import (
    ACCOUNT,
    DIRECTORIES,
    ENABLED_UNITS,
    NOTICED_BY,
    Observed,
    Plan,
    observed,
    plan,
    system_problem,
)

FILES = [ManagedFile(path, b"as wanted\n") for path in NOTICED_BY]
PACKAGES = ("chrony", "nftables")
GOOD = Observed(
    system="debian 13",
    packages=frozenset(PACKAGES),
    account=ACCOUNT,
    enabled=frozenset(ENABLED_UNITS),
    seen={item.path: item.seen_as for item in (*DIRECTORIES, *FILES)},
    release_units=True,
)


@pytest.mark.parametrize(
    ("system", "packages", "words"),
    [
        ("debian 12", PACKAGES, ""),
        ("debian 13", (*PACKAGES, "wine64"), ""),
        ("debian 12", (*PACKAGES, "wine64"), "supported with Wine (wine64, gateway_platform): debian 13."),
        ("ubuntu 24.04", (*PACKAGES, "wine64"), "runs ubuntu 24.04"),
        ("alpine 3", PACKAGES, "supported: debian 12, debian 13, ubuntu 22.04, ubuntu 24.04."),
        ("", PACKAGES, "runs an unknown system"),
    ],
)
def test_a_system_that_cannot_be_in_the_fleet_is_refused(
    system: str, packages: tuple[str, ...], words: str
) -> None:
    problem = system_problem(system, packages)
    assert words in problem
    assert bool(problem) == bool(words)


def test_nothing_to_do_when_all_is_as_wanted() -> None:
    assert plan(FILES, PACKAGES, GOOD) == Plan()


def test_everything_to_do_on_a_bare_host() -> None:
    todo = plan(FILES, PACKAGES, Observed(system="debian 13"))
    assert todo == Plan(
        directories=tuple(item.path for item in DIRECTORIES),
        files=tuple(item.path for item in FILES),
        packages=PACKAGES,
        account=True,
        enable=ENABLED_UNITS,
        reactions=("journald", "chrony"),
        release_units=True,
    )


@pytest.mark.parametrize(("path", "notice"), NOTICED_BY.items())
def test_a_changed_file_is_replaced_and_taken_notice_of(path: str, notice: str) -> None:
    todo = plan(FILES, PACKAGES, replace(GOOD, seen={**GOOD.seen, path: "file:644:root:root:other"}))
    assert todo.files == (path,)
    assert todo.reactions == (notice,)


@pytest.mark.parametrize(
    "seen", ["file:666:root:root:", "file:644:ops:root:", "other", "directory:644:root:root:"]
)
def test_wrong_rights_owner_or_kind_count(seen: str) -> None:
    path = FILES[0].path
    todo = plan(FILES, PACKAGES, replace(GOOD, seen={**GOOD.seen, path: seen}))
    assert todo.files == (path,)


def test_what_runs_otherwise_than_configured_is_put_right() -> None:
    todo = plan(FILES, PACKAGES, replace(GOOD, stale=frozenset({"baseline", "chrony"})))
    assert todo == Plan(reactions=("baseline", "chrony"))


def test_a_new_release_tool_installs_its_units_although_the_old_one_missed_none() -> None:
    tool = ManagedFile(baseline.RELEASE_PROGRAM, b"new", mode="0755")
    todo = plan(
        [*FILES, tool], PACKAGES, replace(GOOD, seen={**GOOD.seen, tool.path: "file:755:root:root:old"})
    )
    assert (todo.files, todo.release_units) == ((tool.path,), True)


def test_the_host_s_answer_is_read() -> None:
    assert observed(
        [
            "system ubuntu 24.04",
            "package installed chrony",
            "package config-files nftables",
            "account mt5crs:/var/lib/mt5crs:/usr/sbin/nologin",
            "group mt5crs",
            "enabled chrony.service",
            "seen 41ed:root:root /etc/mt5crs",
            "seen 81a4:root:root /etc/mt5crs/allowed_signers",
            "seen a1ff:root:root /etc/default/chrony",
            "digest 00ff  /etc/mt5crs/allowed_signers",
            "stale baseline",
            'units {"changed": false, "units": []}',
        ]
    ) == Observed(
        system="ubuntu 24.04",
        packages=frozenset({"chrony"}),
        account=ACCOUNT,
        enabled=frozenset({"chrony.service"}),
        seen={
            "/etc/mt5crs": "directory:755:root:root:",
            "/etc/mt5crs/allowed_signers": "file:644:root:root:00ff",
            "/etc/default/chrony": "other",
        },
        stale=frozenset({"baseline"}),
        release_units=True,
    )
