#!/bin/sh
# Puts a new firewall and sshd configuration into force so that a mistake cannot lock anyone out.
#   mt5crs-access apply SECONDS  check both, keep the old ones, use the new ones, put the old ones back after SECONDS
#   mt5crs-access confirm        keep the new ones: called over a new connection, which proves that one gets in
#   mt5crs-access restore        put the old ones back now (what the timer calls)
# Wanted configuration: /etc/mt5crs/nftables.conf and /etc/mt5crs/sshd.conf. Exit status 0 done, 1 failed
# (the old configuration is in force), 2 wrong use. Managed by the deployment.
set -u
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

rules=/etc/mt5crs/nftables.conf
rules_at_boot=/etc/nftables.conf
sshd=/etc/mt5crs/sshd.conf
sshd_in_force=/etc/ssh/sshd_config.d/10-mt5crs.conf
kept=/run/mt5crs-access
timer=mt5crs-access-restore

fail() {
    echo "mt5crs-access: $1" >&2
    exit 1
}

install_file() { # source, target: atomic, durable
    staged=$(mktemp "$2.XXXXXX") && cat "$1" >"$staged" && chmod 0644 "$staged" && sync "$staged" &&
        mv -fT "$staged" "$2" && sync "$(dirname "$2")"
}

reload_sshd() {
    if systemctl is-active --quiet ssh.service; then
        systemctl reload ssh.service
    fi # not active: socket activation starts it with the new configuration
}

restore() {
    [ -d "$kept" ] || fail "nothing to put back; the configuration in force is the confirmed one"
    if [ -s "$kept/table" ]; then
        { echo "table inet mt5crs"; echo "delete table inet mt5crs"; cat "$kept/table"; } | nft -f -
    else
        { echo "table inet mt5crs"; echo "delete table inet mt5crs"; } | nft -f -
    fi
    if [ -e "$kept/sshd.conf" ]; then
        install_file "$kept/sshd.conf" "$sshd_in_force"
    else
        rm -f "$sshd_in_force"
    fi
    reload_sshd
    rm -rf "$kept"
    echo "mt5crs-access: the previous firewall and sshd configuration are in force again" >&2
}

apply() {
    case ${1:-} in '' | *[!0-9]*) fail "apply needs a number of seconds" ;; esac
    nft -c -f "$rules" || fail "$rules is not valid (see above); nothing was changed. Correct templates/baseline/nftables.conf.j2 or the inventory"
    mkdir -p /run/sshd
    sshd -t -f "$sshd" || fail "$sshd is not valid (see above); nothing was changed. Correct templates/baseline/sshd.conf.j2"
    if [ ! -d "$kept" ]; then # else: an unconfirmed change is in force; what it replaced is still what counts
        mkdir -m 0700 "$kept.new" && nft -s list table inet mt5crs >"$kept.new/table" 2>/dev/null
        if [ -e "$sshd_in_force" ]; then cp -p "$sshd_in_force" "$kept.new/sshd.conf"; fi
        mv -T "$kept.new" "$kept" || fail "cannot keep the old configuration in $kept; nothing was changed"
    fi
    systemctl stop "$timer.timer" 2>/dev/null
    systemd-run --quiet --collect --unit="$timer" --on-active="$1" --timer-property=AccuracySec=1s \
        /usr/local/sbin/mt5crs-access restore || {
        rm -rf "$kept"
        fail "cannot start the timer that would put the old configuration back; nothing was changed"
    }
    if nft -f "$rules" && install_file "$sshd" "$sshd_in_force" && sshd -t && reload_sshd; then
        return
    fi
    systemctl stop "$timer.timer"
    restore
    fail "the new configuration could not be used (see above)"
}

confirm() {
    [ -d "$kept" ] || fail "too late: the old configuration is in force again. Deploy again with a larger baseline_access_confirm_s"
    # Only now does the ruleset survive a reboot.
    install_file "$rules" "$rules_at_boot" || fail "cannot write $rules_at_boot; the old configuration returns by itself"
    systemctl stop "$timer.timer"
    rm -rf "$kept"
}

case ${1:-} in
apply) apply "${2:-}" ;;
confirm) confirm ;;
restore) restore ;;
*)
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
