"""A strategy's own bundle: made of wheels and files, checked against the core, taken by the release tool."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle import build, signing, strategy_bundle, strategy_definition, wheelhouse
from deploy.bundle.strategy_definition import Strategy
from deploy.bundle.wheelhouse import LINUX, Requirement, WheelError
from mt5crs_release.bundles.bundle import MANIFEST, SIGNATURE, this_python
from tests.release_host.host import FakeHost, specification

HERE = f"{this_python()[2]}.{this_python()[3:]}"
POINTS = "[mt5crs.strategies]\nmine = mine:Mine\n"


def wheel(
    directory: Path,
    name: str = "mine",
    version: str = "1.0",
    tag: str = "py3-none-any",
    needs: str = "",
    code: str = "",
) -> Path:
    """A wheel that pip installs: one module, metadata, record."""
    directory.mkdir(parents=True, exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {needs}\n" if needs else ""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code or f"VERSION = {version!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{info}/RECORD": "",
    }
    if name == "mine":
        files[f"{info}/entry_points.txt"] = POINTS
    path = directory / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(zipfile.ZipInfo(inside), text)
    return path


class Workshop:
    """A project that strategies are built in: a core of two distributions, a key, an output directory."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.out = directory / "dist"
        self.key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        monkeypatch.setenv("MT5CRS_SIGNING_KEY", str(self.key))
        monkeypatch.setattr(
            strategy_bundle, "core_versions", lambda _: {"mt5crs": "0.1.0", "msgspec": "0.21.0"}
        )
        (directory / "model.json").write_text('{"weights": [1]}')

    def define(self, text: str, name: str = "mine") -> Strategy:
        (self.directory / f"{name}.yml").write_text(text)
        return strategy_definition.read(name, self.directory)

    def build(self, text: str) -> dict[str, Any]:
        return strategy_bundle.build(self.define(text), self.out)

    def problem(self, text: str, name: str = "mine") -> str:
        with pytest.raises(WheelError) as error:
            strategy_bundle.build(self.define(text, name), self.out)
        return str(error.value)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


WHEEL_AND_MODEL = "wheels: [mine-1.0-py3-none-any.whl]\ndata: {model.json: model.json}\n"


def test_the_same_inputs_give_the_same_bytes_and_parts_have_digests_of_their_own(workshop: Workshop) -> None:
    wheel(workshop.directory)
    first = workshop.build(WHEEL_AND_MODEL)
    bytes_of = (workshop.out / "strategies" / first["file"]).read_bytes()
    assert workshop.build(WHEEL_AND_MODEL) == first
    assert (workshop.out / "strategies" / first["file"]).read_bytes() == bytes_of
    assert (first["strategies"], first["unlocked"]) == (["mine"], [])
    (workshop.directory / "model.json").write_text('{"weights": [2]}')
    second = workshop.build(WHEEL_AND_MODEL)
    assert second["code"] == first["code"]
    assert second["data"] != first["data"]
    pinned = workshop.out / "strategies" / f"{first['file'][len('strategy-') : -len('.tar')]}.json"
    assert json.loads(pinned.read_text()) == first


def declaring(options: str) -> str:
    """A module whose code must not run, with a class that declares these options."""
    return (
        "raise SystemExit('foreign code was run')\n"
        "class Base(Strategy):\n"
        f"    known_options: ClassVar = {options}\n"
        "class Mine(Base):\n"
        "    pass\n"
    )


