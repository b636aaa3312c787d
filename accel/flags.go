package accel

import (
	"github.com/spf13/cobra"
)

// ClientFlags are those of every command that talks to the daemon.
type ClientFlags struct {
	Socket string
	JSON   bool
}

// Add gives a command the flags.
func (f *ClientFlags) Add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.Socket, "socket", DefaultSocket, "daemon's `socket`")
	CompleteFile(cmd, "socket")
	f.addJSON(cmd)
}

func (f *ClientFlags) addJSON(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.JSON, "json", "j", false, "print JSON")
}

// Client talks to the daemon that the flags name.
func (f *ClientFlags) Client() *Client { return NewClient(f.Socket) }

// Print writes the result of a command as JSON, or with show for people.
func Print[T any](cmd *cobra.Command, f ClientFlags, result T, show func(Screen, T) error) error {
	if f.JSON {
		return WriteJSON(cmd.OutOrStdout(), result)
	}
	return show(NewScreen(cmd.OutOrStdout()), result)
}
