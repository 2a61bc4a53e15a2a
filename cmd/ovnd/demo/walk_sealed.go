package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// What an encrypted network differs by. Its frames leave 26 bytes less for
// packets than a plain network's, which is Docker's figure.
const (
	plainMTU  = 1450
	sealedMTU = 1424
)

// Names of what is looked for on the wire. The canary is what tasks say to each
// other; the routing mesh is a plain network and shows that the wire can be heard.
const (
	clearFrames  = "frames of " + network + " in clear"
	clearCanary  = "frames with what its tasks say"
	ingressMarks = "frames of ingress"
	canary       = "canary-7f1c03d95e"
)

// sealed says whether the network of this walk is encrypted.
func (w *walk) sealed() bool { return w.wire != nil }

// mtu is that of the network.
func (w *walk) mtu() int {
	if w.sealed() {
		return sealedMTU
	}
	return plainMTU
}

// withSealed adds the steps that an encrypted network makes sense of.
func (w *walk) withSealed(steps []step) []step {
	if !w.sealed() {
		return steps
	}
	insert := func(after string, added step) {
		i := slices.IndexFunc(steps, func(s step) bool { return s.title == after })
		steps = slices.Insert(steps, i+1, added)
	}
	insert("An overlay network", step{"The network is encrypted, and somebody listens", true, w.listen})
	insert("From task to task, over all nodes", step{"Packets that just fit, and that just do not", false, w.fitting})
	insert("Packets that just fit, and that just do not", step{"Each node has a session with the others", false, w.sessions})
	insert("A task dies and is replaced", step{"What the wire carried", false, w.heard})
	return steps
}

// listen checks what the network is, and tells the wire what to look for.
func (w *walk) listen(ctx context.Context, s *stepRun) error {
	out, err := w.ovnd(ctx, s, w.manager(), "network", "inspect", "--format", "{{json .Options}}", network)
	if err != nil {
		return err
	}
	options, err := decode[map[string]string](out)
	if err != nil {
		return err
	}
	value, encrypted := options["encrypted"]
	s.check(`option "encrypted": ""`, strings.TrimSpace(out), encrypted && value == "")
	for name, n := range map[string]string{clearFrames: network, ingressMarks: "ingress"} {
		vni, err := w.vni(ctx, n)
		if err != nil {
			return err
		}
		w.wire.watch(name, vxlanMark(vni))
	}
	w.wire.watch(clearCanary, []byte(canary))
	return nil
}

func (w *walk) vni(ctx context.Context, name string) (vni uint32, err error) {
	const option = `{{index .Options "com.docker.network.driver.overlay.vxlanid_list"}}`
	out, err := w.manager().ovnd(ctx, "network", "inspect", "--format", option, name)
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscan(out, &vni); err != nil {
		return 0, fmt.Errorf("VXLAN ID %q: %w", out, err)
	}
	return vni, nil
}

// fitting sends packets that must not be fragmented.
func (w *walk) fitting(ctx context.Context, s *stepRun) error {
	from := w.tasks[0]
	i := slices.IndexFunc(w.tasks, func(t task) bool { return t.on != from.on })
	if i < 0 {
		return fmt.Errorf("all tasks are on %s", from.on.name)
	}
	for size, want := range map[int]string{sealedMTU: "answered", sealedMTU + 1: "message too long"} {
		answer, err := probe[dialAnswer](ctx, s, from, "fit", w.tasks[i].addr.String(), fmt.Sprint(size))
		if err != nil {
			return err
		}
		seen := answer.Error
		if seen == "" {
			seen = "answered"
		}
		s.check(fmt.Sprintf("%d bytes: %s", size, want), fmt.Sprintf("%d bytes: %s", size, seen), strings.Contains(seen, want))
	}
	return nil
}

// sessions looks at what each node says of those with the others.
func (w *walk) sessions(ctx context.Context, s *stepRun) error {
	type status struct {
		Peers []struct {
			IP       string
			Sessions []struct {
				Established bool
				Cipher      string
				Reason      string
			}
		}
	}
	for _, m := range w.machines {
		s.command(m.name, "status")
		seen, ok, err := eventually(ctx, settled, func(ctx context.Context) (string, bool, error) {
			out, err := m.ovnd(ctx, "status", "--json")
			if err != nil {
				return "", false, err
			}
			st, err := decode[status](out)
			var lines []string
			established := 0
			for _, p := range st.Peers {
				for _, session := range p.Sessions {
					line := p.IP + " none: " + session.Reason
					if session.Established {
						established++
						line = p.IP + " " + session.Cipher
					}
					lines = append(lines, line)
				}
			}
			return strings.Join(sorted(lines), "\n"), established == len(w.machines)-1 && established == len(lines), err
		})
		if err != nil {
			return err
		}
		s.check(fmt.Sprintf("%d sessions", len(w.machines)-1), seen, ok)
	}
	return nil
}

// heard says something that must not be heard, and looks at what was.
func (w *walk) heard(ctx context.Context, s *stepRun) error {
	for _, m := range w.machines {
		from, err := w.taskOn(m)
		if err != nil {
			return err
		}
		n := fmt.Sprint(len(w.tasks))
		pages, err := probe[[]httpAnswer](ctx, s, from, "http", n, "http://"+service+"/?"+canary)
		if err != nil {
			return err
		}
		s.check(n+" pages", w.program.describe(pages), w.program.pages(pages, len(w.tasks)))
	}
	for _, name := range []string{clearFrames, clearCanary, ingressMarks} {
		marked, all, err := w.wire.count(name)
		if err != nil {
			return err
		}
		want, ok := "no "+name, marked == 0
		if name == ingressMarks {
			want, ok = "some "+name+", which is not encrypted", marked > 0
		}
		s.check(want, fmt.Sprintf("%d of %d %s", marked, all, name), ok)
	}
	return nil
}