def test_declared_options_are_read_from_the_source_and_kept_beside_the_bundle(workshop: Workshop) -> None:
    options = "{'level': Option('number', 'Price.', gt=0), 'hold_s': api.Option('integer', 'Time.', 5, le=9)}"
    wheel(workshop.directory, code=declaring(options))
    document = workshop.build(WHEEL_AND_MODEL)
    wanted = {
        "level": {"kind": "number", "description": "Price.", "gt": 0.0},
        "hold_s": {"kind": "integer", "description": "Time.", "default": 5, "le": 9.0},
    }
    assert document["options"] == {"mine": wanted, "mine:Mine": wanted}
    assert document["options_unread"] == {}
    with tarfile.open(workshop.out / "strategies" / document["file"]) as bundle:
        manifest = bundle.extractfile(MANIFEST)
        assert manifest is not None
        assert json.load(manifest)["options"] == document["options"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (declaring("made()"), "no dictionary that is written out"),
        (declaring("{NAME: Option('number', 'x')}"), "a key that is not written out"),
        (declaring("{'x': made('number', 'x')}"), "option x of mine:Mine is no Option(…)"),
        (declaring("{'x': Option('number', 'x', default=DEFAULT)}"), "a value that is not written out"),
        ("from other import Mine\n", "class Mine is not written in mine itself"),
    ],
)
def test_options_that_only_running_would_tell_are_said_to_be_unread(
    workshop: Workshop, code: str, why: str
) -> None:
    wheel(workshop.directory, code=code)
    document = workshop.build(WHEEL_AND_MODEL)
    assert document["options"] == {}
    assert why in document["options_unread"]["mine"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("{'x': Option('price', 'x')}", "Invalid enum value 'price'"),
        ("{'x': Option('number', 'x', least=1)}", "unknown field `least`"),
        ("{'x': Option('number', 'x', 1, 2)}", "only kind, description, default go without their name"),
        ("{'x': Option('number', 'x', default=0, gt=0)}", "the default of option x is 0"),
        ("{'x': Option('number', 'x', max_length=1)}", "option x: "),
        ("{'x': Option('number')}", "missing required field `description`"),
    ],
)
def test_a_wrong_declaration_is_named_while_the_bundle_is_made(
    workshop: Workshop, options: str, says: str
) -> None:
    wheel(workshop.directory, code=declaring(options))
    problem = workshop.problem(WHEEL_AND_MODEL)
    assert says in problem
    assert "Correct" in problem


def test_a_source_tree_is_built_whatever_directory_one_is_in(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = workshop.directory / "mine"
    (tree / "mine").mkdir(parents=True)
    (tree / "mine/__init__.py").write_text("")
    example = (build.ROOT / "strategies/example_model/pyproject.toml").read_text()
    project = (
        example.replace("example-model", "mine").replace("example_model", "mine").replace("src/mine", "mine")
    )
    (tree / "pyproject.toml").write_text(project.replace('"numpy>=2"', ""))
    monkeypatch.chdir(workshop.directory)
    built = strategy_bundle.build(workshop.define("source: mine\npythons: ['3.12']\n"), Path("out"))
    assert (built["version"], built["strategies"], built["data"]) == ("1.0.0", ["mine"], None)
    assert (workshop.directory / "out/strategies" / built["file"]).is_file()


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ("", "neither source nor wheels nor data"),
        ("wheel: [x.whl]\n", "unknown field `wheel`"),
        ("wheels: [none-1.0-py3-none-any.whl]\n", "does not exist"),
        ("version: '1'\ndata: {'my model.json': model.json}\n", "'my model.json' may hold letters"),
        ("version: '1'\ndata: {../model.json: model.json}\n", "'../model.json' may hold letters"),
        ("data: {model.json: model.json}\n", "version is missing"),
        ("version: '1'\ndata: {model.json: model.json}\npythons: ['2.7']\n", "pythons 2.7; hosts have 3.10"),
        ("source: .\n", "has no pyproject.toml"),
        ("wheels: [\n", "expected"),
    ],
)
def test_a_bad_definition_is_one_error_with_the_remedy(
    workshop: Workshop, definition: str, says: str
) -> None:
    problem = workshop.problem(definition)
    assert says in problem
    assert "Correct it" in problem


@pytest.mark.parametrize("name", ["My", "a b", "../x", "", "ü", "a-b"])
def test_an_odd_name_is_refused(workshop: Workshop, name: str) -> None:
    with pytest.raises(WheelError, match="is no name of a strategy"):
        strategy_definition.read(name, workshop.directory)


def test_a_strategy_that_is_not_there_lists_what_is(workshop: Workshop) -> None:
    (workshop.directory / "other.yml").write_text("")
    with pytest.raises(WheelError, match=r"no strategies/mine\.yml \(there is: other\)"):
        strategy_definition.read("mine", workshop.directory)


def test_a_wheel_for_other_hosts_is_named(workshop: Workshop) -> None:
    wheel(workshop.directory, tag="cp39-cp39-win_amd64")
    problem = workshop.problem("wheels: [mine-1.0-cp39-cp39-win_amd64.whl]\npythons: ['3.11']\n")
    assert "mine-1.0-cp39-cp39-win_amd64.whl is not for linux, Python 3.11" in problem


def test_what_is_no_wheel_is_named(workshop: Workshop) -> None:
    (workshop.directory / "mine-1.0-py3-none-any.whl").write_bytes(b"no zip")
    assert "is no wheel that pip would take" in workshop.problem("wheels: [mine-1.0-py3-none-any.whl]\n")


