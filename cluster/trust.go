package cluster

import (
	"context"
	"maps"
	"time"

	gogotypes "github.com/gogo/protobuf/types"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"google.golang.org/grpc"

	"github.com/ovnd/ovnd/crypto"
)

// TrustHooks tell the node what encrypted networks rest on: who it is and who
// is a member no more. They are called one at a time, as those of [Hooks] are,
// and never after Hooks.Left for the swarm that was left.
type TrustHooks interface {
	// CredentialsChanged brings this node's credentials, at first and within
	// two seconds of each change.
	CredentialsChanged(crypto.Credentials)
	// NodesRemoved brings the nodes that were removed from the swarm, all that
	// the managers remember, with the time when the certificate of each ends
	// (zero: not known): at first, if there are any, and at each change. Only
	// managers learn of them. The map is the callee's.
	NodesRemoved(map[string]time.Time)
}

// whileMember calls f unless this node is in no swarm. Leaving one waits for f.
func (c *Cluster) whileMember(f func()) {
	c.trust.Lock()
	defer c.trust.Unlock()
	if r, _ := c.current(); r != nil {
		f()
	}
}

// trustEnds waits for the trust hooks that still speak of a swarm which this
// node has left.
func (c *Cluster) trustEnds() {
	c.trust.Lock()
	defer c.trust.Unlock()
}

// watchRemoved tells of removed nodes while this node is a manager, until ctx
// ends.
func (c *Cluster) watchRemoved(ctx context.Context) {
	for {
		r, changed := c.current()
		if st := r.snapshot(); st.conn != nil {
			if err := c.followRemoved(ctx, st.conn); err != nil && ctx.Err() == nil {
				c.log.Debug("removed nodes cannot be watched", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(time.Second): // the stream broke, the connection did not
		}
	}
}

// followRemoved tells of removed nodes until the stream of the swarm's changes
// breaks.
func (c *Cluster) followRemoved(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := swarmapi.NewWatchClient(conn).Watch(ctx, &swarmapi.WatchRequest{
		Entries: []*swarmapi.WatchRequest_WatchEntry{{Kind: "cluster", Action: swarmapi.WatchActionKindCreate | swarmapi.WatchActionKindUpdate}},
	})
	if err != nil {
		return err
	}
	var told map[string]time.Time
	for {
		// The first message is empty and says that changes are seen from now on.
		if _, err := stream.Recv(); err != nil {
			return err
		}
		removed, err := removedNodes(ctx, swarmapi.NewControlClient(conn))
		if err != nil {
			return err
		}
		if maps.Equal(removed, told) {
			continue
		}
		told = maps.Clone(removed)
		c.whileMember(func() { c.cfg.Trust.NodesRemoved(removed) })
	}
}

// removedNodes asks for the swarm's list of certificates that count no more.
func removedNodes(ctx context.Context, ctl swarmapi.ControlClient) (map[string]time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := ctl.ListClusters(ctx, &swarmapi.ListClustersRequest{})
	if err != nil {
		return nil, err
	}
	out := make(map[string]time.Time)
	for _, cl := range resp.Clusters {
		for id, cert := range cl.BlacklistedCertificates {
			out[id] = time.Time{}
			if cert != nil && cert.Expiry != nil {
				if at, err := gogotypes.TimestampFromProto(cert.Expiry); err == nil {
					out[id] = at
				}
			}
		}
	}
	return out, nil
}
