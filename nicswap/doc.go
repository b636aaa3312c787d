// Package nicswap keeps stable ports: a bridge port whose NICs, its members, are
// exchanged, upgraded or lost without the bridge noticing.
package nicswap
