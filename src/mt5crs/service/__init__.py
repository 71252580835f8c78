"""What every long-running program needs: logs, systemd notification, metrics, an HTTP end point, exit codes.

Kept free of heavy imports on purpose (no click, rich, structlog, http.server): a reconciler must be ready
within 300 ms of its start and live in 40 MB.
"""
