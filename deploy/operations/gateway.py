"""Part `gateway`: the ZeroMQ gateway beside the terminal. Same outcome as `roles/gateway`."""

from deploy.operations.release import Service

gateway = Service("gateway", group="gateway")
