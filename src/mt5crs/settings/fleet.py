"""Settings that concern every part of the fleet (variables `fleet_…`)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from mt5crs.settings.schema import Settings, setting


class FleetSettings(Settings, frozen=True, kw_only=True):
    """What several parts share."""

    part: ClassVar[str] = "fleet"

    environment: Annotated[
        str,
        setting(
            "Name of the environment, as in inventory/<environment>.yml.",
            pattern="^[a-z][a-z0-9_-]*$",
            in_env=False,
        ),
    ]
    address: Annotated[
        str, setting("Address under which the other hosts reach this one.", kind="address", in_env=False)
    ]
    client_public_keys: Annotated[
        dict[str, str],
        setting(
            "CURVE public key of every client, by client name.",
            in_env=False,
            create="python -m deploy.keys --inventory inventory/<environment>.yml",
        ),
    ] = msgspec.field(default_factory=dict)
