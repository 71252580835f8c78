"""`python -m images`: make the images, start and stop the stack of compose.yml."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.bundle.archive import ROOT
from deploy.bundle.signing import SigningError
from deploy.controller.programs import MissingProgramError
from images import build, checks, containerfile, stack
from images.architecture import ARCHITECTURES
from images.errors import ImageError
from images.stack_files import DEFAULT_NAME
from lab.errors import LabError
from mt5crs.operate.report import exit_status, show
from mt5crs_release.errors import ReleaseError

_MIRROR = "LAB_DEBIAN_MIRROR"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m images", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "dist", help="where bundle and images are (default dist)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("build", help="make the images of the newest bundle")
    making.add_argument(
        "--mirror",
        default=os.environ.get(_MIRROR),
        help=f"Debian mirror (default ${_MIRROR}, else Debian's own)",
    )
    making.add_argument(
        "--architecture",
        choices=[*ARCHITECTURES],
        help="of the images (default: this machine's); another one's are tried by an emulator",
    )
    commands.add_parser("containerfile", help="write Containerfile anew")
    for command, about in (
        ("prepare", "write what compose.yml asks for, to start it with Docker"),
        ("up", "verify the images, start the stack of compose.yml, check what runs"),
        ("check", "check the stack that runs"),
        ("down", "stop the stack; its state stays"),
    ):
        each = commands.add_parser(command, help=about)
        each.add_argument("--name", default=DEFAULT_NAME, help=f"of the stack (default {DEFAULT_NAME})")
        if command == "down":
            each.add_argument("--volumes", action="store_true", help="forget its state, too")
    options = parser.parse_args(arguments)
    runners = {
        "build": _build,
        "containerfile": _containerfile,
        "prepare": _prepare,
        "up": _up,
        "check": _check,
        "down": _down,
    }
    try:
        return runners[options.command](options)
    except (ImageError, LabError, SigningError, MissingProgramError) as error:
        print(f"images: {error}", file=sys.stderr)
    except ReleaseError as error:
        print(f"images: {error.message}; {error.remedy}", file=sys.stderr)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = f"free some space in {options.out}" if full else "look at that file"
        print(
            f"images: {error.filename or options.out}: {error.strerror or error}; {remedy}, then try again",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print(
            "\nimages: interrupted; nothing half made was kept, and a stack goes on as it is", file=sys.stderr
        )
        return 130
    return 1


def _build(options: argparse.Namespace) -> int:
    began = time.monotonic()
    wanted = ARCHITECTURES[options.architecture] if options.architecture else None
    made = build.build(options.out.absolute(), ROOT, options.mirror, wanted)
    print("largest files of the images:")
    for size, name in made.largest:
        print(f"  {size / 1e6:6.1f} MB  {name}")
    for image in made.images:
        print(f"{image.reference}  sha256:{image.digest}  {image.compressed / 1e6:.1f} MB compressed")
    if made.tried:
        print(f"tried by an emulator: {', '.join(made.tried)}")
    size = made.archive.stat().st_size
    print(f"{made.archive}  {size / 1e6:.1f} MB, {time.monotonic() - began:.1f} s")
    return 0


def _containerfile(_: argparse.Namespace) -> int:
    containerfile.PATH.write_text(containerfile.containerfile())
    print(f"written: {containerfile.PATH}")
    return 0


def _prepare(options: argparse.Namespace) -> int:
    print(f"written: {stack.prepare_alone(options.name, options.out.absolute())}")
    return 0


def _up(options: argparse.Namespace) -> int:
    running = stack.up(options.name, options.out.absolute(), lambda line: print(line, flush=True))
    return _report(running)


def _check(options: argparse.Namespace) -> int:
    return _report(stack.attached(options.name))


def _down(options: argparse.Namespace) -> int:
    stack.down(options.name, forget=options.volumes)
    kept = "its state is gone" if options.volumes else "its state stays in volumes of podman"
    print(f"{options.name} stopped; {kept}")
    return 0


def _report(running: stack.Running) -> int:
    report = checks.check(running)
    show(report, as_json=False)
    return exit_status(report)
