"""Production phases: their profiles, and the signed records that put a magic number under one."""
