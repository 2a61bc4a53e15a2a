package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// stopPatience is more than a node takes that ends every sandbox by force.
const stopPatience = time.Minute

func newDownCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop the node and the commands on its networks",
		Long: `Stop the node and wait until it has stopped. Commands that "ovnd run" started
are ended. The node keeps its place in the swarm: "ovnd up" goes on with it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, err := c.apiHost()
			if err != nil {
				return err
			}
			api, err := c.ovnd()
			if err != nil {
				return err
			}
			// Hold the process before it is told to go: its number may be
			// another's right after.
			process, processErr := listener(strings.TrimPrefix(host, "unix://"))
			if processErr == nil {
				defer unix.Close(process) //nolint:errcheck // a pidfd has nothing to lose
			}
			if _, err := api.Down(cmd.Context()); err != nil {
				return err
			}
			if processErr != nil {
				return fmt.Errorf("the node is stopping, but when it has stopped cannot be seen from here: %w", processErr)
			}
			if err := waitForExit(process, stopPatience); err != nil {
				return err
			}
			fmt.Fprintln(c.out, "Node stopped.")
			return nil
		},
	}
}

// listener returns a pidfd of the process that listens on a unix socket.
func listener(socket string) (pidfd int, err error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return -1, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return -1, err
	}
	var cred *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(controlErr, err); err != nil {
		return -1, err
	}
	if cred.Pid == 0 {
		return -1, errors.New("it runs in another pid namespace")
	}
	return unix.PidfdOpen(int(cred.Pid), 0)
}

// waitForExit waits until the process of a pidfd has ended, which makes the
// descriptor readable (pidfd_open(2)).
func waitForExit(pidfd int, patience time.Duration) error {
	for end := time.Now().Add(patience); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(time.Until(end).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("waiting for the node: %w", err)
		case n == 0:
			return fmt.Errorf("the node did not stop within %v: see its log", patience)
		default:
			return nil
		}
	}
}
