# Prints one word for each thing that runs otherwise than its configuration says (run as root, changes nothing):
# sysctl, access (firewall or sshd), journald, chrony. Prints nothing when all is as configured.
set -u
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

sysctl_is_stale() {
    conf=/etc/sysctl.d/60-mt5crs.conf
    # What a container may not set has no file there, or one without the right to write.
    settable=$(sed -n 's/^-\([^ =]*\).*/\1/p' "$conf" | tr . / | (cd /proc/sys && xargs -r sh -c 'find "$@" -perm /200' -- 2>/dev/null))
    # One program for all values: a shell would start five for each.
    awk -v settable=" $(echo $settable) " '
        /^[^#]/ {
            name = $1; value = ""; wanted = substr($0, index($0, "= ") + 2)
            optional = sub(/^-/, "", name); gsub(/[.]/, "/", name)
            if (optional && !index(settable, " " name " ")) next
            getline value < ("/proc/sys/" name); gsub(/[ \t]+/, " ", value)
            if (value != wanted) { stale = 1; exit }
        }
        END { exit !stale }' "$conf"
}

# A file in a network namespace of its own is listed by the same nft, hence in the same words.
firewall_is_stale() {
    cmp -s /etc/mt5crs/nftables.conf /etc/nftables.conf || return 0
    in_force=$(nft -s list table inet mt5crs 2>/dev/null) || return 0
    wanted=$(unshare -n sh -c 'nft -f /etc/mt5crs/nftables.conf && nft -s list table inet mt5crs' 2>/dev/null)
    [ "$in_force" != "$wanted" ]
}

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

if [ -e /etc/sysctl.d/60-mt5crs.conf ] && sysctl_is_stale; then echo sysctl; fi
if [ -e /etc/mt5crs/nftables.conf ] && { firewall_is_stale || ! cmp -s /etc/mt5crs/sshd.conf /etc/ssh/sshd_config.d/10-mt5crs.conf; }; then
    echo access
fi
if started_before_change systemd-journald.service /etc/systemd/journald.conf.d/50-mt5crs.conf; then echo journald; fi
if started_before_change chrony.service /etc/chrony/chrony.conf /etc/default/chrony; then echo chrony; fi
