package sandbox

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
)

// errChecked ends the init of Check where a sandbox would begin.
var errChecked = errors.New("a sandbox can be had")

// Check makes a sandbox and gives it up again: nil means that this machine lets
// this user have sandboxes. Else the error says what is missing, and what can be
// done about it.
func Check(ctx context.Context) error {
	if err := checkTUN(tunPath); err != nil {
		return err
	}
	err := checkOnce(ctx, true)
	if errors.Is(err, errNoProc) { // without a pid namespace, then, as Run and Start do
		err = checkOnce(ctx, false)
	}
	return err
}

func checkOnce(ctx context.Context, pidns bool) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	cfg := initConfig{
		Check: true, PIDNS: pidns,
		Spec: Spec{
			ID: strings.Repeat("0", idLen), Name: "check",
			Interfaces: []Interface{{
				Name: "eth0", MTU: 1450, Queues: 1,
				Addrs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 32)}, // RFC 5737
			}},
			Resolver: true,
		},
	}
	proc, control, err := startInit(cfg, Command{Stdin: null, Stdout: null, Stderr: null})
	if err != nil {
		return err
	}
	err = awaitInit(ctx, control)
	_ = proc.Process.Kill() // it ends by itself otherwise
	_ = proc.Wait()         // how says nothing
	return err
}
