package fdbsync

import (
	"encoding/hex"
	"maps"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// hookMessage is NFNL_MSG_HOOK_GET as net/netfilter/nfnetlink_hook.c:
// nfnl_hook_dump_one writes it, or without a name where kallsyms is missing.
func hookMessage(family uint8, function string) []byte {
	data := append([]byte{family, 0, 0, 0}, attribute(nfnlaHookHooknum, 0, 0, 0, 2)...)
	if function == "" {
		return data
	}
	return append(data, attribute(nfnlaHookFunction, append([]byte(function), 0)...)...)
}

func TestHooks(t *testing.T) {
	const bridge, ipv4, arp = unix.NFPROTO_BRIDGE, unix.NFPROTO_IPV4, unix.NFPROTO_ARP
	for _, c := range []struct {
		family   uint8
		function string
		bridge   bool
		ip       bool
	}{
		{bridge, "br_nf_pre_routing", false, false}, // there as soon as br_netfilter is
		{bridge, "br_nf_forward", false, false},
		{bridge, "nft_do_chain_bridge", true, false},
		{bridge, "nf_ct_bridge_pre", true, false},
		{bridge, "ebt_filter_hook", true, false},
		{bridge, "", true, false},
		{ipv4, "iptable_filter_hook", false, true},
		{ipv4, "ipv4_conntrack_in", false, true},
		{ipv4, "apparmor_ip_postroute", false, false},
		{ipv4, "", false, true},
		{arp, "arpt_do_table", false, true},
	} {
		f := firewall{devices: make(map[string]bool)}
		f.addHook(hookMessage(c.family, c.function))
		if f.bridge != c.bridge || f.ip != c.ip {
			t.Errorf("family %d, %q: bridge %v, ip %v", c.family, c.function, f.bridge, f.ip)
		}
		f.addHook(hookMessage(bridge, "br_nf_forward"))
		if f.bridge != c.bridge {
			t.Errorf("%q is forgotten for the next hook", c.function)
		}
	}
	// As Linux 6.12 has it in every namespace, with AppArmor.
	recorded, err := hex.DecodeString("020000001a00040061707061726d6f725f69705f706f7374726f757465000000080001000000000408000200ffffff1f")
	if err != nil {
		t.Fatal(err)
	}
	var f firewall
	f.addHook(recorded)
	if f.bridge || f.ip {
		t.Error("AppArmor's hook shuts every bridge")
	}
	f.addHook([]byte{unix.NFPROTO_BRIDGE})
	if f.bridge || f.ip {
		t.Error("half a header is a hook")
	}
}

func flowtableMessage(devices ...[]byte) []byte {
	devs := attribute(nftaFlowtableHookDevs|unix.NLA_F_NESTED, slices.Concat(devices...)...)
	hook := attribute(nftaFlowtableHook|unix.NLA_F_NESTED, append(attribute(nftaHookNumber, 0, 0, 0, 0), devs...)...)
	return append([]byte{unix.NFPROTO_INET, 0, 0, 0}, hook...)
}

func TestFlowtables(t *testing.T) {
	p1, p2 := attribute(nftaDeviceName, []byte("p1\x00")...), attribute(nftaDeviceName, []byte("p2\x00")...)
	for name, c := range map[string]struct {
		data []byte
		want map[string]bool
	}{
		"devices":          {flowtableMessage(p1, p2), map[string]bool{"p1": true, "p2": true}},
		"a kind of later":  {flowtableMessage(p1, attribute(7, 'p')), map[string]bool{"p1": true, "": true}},
		"no device":        {flowtableMessage(), map[string]bool{"": true}},
		"no hook":          {[]byte{unix.NFPROTO_INET, 0, 0, 0}, map[string]bool{}},
		"half a header":    {[]byte{unix.NFPROTO_INET}, map[string]bool{}},
		"broken inside it": {flowtableMessage(p1)[:9], map[string]bool{}},
	} {
		f := firewall{devices: make(map[string]bool)}
		f.addFlowtable(c.data)
		if !maps.Equal(f.devices, c.want) || f.bridge || f.ip {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// FuzzFirewall holds that nothing that comes from the kernel ends the daemon.
func FuzzFirewall(f *testing.F) {
	f.Add(hookMessage(unix.NFPROTO_BRIDGE, "nft_do_chain_bridge"))
	f.Add(flowtableMessage(attribute(nftaDeviceName, 'p', '1', 0)))
	f.Fuzz(func(t *testing.T, data []byte) {
		fw := firewall{devices: make(map[string]bool)}
		fw.addHook(data)
		fw.addFlowtable(data)
	})
}

// TestReadFirewallChangesNothing: looking for rules must not make tables, or
// load the modules that make them.
func TestReadFirewallChangesNothing(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		before, err := loadedModules()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			fw, err := readFirewall()
			if err != nil || fw.bridge || fw.ip || len(fw.devices) > 0 {
				t.Errorf("an empty namespace has %+v (%v)", fw, err)
			}
		}
		after, err := loadedModules()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range after {
			if !slices.Contains(before, name) && name != "nf_tables" && name != "nfnetlink" && name != "nfnetlink_hook" {
				t.Errorf("%s was loaded", name)
			}
		}
	})
}

func TestFirewallThatKeepsChanging(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		// Hundreds of events, and the loop must not read the firewall for each.
		sh(t, `nft add table ip f; for i in $(seq 200); do echo "add chain ip f c$i"; done | nft -f -`)
		sh(t, "nft 'add chain ip f c { type filter hook forward priority 0; }'")
		if haveBrNetfilter() {
			b.awaitGate(t, accel.BrNetfilter)
		}
		sh(t, "nft delete table ip f")
		b.awaitGate(t, accel.Fast)
	})
}
