"""What this tool was built from; `deploy.zipapp_build` writes this module anew into every tool it builds."""

VERSION = "unknown"
SOURCES = "not built"
"""Beginning of a digest of all modules: tools that say the same are the same."""
