package e2e

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/ovnd/ovnd/bench/lab"
)

// A laptop goes from one network to another, where it has another address: its
// node starts there with all that it had, and others can join it there.
func TestLaptopChangesNetwork(t *testing.T) {
	l := lab.New(t)
	laptop, home := l.Host("laptop"), l.Host("home")
	l.Veth(1500,
		lab.End{Host: laptop, Name: "wlan0", Addrs: []string{"192.0.2.10/24"}},
		lab.End{Host: home, Name: "lan0", Addrs: []string{"192.0.2.1/24"}})
	laptop.Route("0.0.0.0/0", "wlan0", netip.MustParseAddr("192.0.2.1"))
	n := newNode(t, laptop, "laptop", "192.0.2.10")
	n.start("up", "--foreground")
	n.waitReady()
	n.must("network", "create", "-d", "overlay", "--attachable", "net")
	n.must("service", "create", "-q", "--name", "web", "--network", "net", "-p", "8080:80", "ovnd/whoami")
	n.down()

	laptop.Down("wlan0")
	office := l.Host("office")
	l.Veth(1500,
		lab.End{Host: laptop, Name: "wlan1", Addrs: []string{"198.51.100.10/24"}},
		lab.End{Host: office, Name: "lan0", Addrs: []string{"198.51.100.1/24"}})
	if err := laptop.Do(func() error {
		addrs, err := laptop.Netlink().AddrList(nil, 2)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if strings.HasPrefix(a.IP.String(), "192.0.2.") {
				err = errors.Join(err, laptop.Netlink().AddrDel(nil, &a))
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	laptop.Route("0.0.0.0/0", "wlan1", netip.MustParseAddr("198.51.100.1"))
	n.start("up", "--foreground")
	n.waitReady()
	n.eventually("the managers' address is that of today", func() error {
		out := n.must("node", "inspect", "self", "--format", "{{.Status.Addr}} {{.ManagerStatus.Addr}}")
		if out != "198.51.100.10 198.51.100.10:2377" {
			return errors.New(out)
		}
		return nil
	})
	colleague := newNode(t, office, "colleague", "198.51.100.1").up("--join", n.token("worker"), "198.51.100.10:2377")
	needCurl(t)
	for _, at := range []string{"198.51.100.10", "198.51.100.1"} {
		colleague.eventually("the service answers at "+at, func() error {
			r := colleague.program(nil, "curl", "-sS", "-m", "2", "http://"+at+":8080/")
			if line(r.stdout, "service") != "web" {
				return errors.New(r.stdout + r.stderr)
			}
			return nil
		})
	}
}
