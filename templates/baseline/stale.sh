# Prints one word for each thing that runs otherwise than its configuration says (run as root, changes nothing):
# baseline (firewall, sshd or kernel settings), journald, chrony. Prints nothing when all is as configured.
set -u
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

nanoseconds() { { [ -n "$1" ] && date -d "$1" +%s%N 2>/dev/null; } || echo 0; }

started_before_change() { # unit, files: a unit that does not run is stale as well
    systemctl is-active --quiet "$1" || return 0
    started=$(nanoseconds "$(systemctl show --timestamp=us+utc -p ActiveEnterTimestamp --value "$1")")
    shift
    for file in "$@"; do
        [ "$(nanoseconds "$(stat -c %y "$file" 2>/dev/null)")" -le "$started" ] || return 0
    done
    return 1
}

in_force=/opt/mt5crs/baseline/current/in_force.sh
if [ -e "$in_force" ] && ! sh "$in_force" check >/dev/null 2>&1; then echo baseline; fi
if started_before_change systemd-journald.service /etc/systemd/journald.conf.d/50-mt5crs.conf; then echo journald; fi
if started_before_change chrony.service /etc/chrony/chrony.conf /etc/default/chrony; then echo chrony; fi
