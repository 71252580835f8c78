"""Settings of the review's external reviewer, read from the environment (`REVIEW_…`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec

from mt5crs.settings.baseline import network_problem
from mt5crs.settings.schema import LiveSettingsFile, LogLevel, Settings, setting

Provider = Literal["anthropic", "openai", "gemini"]
Class = Literal["strong", "medium", "cheap"]


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model and its prices in US dollars for a million tokens."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    input_price: Annotated[float, msgspec.Meta(ge=0, le=100_000)]
    output_price: Annotated[float, msgspec.Meta(ge=0, le=100_000)]


class Reviewer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An endpoint and the model for each class of files."""

    provider: Provider
    endpoint: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?\Z")]
    strong: Model
    medium: Model
    cheap: Model


class ReviewSettings(Settings, frozen=True, kw_only=True):
    """Who is asked, how long, how often, and for how much."""

    part: ClassVar[str] = "review"

    reviewer: Annotated[
        Reviewer | None,
        setting(
            "The external reviewer: provider, endpoint, a model with prices per class.", env="REVIEW_REVIEWER"
        ),
    ] = None
    api_key: Annotated[str, setting("Key of the reviewer.", env="REVIEW_API_KEY", secret=True)] = ""
    fallback: Annotated[
        Reviewer | None, setting("Who is asked while the reviewer is down.", env="REVIEW_FALLBACK")
    ] = None
    fallback_api_key: Annotated[
        str, setting("Key of the fall-back.", env="REVIEW_FALLBACK_API_KEY", secret=True)
    ] = ""
    budget_day: Annotated[
        float, setting("US dollars that a day (UTC) may cost.", env="REVIEW_BUDGET_DAY", ge=0, le=100_000)
    ] = 20.0
    budget_review: Annotated[
        float, setting("US dollars that one review may cost.", env="REVIEW_BUDGET_REVIEW", ge=0, le=100_000)
    ] = 15.0
    timeout_s: Annotated[
        float, setting("Seconds that one call may take.", env="REVIEW_TIMEOUT_S", gt=0, le=600)
    ] = 120.0
    attempts: Annotated[
        int,
        setting(
            "Calls for one batch before the reviewer counts as down.", env="REVIEW_ATTEMPTS", ge=1, le=10
        ),
    ] = 3
    backoff_s: Annotated[
        float,
        setting("Seconds before the second attempt; doubled each time.", env="REVIEW_BACKOFF_S", ge=0, le=60),
    ] = 1.0
    calls_at_once: Annotated[
        int, setting("Calls that are under way together.", env="REVIEW_CALLS_AT_ONCE", ge=1, le=16)
    ] = 4
    batch_files: Annotated[int, setting("Files in one call.", env="REVIEW_BATCH_FILES", ge=1, le=20)] = 5
    batch_tokens: Annotated[
        int,
        setting("Tokens of files in one call, as estimated.", env="REVIEW_BATCH_TOKENS", ge=1000, le=500_000),
    ] = 24_000
    reply_tokens: Annotated[
        int, setting("Tokens that a reply may have.", env="REVIEW_REPLY_TOKENS", ge=256, le=64_000)
    ] = 4_000
    cache_ttl_h: Annotated[
        float, setting("Hours that an answer is used again.", env="REVIEW_CACHE_TTL_H", ge=0, le=8760)
    ] = 168.0
    cache_moved_ttl_h: Annotated[
        float,
        setting("The same for a file that changed its class.", env="REVIEW_CACHE_MOVED_TTL_H", ge=0, le=8760),
    ] = 24.0
    cache_mb: Annotated[
        float, setting("Megabytes that the cache may have.", env="REVIEW_CACHE_MB", ge=0, le=10_000)
    ] = 100.0
    optimiser: Annotated[
        bool, setting("Whether cache, batches and routes are used.", env="REVIEW_OPTIMISER")
    ] = True

    signing_key: Annotated[
        str,
        setting(
            "Key of verdicts for the Hub's service: ssh-keygen's file in base64; empty: it signs none.",
            env="REVIEW_SIGNING_KEY",
            secret=True,
            pattern=r"^[A-Za-z0-9+/]*={0,2}\Z",
        ),
    ] = ""
    submission_mb: Annotated[
        float,
        setting(
            "Megabytes that a submission to the Hub may have, unpacked.",
            env="REVIEW_SUBMISSION_MB",
            ge=1,
            le=1000,
        ),
    ] = 200.0
    keep_answers: Annotated[
        int, setting("Answers that the Hub keeps.", env="REVIEW_KEEP_ANSWERS", ge=1, le=10_000)
    ] = 200
    state_dir: Annotated[
        str,
        setting(
            "Directory of the Hub's queue, answers, cache and budget.",
            env="REVIEW_STATE_DIR",
            variable=False,
        ),
    ] = "/var/lib/mt5crs/review"
    metrics_address: Annotated[
        str,
        setting(
            "Address of the Hub's service for metrics and health.",
            env="REVIEW_METRICS_ADDRESS",
            kind="address",
        ),
    ] = "127.0.0.1"
    metrics_port: Annotated[
        int,
        setting("TCP port of it for metrics and health.", env="REVIEW_METRICS_PORT", ge=1, le=65535),
    ] = 9104
    log_level: Annotated[
        LogLevel,
        setting("Least severe level that the Hub's service logs.", env="REVIEW_LOG_LEVEL", live=True),
    ] = "INFO"
    live_settings_file: LiveSettingsFile = ""
    metrics_file: Annotated[
        str,
        setting(
            "Text file for the node exporter, written after each review; empty: none.",
            env="REVIEW_METRICS_FILE",
            variable=False,
            pattern=r"^(/.*\.prom)?\Z",
        ),
    ] = ""

    def problems(self) -> Iterable[str]:
        """Keys that would go over an open line."""
        for name, reviewer in (("REVIEW_REVIEWER", self.reviewer), ("REVIEW_FALLBACK", self.fallback)):
            if reviewer is None or reviewer.endpoint.startswith("https:") or loopback(reviewer.endpoint):
                continue
            yield f"{name} has an endpoint without TLS; expected https:// (http:// is for this machine only)"


class ReviewDeployment(Settings, frozen=True, kw_only=True):
    """What only the deployment of the Hub's service uses."""

    part: ClassVar[str] = "review"

    provider_networks: Annotated[
        list[str],
        setting(
            "Networks of the providers' endpoints, and of the name server if it is not on the host: the only "
            "ones that the Hub's service reaches.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=list)
    queue_most: Annotated[
        int, setting("Submissions that may wait on the Hub.", ge=1, le=1000, in_env=False)
    ] = 20

    def problems(self) -> Iterable[str]:
        """Networks that are no networks."""
        for network in self.provider_networks:
            if problem := network_problem(network):
                yield f"review_provider_networks has {network!r}: {problem}"


def loopback(endpoint: str) -> bool:
    """Whether an endpoint is on this machine, so that whoever answers is no provider."""
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