def test_what_a_wheel_needs_must_be_in_the_lock_or_the_core(workshop: Workshop) -> None:
    wheel(workshop.directory, needs="pandas>=2")
    assert "mine needs pandas>=2, which is not in the lock" in workshop.problem(WHEEL_AND_MODEL)
    wheel(workshop.directory, needs="msgspec>=99")
    assert "mine 1.0 needs msgspec>=99, there is 0.21.0" in workshop.problem(WHEEL_AND_MODEL)
    wheel(workshop.directory, needs="msgspec>=0.1")
    assert workshop.build(WHEEL_AND_MODEL)["code"]


def test_a_wheel_in_the_core_s_place_is_refused(workshop: Workshop) -> None:
    wheel(workshop.directory, name="msgspec", version="0.1")
    problem = workshop.problem("wheels: [msgspec-0.1-py3-none-any.whl]\n")
    assert "would replace the core's msgspec 0.21.0" in problem


def lock(workshop: Workshop, text: str) -> strategy_bundle.Needs:
    wheel(workshop.directory)
    (workshop.directory / "requirements.lock").write_text(text)
    strategy = workshop.define(WHEEL_AND_MODEL + "lock: requirements.lock\n")
    return strategy_bundle.needs_of(strategy, {"msgspec": "0.21.0"}, workshop.directory)


HASH = f" \\\n    --hash=sha256:{'0' * 64}\n"


def test_conflicts_with_the_core_are_named_and_the_same_version_is_left_to_it(workshop: Workshop) -> None:
    assert lock(workshop, f"msgspec==0.21.0{HASH}").pins == []
    with pytest.raises(
        WheelError, match=r"msgspec 0\.18\.0 of requirements\.lock against the core's 0\.21\.0"
    ):
        lock(workshop, f"msgspec==0.18.0{HASH}")


@pytest.mark.parametrize(
    "line", ["numpy==2.0", "numpy>=2", "git+https://example.com/x", "--index-url https://x"]
)
def test_a_line_without_a_hash_is_named(workshop: Workshop, line: str) -> None:
    with pytest.raises(WheelError, match=r"is no pin with a hash\. Make the lock anew"):
        lock(workshop, f"# comment\n{line}\n")


@pytest.mark.parametrize("line", ["-e ./lib", "-e lib", "--editable=./lib", "./lib", "file:///srv/lib"])
def test_a_folder_in_the_lock_marks_the_bundle(workshop: Workshop, line: str) -> None:
    needs = lock(workshop, f"{line}\nnumpy==2.0{HASH}")
    assert [tree.name for tree in needs.trees] == ["lib"]
    assert "whose content nothing pins" in needs.unlocked[0]
    assert [pin.name for pin in needs.pins] == ["numpy"]


# --- on a host ----------------------------------------------------------------------------------------------


