#!/bin/sh
# Firewall, sshd configuration and kernel settings of the generation that this file lies in.
#   use    put them in force; as long as the generation waits for its confirmation, peers that the one before
#          admits come in as well, except by SSH: a new connection has to prove that one still gets in
#   check  exit status 0 when exactly that is in force, 1 with the reason when not
#   leave  when no generation follows: put back what was on the host before the first one
# Run by mt5crs-baseline.service and by the health gate. Exit status 2: wrong use.
set -u
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

here=$(cd -P "$(dirname "$0")" && pwd) || exit 1
case $here in
*/found) service=${here%/*} ;;
*) service=${here%/*/*} ;;
esac
found=$service/found
before=$service/before/nftables.conf
rules=/etc/nftables.conf
sshd=/etc/ssh/sshd_config.d/10-mt5crs.conf
sysctl=/etc/sysctl.d/60-mt5crs.conf

fail() {
    echo "$1" >&2
    exit 1
}

install_file() { # source, target: atomic, durable; status 1 when the target is the same already
    if cmp -s "$1" "$2"; then return 1; fi
    staged=$(mktemp "$2.XXXXXX") && cat "$1" >"$staged" && chmod 0644 "$staged" && sync "$staged" &&
        mv -fT "$staged" "$2" && sync "$(dirname "$2")" || fail "$2 cannot be written"
}

ruleset() {
    also=$(grep -F ' accept comment "' "$before" 2>/dev/null | grep -vF 'comment "SSH' | grep -vxF -f "$here/nftables.conf")
    also=$also awk '/# Everything else/ && ENVIRON["also"] { print ENVIRON["also"] } { print }' "$here/nftables.conf"
}

reload_sshd() {
    if systemctl is-active --quiet ssh.service; then
        systemctl reload ssh.service || fail "sshd does not take its new configuration"
    fi # not active: socket activation starts it with the new configuration
}

set_kernel() { /usr/lib/systemd/systemd-sysctl "$sysctl" || fail "$sysctl cannot be set; baseline_sysctl_strict: false leaves out what this kernel refuses"; }

# What was there before us, and this file, which has to work when no generation is left.
keep_found() {
    [ ! -d "$found" ] || return 0
    rm -rf "$found.new" && mkdir -m 0700 "$found.new" || fail "$found.new cannot be made"
    nft -s list table inet mt5crs >"$found.new/table" 2>/dev/null
    for file in "$rules" "$sshd" "$sysctl"; do
        if [ -e "$file" ]; then cp -p "$file" "$found.new/$(basename "$file")" || fail "$file cannot be kept"; fi
    done
    cp "$here/in_force.sh" "$found.new/in_force.sh" && sync -f "$found.new" && mv -T "$found.new" "$found" || fail "$found cannot be made"
}

put_back() { # file: as it was found
    if [ -e "$found/$(basename "$1")" ]; then install_file "$found/$(basename "$1")" "$1"; else rm -f "$1"; fi
}

use() {
    wanted=$(mktemp /run/mt5crs-rules.XXXXXX) || fail "no space for a temporary file"
    trap 'rm -f "$wanted"' EXIT
    ruleset >"$wanted"
    nft -c -f "$wanted" || fail "nft refuses the firewall (see above)"
    mkdir -p /run/sshd
    sshd -t -f "$here/sshd.conf" || fail "sshd refuses its configuration (see above)"
    keep_found
    nft -f "$wanted" || fail "nft does not take the firewall (see above)"
    install_file "$wanted" "$rules"
    if install_file "$here/sshd.conf" "$sshd"; then reload_sshd; fi
    install_file "$here/sysctl.conf" "$sysctl"
    set_kernel
}

leave() {
    [ ! -e "$service/current" ] || return 0 # a restart
    [ -d "$found" ] || fail "there is no $found to put back"
    { echo "table inet mt5crs"; echo "delete table inet mt5crs"; cat "$found/table"; } | nft -f - || fail "nft does not take the firewall that was found"
    put_back "$rules"
    put_back "$sshd"
    reload_sshd
    put_back "$sysctl"
    if [ -e "$sysctl" ]; then set_kernel; fi
    rm -rf "$found"
}

# A ruleset in a network namespace of its own is listed by the same nft, hence in the same words.
firewall_in_force() {
    ruleset | cmp -s - "$rules" || fail "$rules is not what this generation wants"
    now=$(nft -s list table inet mt5crs 2>/dev/null) || fail "there is no firewall table inet mt5crs"
    wanted=$(unshare -n sh -c "nft -f $rules && nft -s list table inet mt5crs" 2>/dev/null)
    [ "$now" = "$wanted" ] || fail "the firewall table inet mt5crs was changed"
}

# What sshd makes of all its files: an earlier one has the last word. One that shuts root out altogether may.
sshd_in_force() {
    cmp -s "$here/sshd.conf" "$sshd" || fail "$sshd is not what this generation wants"
    effective=$(sshd -T 2>/dev/null | tr '[:upper:]' '[:lower:]' | sed -E '/^permitrootlogin/s/ (no|without-password)$/ prohibit-password/') || fail "sshd refuses its configuration: see sshd -t"
    unlike=$(grep -v '^#' "$here/sshd.conf" | tr '[:upper:]' '[:lower:]' | while read -r line; do
        echo "$effective" | grep -qxF -- "$line" || echo "$line"
    done)
    [ -z "$unlike" ] || fail "sshd does not follow $sshd in: $(echo $unlike); another file in /etc/ssh/sshd_config.d comes first"
}

kernel_in_force() {
    cmp -s "$here/sysctl.conf" "$sysctl" || fail "$sysctl is not what this generation wants"
    # What a container may not set has no file there, or one without the right to write.
    settable=$(sed -n 's/^-\([^ =]*\).*/\1/p' "$sysctl" | tr . / | (cd /proc/sys && xargs -r sh -c 'find "$@" -perm /200' -- 2>/dev/null))
    # One program for all values: a shell would start five for each.
    unlike=$(awk -v settable=" $(echo $settable) " '
        /^[^#]/ {
            name = $1; value = ""; wanted = substr($0, index($0, "= ") + 2)
            optional = sub(/^-/, "", name); shown = name; gsub(/[.]/, "/", name)
            if (optional && !index(settable, " " name " ")) next
            getline value < ("/proc/sys/" name); gsub(/[ \t]+/, " ", value)
            if (value != wanted) printf "%s is \"%s\", wanted \"%s\"; ", shown, value, wanted
        }' "$sysctl")
    [ -z "$unlike" ] || fail "kernel settings: $unlike"
}

case ${1:-} in
use) use ;;
check) firewall_in_force && sshd_in_force && kernel_in_force && echo "firewall, sshd and kernel settings are in force" ;;
leave) leave ;;
*)
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
