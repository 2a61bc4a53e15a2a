package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/discovery/resolver"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/sandbox"
)

// resolverPatience is how long a sandbox's resolver may take to end.
const resolverPatience = time.Second

// addInterface adds the interface of an attachment to a sandbox that nobody
// else uses yet, and joins its network.
func (s *sandboxes) addInterface(m *member, st *sandboxState, att attachment) error {
	snap, err := m.networks.acquire(att.Network)
	if err != nil {
		return err
	}
	in := sandbox.Interface{
		Name:      fmt.Sprintf("eth%d", len(st.Spec.Interfaces)),
		NetworkID: att.Network.ID, NetworkName: att.Network.Name, EndpointID: randomID(),
		Addrs: att.Addrs, MAC: encap.EndpointMAC(att.Addrs[0].Addr()), MTU: snap.MTU, Queues: m.sw.Workers(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.over() || s.byID[st.Spec.ID] != st {
		m.networks.release(att.Network.ID)
		return errOver
	}
	st.Attachments = append(st.Attachments, att)
	st.Spec.Interfaces = append(st.Spec.Interfaces, in)
	return nil
}

// complete adds what every sandbox has beside its networks, names and the way
// out, and saves its record.
func (s *sandboxes) complete(m *member, st *sandboxState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.over() || s.byID[st.Spec.ID] != st {
		return errOver
	}
	if st.Spec.Bare {
		return nil // it has the machine's, and a proxy
	}
	if !st.internal() {
		addr, err := m.bridge.address(s.bridgeAddrsLocked())
		if err != nil {
			return err
		}
		st.Bridge = addr
		if st.task != nil {
			st.task.reach.Store(&addr)
		}
		st.Spec.Interfaces = append(st.Spec.Interfaces, m.bridge.connect(fmt.Sprintf("eth%d", len(st.Spec.Interfaces)), addr, m.sw.Workers()))
	}
	st.Spec.Resolver = true
	st.Spec.ResolvConf = s.resolvConf(st).Sandbox()
	if st.task != nil {
		return nil // not before it is launched: one that never ran is of no use
	}
	return s.files.save(st.record)
}

func (s *sandboxes) bridgeAddrsLocked() map[netip.Addr]bool {
	taken := make(map[netip.Addr]bool)
	for _, st := range s.byID {
		if st.Bridge.IsValid() && !st.over() {
			taken[st.Bridge] = true
		}
	}
	return taken
}

// internal reports whether the sandbox must not reach the world outside: all of
// its networks are --internal, the ingress network aside.
func (st *sandboxState) internal() bool {
	own := slices.DeleteFunc(slices.Clone(st.Attachments), func(a attachment) bool { return a.Network.Ingress })
	return len(own) > 0 && !slices.ContainsFunc(own, func(a attachment) bool { return !a.Network.Internal })
}

// Attach implements sandbox.Handler: an init presents its devices, at its start
// and again after the node restarted.
func (s *sandboxes) Attach(_ context.Context, a sandbox.Attachment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.byID[a.ID]
	if st == nil || s.member == nil || st.over() {
		return fmt.Errorf("%w: its addresses were given back", sandbox.ErrGone)
	}
	if !st.holds(a.Token) {
		return errors.New("wrong token")
	}
	if !st.waits() {
		return errors.New("its devices are connected already")
	}
	connect := s.connectAllLocked
	if st.Spec.Bare {
		connect = s.connectBareLocked
	}
	if err := connect(st, a); err != nil {
		s.disconnectLocked(st)
		return err
	}
	st.deadline.Stop()
	st.deadline = nil
	st.session, st.initPID = a.Session, a.PID
	if st.task != nil {
		close(st.task.attached)
	} else {
		s.announce(st, events.ActionStart, nil)
	}
	return nil
}

// connectAllLocked gives the data plane the devices of a sandbox, and its names
// to the resolver.
func (s *sandboxes) connectAllLocked(st *sandboxState, a sandbox.Attachment) error {
	if err := s.connectDevicesLocked(st, a); err != nil {
		return err
	}
	return s.serveNamesLocked(st, a.Resolver)
}

func (s *sandboxes) connectDevicesLocked(st *sandboxState, a sandbox.Attachment) error {
	if len(a.Devices) != len(st.Spec.Interfaces) {
		return fmt.Errorf("%d devices for %d interfaces", len(a.Devices), len(st.Spec.Interfaces))
	}
	for i := range a.Devices {
		if err := s.connectLocked(st, i, a.Devices[i]); err != nil {
			return err
		}
	}
	return nil
}

// connectLocked gives the data plane the device of the sandbox's interface i
// and announces its address. What the interface is comes from our own record,
// never from the init.
func (s *sandboxes) connectLocked(st *sandboxState, i int, dev sandbox.Devices) error {
	in := &st.Spec.Interfaces[i]
	if dev.Interface.Name != in.Name {
		return fmt.Errorf("device %q where %s belongs", dev.Interface.Name, in.Name)
	}
	addrs := make([]netip.Addr, len(in.Addrs))
	for j, p := range in.Addrs {
		addrs[j] = p.Addr()
	}
	port, err := s.member.sw.AddPort(dataplane.PortConfig{
		NetworkID: in.NetworkID, EndpointID: in.EndpointID, Name: st.Spec.Name,
		Addrs: addrs, MAC: in.MAC, Queues: dev.Queues, MTU: in.MTU,
	})
	if err != nil {
		return fmt.Errorf("interface %s: %w", in.Name, err)
	}
	st.ports = append(st.ports, port)
	if i >= len(st.Attachments) {
		return nil // the gateway bridge: nobody else's business
	}
	return s.announceLocked(st, i)
}

// announceLocked tells the other nodes of the sandbox's interface i.
func (s *sandboxes) announceLocked(st *sandboxState, i int) error {
	in := &st.Spec.Interfaces[i]
	if err := s.member.disc.AddEndpoint(in.NetworkID, s.endpointLocked(st, i)); err != nil {
		return fmt.Errorf("interface %s: announce %s: %w", in.Name, in.Addrs[0].Addr(), err)
	}
	s.publish(events.ActionConnect, in, st)
	return nil
}

// endpointLocked is what the other nodes are told of the sandbox's interface i.
func (s *sandboxes) endpointLocked(st *sandboxState, i int) directory.Endpoint {
	in, att := &st.Spec.Interfaces[i], &st.Attachments[i]
	ep := directory.Endpoint{
		ID: in.EndpointID, Name: st.Spec.Name, SandboxID: st.Spec.ID,
		Addr: in.Addrs[0].Addr(), MAC: in.MAC, VTEP: s.member.networks.vtep, Kind: directory.Task,
		// Docker gives a container the first digits of its ID as a name.
		TaskAliases: append(slices.Clone(att.Aliases), st.Spec.ID[:12]),
	}
	if st.Spec.Hostname != "" {
		ep.TaskAliases = append(ep.TaskAliases, st.Spec.Hostname)
	}
	if st.task != nil {
		ep.Pending, ep.Disabled = !st.Task.Ready, st.task.draining
	}
	if b := att.Service; b != nil {
		ep.ServiceID, ep.ServiceName, ep.VIP, ep.Way, ep.Aliases, ep.Ports = b.ID, b.Name, b.VIP, b.Way, b.Aliases, b.Ports
	}
	return ep
}

// disconnectLocked takes the sandbox's interfaces off the network. Its
// addresses stay its own.
func (s *sandboxes) disconnectLocked(st *sandboxState) {
	if st.names != nil {
		if err := st.names.stop(resolverPatience); err != nil {
			s.log.Warn("resolver not stopped properly", "sandbox", st.Spec.Name, "error", err)
		}
		st.names = nil
	}
	if st.restoreNames != nil {
		st.restoreNames()
		st.restoreNames = nil
	}
	for i, port := range st.ports {
		in := &st.Spec.Interfaces[i]
		// The record goes first: nobody should send what cannot be delivered.
		if i < len(st.Attachments) {
			if err := s.member.disc.RemoveEndpoint(in.NetworkID, in.EndpointID); err != nil {
				s.log.Warn("endpoint not withdrawn", "sandbox", st.Spec.Name, "network", in.NetworkName, "error", err)
			}
			s.publish(events.ActionDisconnect, in, st)
		}
		if err := port.Close(); err != nil {
			s.log.Warn("port not closed properly", "sandbox", st.Spec.Name, "network", in.NetworkName, "error", err)
		}
	}
	st.ports, st.hosts = nil, nil
}

// serveNamesLocked answers on the sandbox's 127.0.0.11.
func (s *sandboxes) serveNamesLocked(st *sandboxState, socks *sandbox.Resolver) error {
	if socks == nil {
		return errors.New("the init sent no sockets for names")
	}
	udp, err := net.FilePacketConn(socks.UDP)
	if err != nil {
		return fmt.Errorf("resolver: %w", err)
	}
	tcp, err := net.FileListener(socks.TCP)
	if err != nil {
		return errors.Join(fmt.Errorf("resolver: %w", err), udp.Close())
	}
	// net has duplicates.
	if err := socks.Close(); err != nil {
		s.log.Warn("resolver", "sandbox", st.Spec.Name, "error", err)
	}
	scope := s.scope(st)
	st.names = startStage(context.Background(), "resolver of "+st.Spec.Name, func(ctx context.Context) error {
		return s.resolver.Serve(ctx, scope, udp, tcp)
	})
	return nil
}

// resolvConf is what the sandbox's resolv.conf is made of: the host's, but for
// what the task's service says otherwise.
func (s *sandboxes) resolvConf(st *sandboxState) resolver.Conf {
	conf := s.hostConf.Conf()
	if st.Task == nil {
		return conf
	}
	task := &st.Task.Task
	if len(task.DNS) > 0 {
		conf.Servers = nil
	}
	for _, server := range task.DNS {
		if addr, err := netip.ParseAddr(server); err == nil { // checked with the service
			conf.Servers = append(conf.Servers, addr)
		}
	}
	if len(task.DNSSearch) > 0 {
		conf.Search = task.DNSSearch
	}
	if len(task.DNSOptions) > 0 {
		conf.Options = task.DNSOptions
	}
	return conf
}

// scope is which names the sandbox sees: those of its networks, in the order of
// its interfaces, the ingress network aside.
func (s *sandboxes) scope(st *sandboxState) resolver.Scope {
	conf := s.resolvConf(st)
	// Where the file of a container was replaced, the resolver that it named knows
	// names without a dot.
	sc := resolver.Scope{Internal: st.internal(), NdotsSet: conf.NdotsSet() && st.restoreNames == nil}
	if st.Task != nil && len(st.Task.Task.DNS) > 0 {
		sc.Upstreams = conf.Upstreams()
	}
	for _, a := range st.Attachments {
		if !a.Network.Ingress {
			sc.Networks = append(sc.Networks, a.Network.ID)
		}
	}
	return sc
}

func (s *sandboxes) publish(action events.Action, in *sandbox.Interface, st *sandboxState) {
	s.events.Publish(events.Message{
		Type: events.NetworkEventType, Action: action,
		Actor: events.Actor{ID: in.NetworkID, Attributes: map[string]string{
			"container": st.Spec.ID, "name": in.NetworkName, "type": "overlay",
		}},
	})
}
