package nicswap

import (
	"context"
	"net/http"

	"github.com/shunt-dev/shunt/accel"
)

// groupsOf completes the names of groups, which the daemon is asked for.
func groupsOf(f *accel.ClientFlags) func(context.Context) []string {
	return func(ctx context.Context) (names []string) {
		for _, g := range askedFor(ctx, f) {
			names = append(names, g.Group)
		}
		return names
	}
}

// targetsOf completes what a swap may be to.
func targetsOf(f *accel.ClientFlags) func(context.Context) []string {
	return func(ctx context.Context) []string {
		names := []string{"physical", "virtual"}
		for _, g := range askedFor(ctx, f) {
			for _, m := range g.Members {
				names = append(names, m.Member)
			}
		}
		return names
	}
}

func askedFor(ctx context.Context, f *accel.ClientFlags) (groups []GroupV1) {
	if f.Client().Do(ctx, http.MethodGet, "/v1/groups", nil, &groups) != nil {
		return nil
	}
	return groups
}
