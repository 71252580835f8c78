"""All findings of a review as one SARIF 2.1.0 document, which code hosts and editors show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from mt5crs.review.model import Finding

_LEVELS: Final = {"P0": "error", "P1": "error", "P2": "warning", "P3": "note"}
_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def document(findings: Iterable[Finding], version: str) -> dict[str, Any]:
    """One run per program or reviewer that found something, so that each rule has its owner."""
    by_source: dict[str, list[Finding]] = {"rules": []}
    for finding in findings:
        by_source.setdefault(finding.source, []).append(finding)
    runs = [_run(source, found, version) for source, found in by_source.items()]
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": runs}


def _run(source: str, findings: list[Finding], version: str) -> dict[str, Any]:
    rules = {finding.rule: finding for finding in findings}
    return {
        "tool": {
            "driver": {
                "name": f"mt5crs review: {source}",
                "version": version,
                "rules": [
                    {"id": rule, "shortDescription": {"text": rules[rule].message}} for rule in sorted(rules)
                ],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding) for finding in findings],
    }


def _result(finding: Finding) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": finding.path}}
    if finding.line > 0:
        place["region"] = {"startLine": finding.line}
    return {
        "ruleId": finding.rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": finding.message},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"mt5crs/v1": finding.id},
        "properties": {"severity": finding.severity, "part": finding.part},
    }
