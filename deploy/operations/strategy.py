"""Part `strategy`: trades, bound to the reconciler of its host. Same outcome as `roles/strategy`."""

from deploy.operations.release import Service

strategy = Service("strategy", group="inf")
