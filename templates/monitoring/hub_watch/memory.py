"""What was told, kept over restarts."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path

from hub_watch.notice import Told
from hub_watch.verdict import VERDICTS


def load(path: Path) -> Told:
    """What was told last; nothing, if there is no file. ValueError: it cannot be read."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        told = Told(str(kept["verdict"]), float(kept["began"]), float(kept["at"]))
    except FileNotFoundError:
        return Told()
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(type(error).__name__) from None
    if told.verdict not in VERDICTS or not (math.isfinite(told.began) and math.isfinite(told.at)):
        raise ValueError("it holds what was never written")
    return told


def save(path: Path, told: Told) -> None:
    """Keep it, whole or not at all. OSError: it could not be."""
    beside = path.with_suffix(".new")
    with beside.open("w", encoding="utf-8") as file:
        json.dump(asdict(told), file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
