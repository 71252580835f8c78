"""Installing Debian packages while other programs, such as unattended-upgrades, hold apt's locks."""

from __future__ import annotations

LOCK_WAIT_S = 300
"""As `lock_timeout` in roles/baseline/tasks/packages.yml."""
WAITS = f"-o DPkg::Lock::Timeout={LOCK_WAIT_S}"
"""Option of apt-get: it waits for dpkg's locks and says who holds them; not for that of the package lists."""
_AGAIN_S = 2


def patient(install: str, wait_s: int = LOCK_WAIT_S) -> str:
    """Shell text: `install` (one simple command), if need be anew with fresh package lists.

    apt's own words are printed; they name the holder of a lock.
    """
    return f"""export LC_ALL=C
try() {{ said=$("$@" 2>&1); status=$?; printf '%s\\n' "$said" >&2; return $status; }}
locked() {{ case $said in *'E: Unable to lock'*|*'E: Unable to acquire'*) true;; *) false;; esac; }}
update() {{
  left={wait_s}
  until try apt-get update -q; do
    locked && [ $left -gt 0 ] || return 1
    sleep {_AGAIN_S}; left=$((left - {_AGAIN_S}))
  done
}}
install() {{ try env {install}; }}
install && exit 0
if ! locked; then update && install && exit 0; fi
if locked; then
  echo "another program, named above, has held apt's lock for {wait_s} s: let it end, then run again" >&2
fi
exit 1"""
