"""The checks of a go/no-go, by category."""

from deploy.preflight.check import Check
from deploy.preflight.checks import data, documents, operation, security, system

CHECKS: tuple[Check, ...] = (
    *security.CHECKS,
    *system.CHECKS,
    *data.CHECKS,
    *operation.CHECKS,
    *documents.CHECKS,
)
