package discovery

import (
	"context"
	"fmt"
	"time"
)

// drainTime is how long the other nodes have to hear that an endpoint drains.
const drainTime = 2 * time.Second

// Drain marks a local endpoint Disabled and returns when the other nodes have
// had the time to hear of it, or at ctx's end.
func (d *Discovery) Drain(ctx context.Context, networkID, endpointID string) error {
	if err := d.disable(networkID, endpointID); err != nil {
		return err
	}
	select {
	case <-time.After(drainTime):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Discovery) disable(networkID, endpointID string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.networks[networkID]
	if !ok {
		return fmt.Errorf("endpoint %s: this node has not joined network %s", endpointID, networkID)
	}
	ep, ok := n.local[endpointID]
	if !ok {
		return fmt.Errorf("endpoint %s is none of this node's on network %s", endpointID, networkID)
	}
	ep.Disabled = true
	if err := n.add(ep); err != nil {
		return err
	}
	d.publish(n)
	signal(d.wake)
	return nil
}

// Applied tells that this node uses version of the network now.
func (d *Discovery) Applied(string, uint64) {}
