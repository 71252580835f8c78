"""Which images there are and what each of them runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

PYTHON = "/usr/bin/python3.13"
USER = 10001
"""Id of user and group in every image; volumes and secrets belong to it."""
STATE = "/var/lib/mt5crs"
SOCKETS = "/run/mt5crs-reconciler"
REPOSITORY = "localhost/mt5crs"
CONFIGURATION = "/etc/mt5crs"
"""Where a stack gives Prometheus its files."""
READY = "/usr/local/lib/mt5crs/ready.py"
"""The health command of monitoring, as hosts have it."""
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - of the container; compose.yml publishes it on loopback


@dataclass(frozen=True)
class Service:
    """One image.

    command, health: without a shell; health is the service's own, exit status 0 when it is healthy. volumes:
    what outlives a container, its own state first. ports: what it listens on. health_port: the setting of a
    stack that says where health is asked on this machine. package: the Debian package that it is; "": ours.
    """

    name: str
    about: str
    command: tuple[str, ...]
    health: tuple[str, ...]
    volumes: tuple[str, ...]
    ports: tuple[int, ...]
    health_port: str
    environment: dict[str, str] = field(default_factory=dict)
    package: str = ""

    @property
    def directory(self) -> str:
        """Where its own state is."""
        return self.volumes[0]

    @property
    def programs(self) -> tuple[str, ...]:
        """All the programs that its image has."""
        own = self.command[0].rpartition("/")[2] if self.package else "mt5crs"
        return (own, "python3", "python3.13")


def _ours(
    name: str, about: str, ports: tuple[int, ...], *shared: str, figures: str = "METRICS", **environment: str
) -> Service:
    """A service of the bundle. figures: begins the names of the settings of its page of figures."""
    return Service(
        name,
        about,
        command=(PYTHON, "-m", f"mt5crs.{name}"),
        health=(PYTHON, "-m", "mt5crs", "health", name),
        volumes=(f"{STATE}/{name}", *shared),
        ports=ports,
        health_port=f"MT5CRS_{name.upper()}_{'METRICS_' if figures == 'METRICS' else ''}PORT",
        environment={
            f"{figures}_ADDRESS": _EVERYWHERE,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
            "STATE_DIR": f"{STATE}/{name}",
            **environment,
        },
    )


def _debians(name: str, about: str, package: str, port: int, directory: str, *options: str) -> Service:
    """A service of Debian's, whose health is asked as on hosts."""
    return Service(
        name,
        about,
        command=(f"/usr/bin/{package}", *options, f"--web.listen-address={_EVERYWHERE}:{port}"),
        health=(PYTHON, "-I", READY, f"http://127.0.0.1:{port}/-/ready"),
        volumes=(directory,),
        ports=(port,),
        health_port=f"MT5CRS_{name.upper()}_PORT",
        package=package,
    )


SERVICES = (
    _ours("gateway", "gateway with the simulated broker", (5555, 5556, 9101), GATEWAY_BIND=_EVERYWHERE),
    _ours("reconciler", "reconciler", (9102,), SOCKETS),
    _ours("strategy", "strategy", (9103,), SOCKETS),
    _debians(
        "alertmanager",
        "Alertmanager of Debian",
        "prometheus-alertmanager",
        9093,
        "/var/lib/prometheus/alertmanager",
        # It may hold addresses of webhooks with tokens: a stack gives it as a secret.
        "--config.file=/run/secrets/alertmanager",
        "--storage.path=/var/lib/prometheus/alertmanager",
        "--cluster.listen-address=",
    ),
    _debians(
        "prometheus",
        "Prometheus of Debian",
        "prometheus",
        9090,
        "/var/lib/prometheus/metrics2",
        f"--config.file={CONFIGURATION}/prometheus.yml",
        f"--web.console.templates={CONFIGURATION}/consoles",
        "--storage.tsdb.path=/var/lib/prometheus/metrics2",
    ),
    _ours("hub", "Hub and its page", (8083,), figures="HTTP"),
)
"""In the order in which a stack starts them."""
TRADING = ("gateway", "reconciler", "strategy")
"""Each of them needs the one before."""


def named(name: str) -> Service:
    """Return the service of that name."""
    return next(each for each in SERVICES if each.name == name)


def reference(service: str, tag: str) -> str:
    """Return the full name of an image."""
    return f"{REPOSITORY}/{service}:{tag}"
