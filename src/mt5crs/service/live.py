"""Settings that change without a restart: a file of them beside the environment, read again when asked.

What is in force is always what a start with the same file would have: both are read by the same lines. A
file that cannot be used changes nothing, and it is said so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Generic

from mt5crs.service.endpoint import Endpoint
from mt5crs.service.metrics import Gauge
from mt5crs.settings.envfile import parse_bytes
from mt5crs.settings.schema import AnySettings, SettingsError, did_you_mean, fields, load

_SHORT = 12


def digest_of(content: bytes) -> str:
    """What names the content of such a file on `/health` and in the figures."""
    return hashlib.sha256(content).hexdigest()[:_SHORT]


class LiveSettings(Generic[AnySettings]):
    """The settings of a service, and which of its files they are from."""

    def __init__(self, cls: type[AnySettings], path: str, environ: Mapping[str, str]) -> None:
        """Read; path: the file, empty without one. SettingsError, as `load` or about the file."""
        self._cls = cls
        self._path = path
        self._environ = dict(environ)
        self.refused: dict[str, str] | None = None
        """The file that was not taken (`digest`, empty if it could not be read) and why (`reason`)."""
        self._figure: Gauge | None = None
        try:
            self.settings, self.digest = self._read()
        except OSError as error:
            raise SettingsError("settings", [_unreadable(path, error)]) from None

    def read_again(self) -> str:
        """Take the file as it is now; returns why it was not taken, empty if it was."""
        digest = ""
        try:
            content = self._content()
            digest = digest_of(content)
            taken = self._of(content)
        except OSError as error:
            return self.refuse(digest, _unreadable(self._path, error))
        except SettingsError as error:
            return self.refuse(digest, "; ".join(error.problems))
        self.refused = None  # first: who sees the new digest sees no refusal of before
        self.settings, self.digest = taken
        return ""

    def refuse(self, digest: str, reason: str) -> str:
        """Note why a file is not taken; returns that."""
        self.refused = {"digest": digest, "reason": reason}
        return reason

    def show_on(self, endpoint: Endpoint) -> None:
        """Say on `/health` and in the figures which file is in force, and which was refused."""
        registry = endpoint.tell("settings", self.told)
        self._figure = registry.gauge(
            "mt5crs_settings_in_force_info",
            "1, with the digest of the file of live settings in force.",
            ("digest",),
        )
        refused = registry.gauge(
            "mt5crs_settings_refused", "1 while the file of live settings is another one, which is refused."
        )
        refused.from_callable(lambda: float(self.refused is not None))
        self.show()

    def show(self) -> None:
        """Bring the figure up to date, if it is shown already."""
        if self._figure is not None:
            self._figure.replace({self.digest: 1.0})

    def told(self) -> dict[str, object]:
        """What `/health` says: digest of the file in force (empty: there is none), and what was refused."""
        return {"in_force": self.digest, "refused": self.refused}

    def _read(self) -> tuple[AnySettings, str]:
        return self._of(self._content()) if self._path else (load(self._cls, self._environ), "")

    def _content(self) -> bytes:
        with open(self._path, "rb") as file:  # noqa: PTH123 - services load no pathlib for it
            return file.read()

    def _of(self, content: bytes) -> tuple[AnySettings, str]:
        values = parse_bytes(content, self._path)
        known = [field.env for field in fields(self._cls) if field.live and field.env is not None]
        others = [
            f"{name} in {self._path} cannot change without a restart{did_you_mean(name, known)}"
            for name in values
            if name not in known
        ]
        if others:
            raise SettingsError(self._path, others)
        return load(self._cls, {**self._environ, **values}), digest_of(content)


def _unreadable(path: str, error: OSError) -> str:
    return f"{path} cannot be read ({error.strerror}); deploy again, or correct LIVE_SETTINGS_FILE"
