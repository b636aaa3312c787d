# What a page's commands are run in: namespaces of their own, with what an operator
# would have. The test puts the page's blocks behind it.
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/sandbox/upper /run/sandbox/work
mount -t tmpfs tmpfs /var/lib
mount -t overlay -o lowerdir=/etc,upperdir=/run/sandbox/upper,workdir=/run/sandbox/work overlay /etc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mkdir -p /etc/shunt
ip link set lo up
for conf in all default; do # no frame that nobody asked for
    echo 1 > /proc/sys/net/ipv6/conf/$conf/disable_ipv6
done

sudo() { { local -; set +x; } 2>/dev/null; "$@"; }

# A daemon stays in the foreground, which here is another terminal. Where there is one
# already, its terminal got Ctrl-C.
log=/run/sandbox/log
daemon=
shunt() {
    { local -; set +x; } 2>/dev/null # the page's lines only
    case "${1-}" in
    run) ;;
    top) "$SHUNT" "$@" --once; return ;; # else it goes on until a key is hit
    *) "$SHUNT" "$@"; return ;;
    esac
    interrupt
    "$SHUNT" "$@" >>$log 2>&1 &
    daemon=$!
    until says '"ready":true' status 2>/dev/null; do
        kill -0 $daemon 2>/dev/null || { cat $log; return 1; }
        sleep 0.05
    done
}
./shunt() { { local -; set +x; } 2>/dev/null; shunt "$@"; }

interrupt() {
    [ -n "$daemon" ] || return 0
    kill -${1-INT} $daemon 2>/dev/null || true
    wait $daemon || true
    daemon=
}

# Where there is no systemd, this is what the unit has it do.
systemctl() {
    { local -; set +x; } 2>/dev/null
    case "$1" in
    start|restart) interrupt TERM; shunt run --config /etc/shunt/shunt.yaml ;;
    stop) interrupt TERM ;;
    enable) mkdir -p /etc/shunt; shunt run --config /etc/shunt/shunt.yaml ;;
    kill) interrupt KILL 2>/dev/null; shunt run --config /etc/shunt/shunt.yaml ;; # Restart=on-failure
    *) echo "no such thing in the sandbox: systemctl $*"; return 1 ;;
    esac
}
journalctl() { cat $log; }

# host NAME PORT BRIDGE NUMBER makes a host behind a port of a bridge.
host() {
    ip netns add $1
    ip link add $2 type veth peer name eth0 netns $1 address 52:54:00:00:00:0$4
    ip link set $2 master $3 up
    ip -n $1 address add 10.9.0.$4/24 dev eth0
    ip -n $1 link set eth0 up
}

# greet FROM NUMBER lets a host send to another until it knows its address, so that the
# bridge knows both.
greet() {
    until ip -n $1 neighbour show 10.9.0.$2 | grep -q lladdr; do
        nsenter --net=/run/netns/$1 bash -c "echo > /dev/udp/10.9.0.$2/9" || true
        sleep 0.05
    done
}

# The bridge of most pages: two guests, and eth0 to a network outside that eth1 leads
# to as well.
bridge_of_pages() {
    ip link add br0 type bridge mcast_snooping 0
    ip link set br0 up
    host host1 p1 br0 1
    host host2 p2 br0 2
    ip netns add outside
    ip -n outside link add sw0 type bridge mcast_snooping 0
    ip -n outside link set sw0 up
    for nic in eth0 eth1; do
        ip link add $nic type veth peer name far-$nic netns outside
        ip -n outside link set far-$nic master sw0 up
        ip link set $nic up
    done
    ip link set eth0 master br0
    ip -n outside address add 10.9.0.9/24 dev sw0
    greet host1 2
}

# A copy of the sources, for pages that build them.
copy_of_tree() { tar -C "$TREE" --exclude=./.git --exclude=./dist -cf - . | tar -xf -; }

# bridge_named BRIDGE PORT1 PORT2 makes a bridge with two guests behind such ports.
bridge_named() {
    ip link add $1 type bridge mcast_snooping 0
    ip link set $1 up
    [ $# -gt 1 ] || return 0
    host guest1 $2 $1 1
    host guest2 $3 $1 2
    greet guest1 2
}

settings() { echo "$1" > /etc/shunt/shunt.yaml; }

# What is true at the end of a page, at once or soon.
soon() {
    local tries
    for tries in {1..400}; do
        if "$@"; then return; fi
        sleep 0.05
    done
    "$@"
}
says() { "$SHUNT" "${@:2}" -j | grep -- "$1" >/dev/null; }
fast() { soon says '"eligible":true' status --bridge $1; }
slow() { soon says "\"reason\":\"$2\"" status --bridge $1; }
nothing_left() { none ls /sys/fs/bpf/shunt; none ip link show uplink; }
none() { if "$@" 2>/dev/null; then return 1; fi; } # bash goes on behind a ! that fails

# systemd-networkd takes a place whose /sys cannot be written for a container, and does
# not wait for udev there.
networkd_of_pages() {
    rm -f /etc/systemd/network/*
    mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
    chown -R systemd-network:systemd-network /run/systemd/netif
    mount -o remount,bind,ro /sys
    touch $networkd_log
}
# untouched wants networkd to know nothing of a device, and to have understood all that
# it was told.
untouched() {
    local device
    for device in "$@"; do
        none grep -E "^$device: (Configuring|Gained IPv6LL)" $networkd_log
        none grep inet <(ip address show $device)
    done
    none grep -E "Unknown|[Ii]gnoring|Failed to parse" $networkd_log
}
networkctl() { restart_networkd; }
networkd=
networkd_log=/run/sandbox/networkd.log
restart_networkd() {
    { local -; set +x; } 2>/dev/null
    [ -z "$networkd" ] || { kill $networkd; wait $networkd || true; }
    local before=$(grep -c 'Enumeration completed' $networkd_log || true)
    /lib/systemd/systemd-networkd >> $networkd_log 2>&1 &
    networkd=$!
    until [ "$(grep -c 'Enumeration completed' $networkd_log)" != "$before" ] && ip address show br0 2>/dev/null | grep -q inet; do
        kill -0 $networkd
        sleep 0.05
    done
}
