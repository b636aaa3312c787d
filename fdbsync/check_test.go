package fdbsync

import (
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/accel"
)

func TestFindings(t *testing.T) {
	for name, c := range map[string]struct {
		fw    firewall
		err   error
		notes []string // the checks that are not ok
		says  string
	}{
		"nothing":                {says: "it is not there"},
		"br_netfilter":           {fw: firewall{brNetfilter: true}, says: "no IP chains"},
		"br_netfilter and rules": {fw: firewall{brNetfilter: true, ip: true}, notes: []string{"br_netfilter"}, says: "IP chains exist"},
		"IP rules alone":         {fw: firewall{ip: true}, says: "it is not there"},
		"bridge rules":           {fw: firewall{bridge: true}, notes: []string{"bridge chains"}, says: "bridge family"},
		"ports":                  {fw: firewall{devices: map[string]bool{"p2": true, "p1": true}}, notes: []string{"netdev chains"}, says: "p1, p2"},
		"any port":               {fw: firewall{devices: map[string]bool{"": true}}, notes: []string{"netdev chains"}, says: "any device"},
		"unreadable":             {err: errTest, notes: []string{"firewall"}, says: errTest.Error()},
	} {
		s := newSyncer()
		s.firewall = func() (firewall, error) { return c.fw, c.err }
		var notes []string
		var text strings.Builder
		for _, f := range s.Check(t.Context()) {
			text.WriteString(f.Text)
			if f.Level != accel.LevelOK {
				notes = append(notes, f.Check)
			}
			if f.Level == accel.LevelFail {
				t.Errorf("%s keeps shunt from running", name)
			}
		}
		if strings.Join(notes, " ") != strings.Join(c.notes, " ") || !strings.Contains(text.String(), c.says) {
			t.Errorf("%s: notes %q, text %q", name, notes, text.String())
		}
	}
}

func TestCheckOfThisKernel(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, "nft add table bridge t; nft 'add chain bridge t c { type filter hook forward priority 0; }'")
		found := newSyncer().Check(t.Context())
		if len(found) != 2 || found[1].Check != "bridge chains" {
			t.Errorf("found %+v", found)
		}
	})
}
