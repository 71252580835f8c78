"""What this tool was built from; `deploy.bundle.zipapp_build` writes this module anew for every tool."""

VERSION = "unknown"
SOURCES = "not built"
"""Beginning of a digest of all modules: tools that say the same are the same."""
