"""The review gate: what changed is judged by rules here, and by a reviewer elsewhere; the verdict is signed.

It runs on the controller, in CI and on a laptop. Its programs (ruff, mypy and others) are on no host.
"""
