"""Exit statuses of services and of the health command (the units' RestartPreventExitStatus relies on 78)."""

OK = 0
FAILED = 1
"""Failed for a reason that a restart may cure: systemd restarts the service."""
CONFIGURATION = 78
"""EX_CONFIG: the configuration is wrong; a restart cannot help."""
INCONCLUSIVE = 75
"""EX_TEMPFAIL: the health command cannot say yet (still starting)."""
