"""Bundles and what is built of them: verified first, then unpacked and made into runtimes."""
