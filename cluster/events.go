package cluster

import (
	"context"
	"strconv"
	"strings"
	"time"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/moby/api/types/events"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"google.golang.org/grpc"
)

// WatchEvents delivers the swarm's events as Docker's /events has them: nodes,
// services, networks, secrets and configs that are created, updated and
// removed. Only managers see them; on a worker the channel stays silent, and
// speaks once the node is promoted. It is closed when ctx ends. A receiver
// that does not keep up holds up its own stream alone.
func (c *Cluster) WatchEvents(ctx context.Context) <-chan events.Message {
	out := make(chan events.Message)
	go func() {
		defer close(out)
		for {
			r, changed := c.current()
			if conn := r.snapshot().conn; conn != nil {
				c.forwardEvents(ctx, conn, out)
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			case <-time.After(time.Second): // the stream broke, the connection did not
			}
		}
	}()
	return out
}

// forwardEvents forwards events until the stream breaks or ctx ends.
func (c *Cluster) forwardEvents(ctx context.Context, conn *grpc.ClientConn, out chan<- events.Message) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const all = swarmapi.WatchActionKindCreate | swarmapi.WatchActionKindUpdate | swarmapi.WatchActionKindRemove
	req := &swarmapi.WatchRequest{IncludeOldObject: true}
	for _, kind := range []string{"node", "service", "network", "secret", "config"} {
		req.Entries = append(req.Entries, &swarmapi.WatchRequest_WatchEntry{Kind: kind, Action: all})
	}
	stream, err := swarmapi.NewWatchClient(conn).Watch(ctx, req)
	if err != nil {
		c.log.Debug("the swarm's events cannot be watched", "error", err)
		return
	}
	for {
		msg, err := stream.Recv()
		if err != nil {
			return
		}
		for _, ev := range msg.Events {
			m, ok := eventMessage(ev, time.Now())
			if !ok {
				continue
			}
			select {
			case out <- m:
			case <-ctx.Done():
				return
			}
		}
	}
}

// eventMessage translates one change of the swarm's store. now is the time of
// a removal, which the store does not tell.
func eventMessage(ev *swarmapi.WatchMessage_Event, now time.Time) (events.Message, bool) {
	m := events.Message{Scope: "swarm"}
	var meta swarmapi.Meta
	switch obj := ev.Object.GetObject().(type) {
	case *swarmapi.Object_Node:
		m.Type, m.Actor, meta = events.NodeEventType, nodeActor(obj.Node, ev.OldObject.GetNode()), obj.Node.Meta
	case *swarmapi.Object_Service:
		m.Type, m.Actor, meta = events.ServiceEventType, serviceActor(obj.Service, ev.OldObject.GetService()), obj.Service.Meta
	case *swarmapi.Object_Network:
		m.Type, m.Actor, meta = events.NetworkEventType, namedActor(obj.Network.ID, obj.Network.Spec.Annotations.Name), obj.Network.Meta
	case *swarmapi.Object_Secret:
		m.Type, m.Actor, meta = events.SecretEventType, namedActor(obj.Secret.ID, obj.Secret.Spec.Annotations.Name), obj.Secret.Meta
	case *swarmapi.Object_Config:
		m.Type, m.Actor, meta = events.ConfigEventType, namedActor(obj.Config.ID, obj.Config.Spec.Annotations.Name), obj.Config.Meta
	default:
		return m, false
	}
	switch ev.Action {
	case swarmapi.WatchActionKindCreate:
		m.Action = events.ActionCreate
		now, _ = gogotypes.TimestampFromProto(meta.CreatedAt)
	case swarmapi.WatchActionKindUpdate:
		m.Action = events.ActionUpdate
		now, _ = gogotypes.TimestampFromProto(meta.UpdatedAt)
	case swarmapi.WatchActionKindRemove:
		m.Action = events.ActionRemove
	default:
		return m, false
	}
	m.Time, m.TimeNano = now.Unix(), now.UnixNano()
	return m, true
}

func namedActor(id, name string) events.Actor {
	return events.Actor{ID: id, Attributes: map[string]string{"name": name}}
}

// noteChange adds what changed as Docker names it: key.old and key.new.
func noteChange[T comparable](a events.Actor, key string, before, after T, show func(T) string) {
	if before != after {
		a.Attributes[key+".old"] = show(before)
		a.Attributes[key+".new"] = show(after)
	}
}

func nodeActor(n, old *swarmapi.Node) events.Actor {
	name := n.Spec.Annotations.Name
	if name == "" && n.Description != nil {
		name = n.Description.Hostname
	}
	a := namedActor(n.ID, name)
	if old == nil {
		return a
	}
	noteChange(a, "availability", old.Spec.Availability, n.Spec.Availability, lower[swarmapi.NodeSpec_Availability])
	noteChange(a, "role", old.Role, n.Role, lower[swarmapi.NodeRole])
	noteChange(a, "state", old.Status.State, n.Status.State, lower[swarmapi.NodeStatus_State])
	if was, is := old.ManagerStatus, n.ManagerStatus; was != nil && is != nil {
		noteChange(a, "leader", was.Leader, is.Leader, func(b bool) string {
			if b {
				return "true"
			}
			return "false"
		})
		noteChange(a, "reachability", was.Reachability, is.Reachability, lower[swarmapi.RaftMemberStatus_Reachability])
	}
	return a
}

func serviceActor(s, old *swarmapi.Service) events.Actor {
	a := namedActor(s.ID, s.Spec.Annotations.Name)
	if old == nil {
		return a
	}
	if is, was := s.Spec.Task.GetContainer(), old.Spec.Task.GetContainer(); is != nil && was != nil {
		noteChange(a, "image", was.Image, is.Image, func(image string) string { return image })
	}
	if is, was := s.Spec.GetReplicated(), old.Spec.GetReplicated(); is != nil && was != nil {
		noteChange(a, "replicas", was.Replicas, is.Replicas, func(n uint64) string { return strconv.FormatUint(n, 10) })
	}
	state := lower[swarmapi.UpdateStatus_UpdateState]
	switch {
	case s.UpdateStatus == nil:
	case old.UpdateStatus == nil:
		a.Attributes["updatestate.new"] = state(s.UpdateStatus.State)
	default:
		noteChange(a, "updatestate", old.UpdateStatus.State, s.UpdateStatus.State, state)
	}
	return a
}

func lower[T interface{ String() string }](v T) string { return strings.ToLower(v.String()) }
