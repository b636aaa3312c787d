/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Why a frame was passed up to the bridge. The numbers are stable and never
 * used again; accel/reason.go has the same ones with their texts, and a test
 * holds the two together. Numbers from 40 on are not computed here: the daemon
 * writes them into the records of ports and of the bridge, and the program
 * counts what it finds there.
 */
enum reason {
	FAST = 0,

	/* The class of the frame. */
	MULTICAST = 1,
	SOURCE_MULTICAST = 2,
	SOURCE_ZERO = 3,
	ARP = 4,
	CFM = 5,
	MRP = 6,
	LLC = 7,
	DOUBLE_TAGGED = 8,
	IP_HEADER = 9,
	PPPOE = 10,
	MALFORMED = 11,
	TAGGED = 12,
	PRIORITY_TAGGED = 13,
	FOREIGN_TAG = 14,
	NEIGH_SUPPRESS = 15,

	/* What the forwarding table says of it. */
	SOURCE_UNKNOWN = 20,
	SOURCE_MOVED = 21,
	SOURCE_LOCAL = 22,
	SOURCE_LOCKED = 23,
	UNVERIFIED = 24,
	DESTINATION_UNKNOWN = 25,
	DESTINATION_LOCAL = 26,
	SAME_PORT = 27,
	ISOLATED = 28,
	MTU = 29,
	KEEPALIVE = 30,
	VLAN_INGRESS = 31,
	VLAN_EGRESS = 32,
	SOURCE_ELSEWHERE = 36,

	/* The wire of a stable port. */
	OUT_OF_TURN = 33,
	OWN_RETURNED = 34,
	DOUBLED = 35,
	STANDBY = 37,
	NO_MEMBER = 38,
	DRAINED = 39,

	/* The state of a port or of the bridge. */
	PORT_UNKNOWN = 40,
	PORT_EGRESS = 53,
	PORT_CHANGED = 56,
	LEASE = 61,
	BRIDGE_CHANGED = 74,

	NUM_REASONS = 96,
};
