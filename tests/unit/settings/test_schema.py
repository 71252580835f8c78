"""One declaration, read from the environment, from .env, and shown without secrets."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.fleet.settings import PARTS, structs
from mt5crs.settings.envfile import load_env_text, parse, value_fits
from mt5crs.settings.schema import Settings, SettingsError, fields, load, setting, to_env

KEY = "ab" * 32


class Example(Settings, frozen=True, kw_only=True):
    part: ClassVar[str] = "example"
    port: Annotated[int, setting("A port.", ge=1, le=65535, env="EXAMPLE_PORT")]
    wait_s: Annotated[float, setting("A time.", gt=0, le=60)] = 3.0
    backend: Annotated[Literal["sim", "mt5"], setting("A choice.")] = "sim"
    loud: Annotated[bool, setting("A switch.")] = False
    options: Annotated[dict[str, int], setting("Options.")] = msgspec.field(default_factory=dict)
    key: Annotated[str, setting("A key.", kind="curve_secret_key")] = KEY

    def problems(self) -> list[str]:
        return ["WAIT_S is above 50 while LOUD is set"] if self.loud and self.wait_s > 50 else []


def test_defaults_and_conversion() -> None:
    made = load(Example, {"EXAMPLE_PORT": "5555", "LOUD": "true", "OPTIONS": '{"a": 1}', "HOME": "/root"})
    assert (made.port, made.wait_s, made.loud, made.options) == (5555, 3.0, True, {"a": 1})


def test_every_error_in_one_message() -> None:
    with pytest.raises(SettingsError) as caught:
        load(Example, {"WAIT_S": "soon", "BACKEND": "mt4", "LOUD": "perhaps", "OPTIONS": "{"})
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    for expected in (
        "EXAMPLE_PORT is missing",
        "WAIT_S is 'soon', expected a number above 0 to 60",
        "BACKEND is 'mt4', expected one of sim, mt5",
        "LOUD is 'perhaps', expected true or false",
        "OPTIONS is '{', expected a mapping",
    ):
        assert expected in problems


@pytest.mark.parametrize("port", ["0", "65536", "5555.5", "-1", "0x10", "\u0661"])
def test_a_port_out_of_range_is_refused(port: str) -> None:
    with pytest.raises(SettingsError, match="a whole number from 1 to 65535"):
        load(Example, {"EXAMPLE_PORT": port})


def test_what_does_not_fit_together_is_said_once_each_is_good() -> None:
    with pytest.raises(SettingsError, match="above 50"):
        load(Example, {"EXAMPLE_PORT": "1", "LOUD": "true", "WAIT_S": "55"})


def test_an_empty_variable_is_unset_and_overrides_win() -> None:
    environ = {"EXAMPLE_PORT": "1", "WAIT_S": ""}
    assert load(Example, environ, overrides={"EXAMPLE_PORT": "2"}).port == 2
    assert load(Example, environ).wait_s == 3.0


def test_a_secret_is_never_shown() -> None:
    made = load(Example, {"EXAMPLE_PORT": "1", "KEY": "cd" * 32})
    assert "cd" * 32 not in repr(made) + str(made)
    with pytest.raises(SettingsError) as caught:
        load(Example, {"EXAMPLE_PORT": "1", "KEY": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert "64 hex" in str(caught.value)


def test_env_text_names_unknown_settings() -> None:
    with pytest.raises(SettingsError, match=r"EXAMPLE_PRT in \.env is unknown; did you mean EXAMPLE_PORT\?"):
        load_env_text(Example, "EXAMPLE_PORT='1'\nEXAMPLE_PRT='2'\n")


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("A=$(id)", 1),
        ('A="x"', 1),
        ("A='it''s'", 1),
        ("\nA='\\'", 2),
        ("export A=1", 1),
        ("a=1", 1),
        ("A =1", 1),
    ],
)
def test_other_grammar_is_refused_with_the_line(line: str, number: int) -> None:
    with pytest.raises(SettingsError, match=f"line {number}"):
        parse(line)


def test_a_bad_line_is_named_without_its_value() -> None:
    with pytest.raises(SettingsError) as caught:
        parse('SECRET="hunter2"')
    assert "SECRET" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="sets A a second time"):
        parse("A=1\nA=2")


@given(st.text(max_size=40).filter(value_fits))
def test_what_fits_comes_back(value: str) -> None:
    assert parse(f"# comment\n\nKEY='{value}'\n") == {"KEY": value}


@given(st.dictionaries(st.sampled_from("abc"), st.integers(), max_size=3), st.booleans(), st.floats(0.1, 60))
def test_to_env_and_load_are_inverse(options: dict[str, int], loud: bool, wait_s: float) -> None:
    environ = {
        "EXAMPLE_PORT": "1",
        "OPTIONS": to_env(options),
        "LOUD": to_env(loud),
        "WAIT_S": to_env(wait_s),
    }
    if loud and wait_s > 50:
        return
    made = load(Example, environ)
    assert (made.options, made.loud, made.wait_s) == (options, loud, wait_s)


def test_every_setting_of_the_product_is_described_and_its_default_is_good() -> None:
    seen: dict[str, Any] = {}
    for part in PARTS:
        for cls in structs(part):
            for field in fields(cls):
                assert field.description.endswith((".", ")")), f"{part}.{field.name}"
                if not field.required and field.default is not None:
                    msgspec.convert(msgspec.to_builtins(field.default), field.type)
                if field.variable is not None:
                    assert field.variable not in seen, field.variable
                    seen[field.variable] = cls
    assert len(seen) > 80


def test_services_start_without_the_deployments_libraries(tmp_path: Path) -> None:
    heavy = ("ansible", "pyinfra", "yaml", "jinja2")
    script = f"import sys, mt5crs.settings.gateway; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_a_secret_may_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    """As containers are given theirs; only a secret, and only one that nobody else can read."""
    secret = tmp_path / "key"
    secret.write_text(f"{'cd' * 32}\n")
    secret.chmod(0o600)
    given = {"EXAMPLE_PORT": "1", "KEY_FILE": str(secret)}
    assert load(Example, given).key == "cd" * 32
    # No secret, no file: what is named so is somebody else's variable.
    assert load(Example, {**given, "BACKEND_FILE": str(tmp_path / "missing")}).backend == "sim"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "key"
    secret.write_text("cd" * 32)
    secret.chmod(mode)
    with pytest.raises(SettingsError, match=f"mode {mode:04o}, so that others can read it; `chmod 0600`"):
        load(Example, {"EXAMPLE_PORT": "1", "KEY_FILE": str(secret)})


def test_a_secret_file_that_cannot_be_used_is_one_problem_among_the_others(tmp_path: Path) -> None:
    missing, wrong = tmp_path / "missing", tmp_path / "wrong"
    wrong.write_text("too-short")
    wrong.chmod(0o600)
    for path, said in ((missing, "cannot be read"), (wrong, "KEY is <hidden>")):
        with pytest.raises(SettingsError) as caught:
            load(Example, {"EXAMPLE_PORT": "0", "KEY_FILE": str(path)})
        assert len(caught.value.problems) == 2
        assert said in str(caught.value)
        assert "too-short" not in str(caught.value)
    with pytest.raises(SettingsError, match="KEY and KEY_FILE are both set; keep one of them"):
        load(Example, {"EXAMPLE_PORT": "1", "KEY": KEY, "KEY_FILE": str(wrong)})
