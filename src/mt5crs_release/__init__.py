"""Host release tool: stages, activates, confirms and rolls back generations of a service.

Standard library only, Python 3.10 and newer. Shipped to hosts as the zipapp ``mt5crs-release``;
the controller imports :mod:`mt5crs_release.desired` so that both sides agree on what a desired generation is.
"""
