// Package lab builds networks of Linux network namespaces for tests and
// benchmarks, as any user, with nothing installed but the kernel.
//
// A program enters the lab once, by [Main] in a TestMain or [Enter] at the top
// of main: it re-executes itself in user, network and mount namespaces of its
// own, where its user is mapped to root and holds every capability over what it
// creates. From there [New] and [Lab.Host] make one network namespace per
// simulated machine, and methods of [Host] wire them:
//
//	func TestMain(m *testing.M) { lab.Main(m) }
//
//	func TestReach(t *testing.T) {
//		l := lab.New(t)
//		a, b := l.Host("a"), l.Host("b")
//		l.Veth(1500,
//			lab.End{Host: a, Name: "eth0", Addrs: []string{"192.0.2.1/24", "2001:db8::1/64"}},
//			lab.End{Host: b, Name: "eth0", Addrs: []string{"192.0.2.2/24", "2001:db8::2/64"}})
//		err := a.Ping(t.Context(), netip.MustParseAddr("192.0.2.2"), lab.Ping{})
//		…
//	}
//
// Methods that set things up end the test through [TB] when they fail; methods
// that a test may expect to fail return an error. Everything is removed by
// TB.Cleanup: processes are killed, and a namespace with all its devices goes
// when its last socket is closed. If the program itself is killed, the kernel
// kills its children and removes the same things.
//
// Sockets, TUN devices and files below /proc/sys/net belong to the namespace of
// the thread that opens them, so code that opens them runs under [Host.Do].
package lab
