package cluster

import (
	"context"
	"time"

	prometheus "github.com/grpc-ecosystem/go-grpc-prometheus"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"google.golang.org/grpc"
)

// SwarmKit asks a manager that starts whether its control API serves, and
// sleeps for half a second if the answer is no. It always is at first: raft
// needs some milliseconds more than the TLS handshake of the question. After a
// yes the agent opens its session, which waits for a whole second if raft has
// no leader yet; it mostly has one a moment later. So a node that could be
// ready after 0.1 s is ready after 0.6 s, or 1.1 s when it restarts.
//
// The question passes through this interceptor, which waits for the answer to
// be yes and, briefly, for a leader. It is the one place where SwarmKit can be
// reached on this way: a variable of the Prometheus package that its client
// connections use.
func init() { prometheus.UnaryClientInterceptor = waitServing }

const (
	minHealthPause = 5 * time.Millisecond
	maxHealthPause = 500 * time.Millisecond
	// leaderPatience bounds the wait for a leader: without a quorum there is
	// none, and the node must start none the less.
	leaderPatience = 300 * time.Millisecond
)

// waitServing makes one request and, if it is the question whether the local
// control API serves, repeats it until it does or ctx ends.
func waitServing(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	question, ok := req.(*swarmapi.HealthCheckRequest)
	if !ok || question.Service != "ControlAPI" {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	for pause := minHealthPause; ; pause = min(2*pause, maxHealthPause) {
		if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
			return err
		}
		answer, ok := reply.(*swarmapi.HealthCheckResponse)
		if !ok {
			return nil
		}
		if answer.Status == swarmapi.HealthCheckResponse_SERVING {
			waitLeader(ctx, cc, invoke)
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waitLeader returns when the manager behind cc has a leader to ask, or after
// leaderPatience. A question without a leader takes a second, so each try ends
// sooner.
func waitLeader(ctx context.Context, cc *grpc.ClientConn, invoke grpc.UnaryInvoker) {
	ctx, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	for patience := minHealthPause; ctx.Err() == nil; patience *= 2 {
		try, cancel := context.WithTimeout(ctx, patience)
		err := invoke(try, "/docker.swarmkit.v1.Control/ListClusters", &swarmapi.ListClustersRequest{}, &swarmapi.ListClustersResponse{}, cc)
		cancel()
		if err == nil {
			return
		}
	}
}