class Shop(Workshop):
    """A workshop and a host that trusts its key; the core is a wheel called mt5crs, and pip."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(directory, monkeypatch)
        self.host = FakeHost.create(directory / "host")
        signers = self.host.root / "etc/mt5crs/allowed_signers"
        signers.write_text(signing.allowed_signers_line(signing.public_key(self.key)))
        self.bundles = self.host.base / "bundles"
        self.bundles.mkdir(parents=True)

    def core(self) -> Path:
        own = wheel(self.directory / "core", "mt5crs", "0.1.0")
        pip = wheelhouse.collect(
            [wheelhouse.locked_pip(build.ROOT)], LINUX, [HERE], build.ROOT / "dist/.cache"
        )
        ((name, path),) = pip.items()
        pin = Requirement("pip", name.split("-")[1], None, (wheelhouse.sha256(path),))
        origin = build.Origin("0123abcd", 1_700_000_000)
        wheels = {own.name: own, name: path}
        files, manifest = build.contents("0.1.0", origin, LINUX, [pin], own, wheels)
        files[MANIFEST] = build.canonical(manifest)
        files[SIGNATURE] = signing.sign(files[MANIFEST], self.key)
        target = self.bundles / "core.tar"
        target.write_bytes(build.pack(files, origin.built))
        return target

    def ship(self, text: str) -> dict[str, Any]:
        document = self.build(text)
        shutil.copy(self.out / "strategies" / document["file"], self.bundles)
        return {name: document[name] for name in ("name", "version", "file", "content", "code", "data")}

    def stage(self, extra: dict[str, Any], text: str = "one") -> tuple[int, dict[str, Any]]:
        spec = specification(text, code=True, extra_bundle=extra)
        return self.host.run("stage", "gateway", "--bundle", str(self.bundles / "core.tar"), spec=spec)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(tmp_path, monkeypatch)


def test_a_model_belongs_to_its_generation_and_code_is_shared(shop: Shop) -> None:
    shop.core()
    wheel(shop.directory)
    first = shop.ship(WHEEL_AND_MODEL)
    status, answer = shop.stage(first)
    assert status == 0, shop.host.last_output
    one = shop.host.service / "generations" / answer["generation"]
    model = one / "bundle-data/model.json"
    assert model.read_text() == '{"weights": [1]}'
    assert model.stat().st_mode & 0o777 == 0o444
    run = [str(one / "venv/bin/python"), "-c", "import mine, mt5crs; print(mine.VERSION)"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "1.0"
    assert answer["version"] == "0.1.0 + mine 1.0"
    assert shop.host.run("activate", "gateway", "--confirm-timeout", "0")[0] == 0

    (shop.directory / "model.json").write_text('{"weights": [2]}')
    status, answer = shop.stage(shop.ship(WHEEL_AND_MODEL))
    assert status == 0, shop.host.last_output
    two = shop.host.service / "generations" / answer["generation"]
    assert two != one
    assert (two / "venv").readlink() == (one / "venv").readlink()
    assert model.read_text() == '{"weights": [1]}'
    assert (two / "bundle-data/model.json").read_text() == '{"weights": [2]}'
    assert shop.host.run("activate", "gateway", "--confirm-timeout", "0")[0] == 0

    # What generations refer to stays, also the uploaded files; then by hand: it is seen.
    for path in shop.bundles.iterdir():
        os.utime(path, (0, 0))
    assert shop.host.run("prune")[1]["removed"] == {
        "generations": {"gateway": []},
        "runtimes": [],
        "bundles": [],
        "store": [],
    }
    assert shop.host.run("rollback", "gateway")[0] == 0
    assert (shop.host.service / "current/bundle-data/model.json").read_text() == '{"weights": [1]}'
    model.chmod(0o644)
    model.write_text("{}")
    assert shop.host.run("status", "gateway")[1]["services"]["gateway"]["intact"] is False


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("tampered", "differs from the signed manifest"),
        ("other", "expected was"),
        ("missing", "cannot be opened"),
        ("core", "is a core bundle, wanted is a strategy bundle"),
    ],
)
def test_a_bad_strategy_bundle_is_refused_and_nothing_is_staged(shop: Shop, fault: str, says: str) -> None:
    core = shop.core()
    extra = shop.ship("version: '1'\ndata: {model.json: model.json}\n")
    file = shop.bundles / extra["file"]
    if fault == "tampered":
        file.write_bytes(file.read_bytes().replace(b'{"weights": [1]}', b'{"weights": [9]}'))
    elif fault == "other":
        extra["content"] = hashlib.sha256(b"other").hexdigest()
    elif fault == "missing":
        file.unlink()
    else:
        shutil.copy(core, file)
    status, answer = shop.stage(extra)
    assert status == 2
    assert says in answer["error"]["message"], answer
    assert answer["error"]["remedy"]
    assert not list(shop.host.base.glob("gateway/generations/*"))
    assert not list(shop.host.base.glob("runtimes/*-data"))


def test_a_full_disk_is_one_error_and_leaves_nothing(shop: Shop) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    shop.core()
    (shop.directory / "model.json").write_bytes(os.urandom(400_000))
    extra = shop.ship("version: '1'\ndata: {model.json: model.json}\n")
    runtimes = shop.host.base / "runtimes"
    runtimes.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(runtimes)]
    if subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        status, answer = shop.stage(extra)
        assert (status, answer["changed"]) == (1, False)
        assert "No space left on device" in answer["error"]["message"]
        assert "free disk space" in answer["error"]["remedy"]
        assert [path.name for path in runtimes.iterdir()] == [".lock"]
    finally:
        subprocess.run(["umount", str(runtimes)], check=True)
    assert not list(shop.host.base.glob("gateway/generations/*"))


def test_a_strategy_s_bundle_is_no_core(shop: Shop) -> None:
    extra = shop.ship("version: '1'\ndata: {model.json: model.json}\n")
    spec = specification(code=True)
    status, answer = shop.host.run(
        "stage", "gateway", "--bundle", str(shop.bundles / extra["file"]), spec=spec
    )
    assert (status, "wanted is a core bundle" in answer["error"]["message"]) == (2, True)
