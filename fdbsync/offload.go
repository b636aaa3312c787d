package fdbsync

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/accel/ethtool"
)

// offloads tells of what a port's hardware does with frames before anyone sees them.
func (e *examiner) offloads(j *judgement) []accel.Finding {
	var merged, filtered []string
	for _, ifindex := range slices.Sorted(maps.Keys(j.ports)) {
		name := j.ports[ifindex].Name
		has, err := offloadsOf(name)
		if err != nil {
			continue // gone, or a device without any
		}
		if has[offloadLRO] {
			merged = append(merged, name)
		}
		if has[offloadTC] {
			filtered = append(filtered, name)
		}
	}
	var findings []accel.Finding
	if len(merged) > 0 {
		findings = append(findings, accel.Finding{Check: "offloading", Level: accel.LevelNote,
			Text:   strings.Join(merged, ", ") + ": large receive offload merges frames in a way that cannot be forwarded, by the bridge or by shunt",
			Advice: "ethtool -K " + merged[0] + " lro off"})
	}
	if len(filtered) > 0 {
		findings = append(findings, accel.Finding{Check: "offloading", Level: accel.LevelNote,
			Text: strings.Join(filtered, ", ") + ": hw-tc-offload is on: frames that a filter takes in hardware are seen neither by the bridge nor by shunt"})
	}
	return findings
}

// The names of the offloads, as ethtool -k shows those of hardware (include/linux/
// netdev_features.h; net/ethtool/common.c: netdev_features_strings).
const (
	offloadLRO = "rx-lro"
	offloadTC  = "hw-tc-offload"
)

// offloadsOf returns the features of a device that are on, by name.
func offloadsOf(name string) (map[string]bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	names, err := featureNames(fd, name)
	if err != nil {
		return nil, err
	}
	bits, err := activeFeatures(fd, name, len(names))
	if err != nil {
		return nil, err
	}
	on := make(map[string]bool)
	for i, feature := range names {
		on[feature] = bits[i/32]>>(i%32)&1 != 0
	}
	return on, nil
}

const (
	ethSSFeatures = 4  // ETH_SS_FEATURES
	ethGString    = 32 // ETH_GSTRING_LEN
	mostFeatures  = 256
)

// featureNames asks for the names of the features, in the order of their bits.
func featureNames(fd int, device string) ([]string, error) {
	// struct ethtool_sset_info with one set, and struct ethtool_gstrings.
	count := struct {
		command, reserved uint32
		sets              uint64
		length            uint32
	}{command: unix.ETHTOOL_GSSET_INFO, sets: 1 << ethSSFeatures}
	if err := ethtool.Do(fd, device, unsafe.Pointer(&count)); err != nil {
		return nil, err
	}
	if count.length > mostFeatures {
		return nil, fmt.Errorf("a device with %d features", count.length)
	}
	var all struct {
		command, set, length uint32
		data                 [mostFeatures * ethGString]byte
	}
	all.command, all.set, all.length = unix.ETHTOOL_GSTRINGS, ethSSFeatures, count.length
	if err := ethtool.Do(fd, device, unsafe.Pointer(&all)); err != nil {
		return nil, err
	}
	names := make([]string, min(all.length, count.length))
	for i := range names {
		names[i] = unix.ByteSliceToString(all.data[i*ethGString : (i+1)*ethGString])
	}
	return names, nil
}

// activeFeatures asks which features are on, 32 in a word.
func activeFeatures(fd int, device string, features int) ([]uint32, error) {
	type block struct{ available, requested, active, neverChanged uint32 }
	var get struct {
		command, size uint32
		blocks        [mostFeatures / 32]block
	}
	get.command, get.size = unix.ETHTOOL_GFEATURES, uint32(features+31)/32
	if err := ethtool.Do(fd, device, unsafe.Pointer(&get)); err != nil {
		return nil, err
	}
	active := make([]uint32, len(get.blocks))
	for i, b := range get.blocks {
		active[i] = b.active
	}
	return active, nil
}
