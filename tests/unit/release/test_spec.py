"""Checking a specification: every problem at once, and never a value of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt5crs_release.desired.spec import parse_spec, read_spec
from mt5crs_release.errors import RefusedError, SpecError
from tests.release_host.host import specification


def problems(**changes: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(specification(**changes))
    return caught.value.problems


def test_valid_specification_is_read() -> None:
    spec = read_spec(json.dumps(specification("text")))
    assert spec.files[".env"].mode == 0o600
    assert spec.start == ("mt5crs-gateway.service",)
    assert spec.health.progress_deadline_s == 15.0


def test_all_problems_are_reported_together() -> None:
    document = specification(service="No/pe", code="yes", start=[], state_format=0, surprise=1)
    document["files"] = {"../up": {"mode": "600", "owner": "root", "group": "root", "content": 5}}
    with pytest.raises(SpecError) as caught:
        parse_spec(document)
    text = caught.value.message
    for part in ("'surprise'", "service", "code", "start", "state_format", "../up", ".mode", ".content"):
        assert part in text


@pytest.mark.parametrize("key", sorted(specification()))
def test_each_key_is_required(key: str) -> None:
    document = specification()
    del document[key]
    with pytest.raises(SpecError, match=f"lacks the key '{key}'"):
        parse_spec(document)


@pytest.mark.parametrize(
    "path", ["/etc/x", "a/../b", "./a", "a//b", "units/x", "venv", "bundle-data", "manifest.json", "a\\b", ""]
)
def test_paths_that_leave_the_generation_or_clash_are_refused(path: str) -> None:
    files = {path: {"mode": "0644", "owner": "root", "group": "root", "content": ""}}
    assert problems(files=files)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"file": "../x.tar"}, "extra_bundle.file must be the name of a .tar file"),
        ({"content": "abc"}, "extra_bundle.content must be a SHA-256"),
        ({"code": 7}, "extra_bundle.code must be a SHA-256"),
        ({"path": "x"}, "extra_bundle has the unknown key 'path'"),
    ],
)
def test_a_second_bundle_is_checked(changes: dict[str, Any], problem: str) -> None:
    extra = {
        "name": "m",
        "version": "1",
        "file": "m.tar",
        "content": "a" * 64,
        "code": None,
        "data": "b" * 64,
    }
    assert parse_spec(specification(code=True, extra_bundle=extra)).extra is not None
    assert "extra_bundle needs code: true" in problems(extra_bundle=extra)
    assert any(text.startswith(problem) for text in problems(code=True, extra_bundle={**extra, **changes}))


@pytest.mark.parametrize(
    "unit", ["x.txt", "../x.service", "a/b.service", "x.service.d/../y.conf", "x.service.d/y"]
)
def test_unit_names_that_leave_the_directory_are_refused(unit: str) -> None:
    assert problems(units={unit: ""})


def test_env_must_be_private() -> None:
    files = {".env": {"mode": "0644", "owner": "root", "group": "root", "content": ""}}
    assert problems(files=files) == ["files['.env'] must have mode 0600 and owner root: it holds secrets"]


def test_deadlines_must_rise() -> None:
    health = {
        **specification()["health"],
        "min_healthy_s": 9,
        "healthy_deadline_s": 5,
        "progress_deadline_s": 5,
    }
    assert problems(health=health) == [
        "health.min_healthy_s must be less than health.healthy_deadline_s",
        "health.healthy_deadline_s must be less than health.progress_deadline_s",
    ]


@pytest.mark.parametrize("text", ['{"a": "canary"', '{"a": 1, "a": "canary"}', "[" * 100000])
def test_what_is_not_json_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(RefusedError) as caught:
        read_spec(text)
    assert "canary" not in f"{caught.value.message}{caught.value.remedy}"
    assert caught.value.__cause__ is None


KEYS = [*sorted(specification()), "unknown"]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.just("canary"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*specification(), "x"]), inner)
    ),
    max_leaves=12,
)


@given(document=values, key=st.sampled_from(sorted(specification())))
def test_any_document_is_judged_without_a_crash_and_without_showing_values(document: Any, key: str) -> None:
    for candidate in (document, specification(**{key: document})):
        found: list[str] | None = None
        try:
            parse_spec(candidate)
        except SpecError as error:
            found = error.problems
        assert found is None or (found and "canary" not in str(found))
