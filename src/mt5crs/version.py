"""The version of the installed product; it is stated in pyproject.toml alone."""


def product_version() -> str:
    """Version of the installed wheel, `unknown` where the code runs without being installed."""
    # Takes a tenth of a service's start, and few ever ask.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mt5crs")
    except PackageNotFoundError:
        return "unknown"
