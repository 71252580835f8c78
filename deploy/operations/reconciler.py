"""Part `reconciler`: keeps an Inf host's picture of the broker true. Same outcome as `roles/reconciler`."""

from deploy.operations.release import Service

reconciler = Service("reconciler", group="inf")
