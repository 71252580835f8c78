"""The beginning of a stand-in for ssh: a program that is told what would be run there, and answers for it."""

from deploy.remote.ssh import BEGINS

SSH = rf"""#!/bin/sh
for word in "$@"; do case $word in 10.9.9.*) host=$word;; esac; line=$word; done
command=$(echo "$line" | sed 's/.*echo \([A-Za-z0-9+/=]*\) .*/\1/' | base64 -d | sed 1d)
echo '{BEGINS}'
"""
"""The script goes on with `$host` (its address) and `$command` (a line of sh)."""
