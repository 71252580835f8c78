"""What the images of Prometheus and Alertmanager have beyond the Debian part that all images share."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from images.services import CONFIGURATION, READY, SERVICES
from images.steps.debian import STATUS

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "prometheus": (
        "prometheus", "fonts-glyphicons-halflings", "libjs-bootstrap4", "libjs-d3", "libjs-jquery",
        "libjs-jquery-hotkeys", "libjs-eonasdan-bootstrap-datetimepicker", "libjs-moment", "libjs-mustache",
        "libjs-moment-timezone", "libjs-popper.js", "libjs-rickshaw",
    ),
    "prometheus-alertmanager": ("prometheus-alertmanager",),
}  # fmt: skip
"""By the package that is run: it, and what its pages are shown with. They need no library but glibc."""
_KEPT = tuple(
    f"usr/share/{name}" for name in ("prometheus", "javascript", "nodejs", "fonts", "fonts-glyphicons")
)


def lay_out(added: Path, described: Mapping[str, str], package: str, target: Path, ready: Path) -> None:
    """Put into `target` what the image of a package has of it, of those beside it, and of ours. OSError.

    added: a directory with each package, unpacked. described: what Debian says of them. ready: the health
    command of hosts.
    """
    for each in PACKAGES[package]:
        for name in (*_KEPT, f"usr/share/doc/{each}/copyright"):
            _copy(added / each / name, target / name)
        _write(target / STATUS / each, described[each])
    _copy(added / package / "usr/bin" / package, target / "usr/bin" / package)
    _write(target / READY.lstrip("/"), ready.read_text())
    (target / CONFIGURATION.lstrip("/")).mkdir(parents=True)
    for path in target.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)  # whatever the umask here
    for service in SERVICES:
        if service.package == package:
            (target / service.directory.lstrip("/")).mkdir(parents=True)
            (target / service.directory.lstrip("/")).chmod(0o750)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(0o644)
