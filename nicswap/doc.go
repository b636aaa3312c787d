// Package nicswap keeps stable ports: a bridge port whose NICs, its members, are
// exchanged, upgraded or lost without the bridge noticing. [Engine] is its
// component.
//
// The files, in the order in which a swap meets them: routes and commands ask for
// it, engine begins it, swap has its phases, check and setup what a member must be,
// journal what survives the daemon, monitor what the kernel tells, and adopt the way
// from a port of the bridge to a group and back.
package nicswap
