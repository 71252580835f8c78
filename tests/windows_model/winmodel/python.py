"""``python.exe`` of the modelled host: the release tool runs as on Windows, all else with the real Python."""
# mypy: disable-error-code="import-not-found,no-any-return"
# (the package is copied to the host and found there by PYTHONPATH)

from __future__ import annotations

import os
import sys

from winmodel import state


def main() -> int:
    """Run ``python.exe ARGUMENTS``."""
    arguments = [state.translate(word) for word in sys.argv[1:]]
    if not arguments or not arguments[0].endswith(".pyz"):
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606
    sys.path.insert(0, arguments[0])
    from winmodel.kernel import ModelKernel

    from mt5crs_release.bundles import bundle
    from mt5crs_release.systems import system
    from mt5crs_release.systems.windows import system as windows_system

    system.use(windows_system.Windows(ModelKernel(), str(state.local(windows_system.ROOT))))
    # Wheels cannot be modelled: the host takes the bundle for this machine's platform.
    assert bundle.this_platform() == "linux-x86_64"
    from mt5crs_release.cli.run import main as tool

    sys.argv = arguments
    # What the tool takes for its interpreter when it runs itself again.
    sys.executable = os.environ.get("WINMODEL_PYTHON", sys.executable)
    return tool(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
