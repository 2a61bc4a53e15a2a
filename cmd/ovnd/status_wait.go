package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/spf13/cobra"

	ovnd "github.com/ovnd/ovnd/api/client"
	"github.com/ovnd/ovnd/api/types"
)

const (
	// usualWait is how long `status --wait` waits without a duration.
	usualWait = 30 * time.Second
	// waitPause is between two questions.
	waitPause = 50 * time.Millisecond
)

// A waitFlag is `status --wait`, what probes of containers ask with. Zero: not
// given.
type waitFlag time.Duration

func (f *waitFlag) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.DurationVar((*time.Duration)(f), "wait", 0, "Wait until the node is ready, this long at most, and fail if it is not (--wait is --wait=30s)")
	flags.Lookup("wait").NoOptDefVal = usualWait.String()
}

// status asks for the node's status, until the node is ready if the flag says
// so.
func (f waitFlag) status(ctx context.Context, api *ovnd.Client) (types.Status, error) {
	if f <= 0 {
		return api.Status(ctx)
	}
	within, cancel := context.WithTimeout(ctx, time.Duration(f))
	defer cancel()
	var last error // why the node was not ready when it was asked last
	for {
		s, err := api.Status(within)
		if err == nil {
			err = unready(s)
		}
		if err == nil {
			return s, nil
		}
		if last == nil || within.Err() == nil {
			last = err
		}
		select {
		case <-time.After(waitPause):
		case <-within.Done():
			if ctx.Err() != nil {
				return s, ctx.Err()
			}
			return s, fmt.Errorf("the node is not ready after %s: %w", time.Duration(f), last)
		}
	}
}

// unready says what a node lacks to be a working member of its swarm.
func unready(s types.Status) error {
	switch {
	case s.Error != "":
		return errors.New(s.Error)
	case s.State != string(swarm.LocalNodeStateActive):
		return fmt.Errorf("its swarm is %s", s.State)
	case s.Role == "":
		return errors.New("its part in the swarm is not known yet")
	}
	return nil
}
