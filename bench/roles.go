package bench

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/ovnd/ovnd/bench/traffic"
)

type sinkRole struct {
	spec traffic.SinkSpec
	sink *traffic.Sink
}

func (r *sinkRole) run(ctx context.Context, ready func()) (err error) {
	if r.sink, err = traffic.NewSink(r.spec); err != nil {
		return err
	}
	ready()
	return r.sink.Run(ctx)
}

func (r *sinkRole) counters() traffic.Counters { return r.sink.Counters() }

type sourceRole struct{ source *traffic.Source }

func (r *sourceRole) run(ctx context.Context, ready func()) error {
	ready()
	return r.source.Run(ctx)
}

func (r *sourceRole) counters() traffic.Counters { return r.source.Counters() }

// A trialRole sends UDP when it is asked to: "try RATE NANOSECONDS".
type trialRole struct {
	spec  traffic.Spec
	trial *traffic.Trial
}

func (r *trialRole) run(ctx context.Context, ready func()) (err error) {
	if r.trial, err = traffic.NewTrial(r.spec); err != nil {
		return err
	}
	defer r.trial.Close()
	ready()
	<-ctx.Done()
	return nil
}

func (r *trialRole) try(ctx context.Context, args []string) (answer reply, err error) {
	if len(args) != 2 {
		return answer, fmt.Errorf("%d arguments", len(args))
	}
	rate, err := strconv.ParseFloat(args[0], 64)
	if err != nil {
		return answer, err
	}
	d, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return answer, err
	}
	var took time.Duration
	answer.Packets, took, err = r.trial.Run(ctx, rate, time.Duration(d))
	answer.Nanoseconds = uint64(took)
	return answer, err
}

func (*trialRole) counters() traffic.Counters { return traffic.Counters{} }

// A wireguardSpec configures one end of a wireguard-go tunnel. Keys are raw
// X25519 keys.
type wireguardSpec struct {
	Name       string         `json:"name"` // of the TUN device
	MTU        int            `json:"mtu"`
	Port       uint16         `json:"port"` // UDP, on all addresses
	PrivateKey []byte         `json:"private_key"`
	PeerKey    []byte         `json:"peer_key"`
	Peer       netip.AddrPort `json:"peer"`
}

// A wireguardRole runs wireguard-go as its own main does.
type wireguardRole struct{ spec wireguardSpec }

func (r *wireguardRole) run(ctx context.Context, ready func()) error {
	link, err := tun.CreateTUN(r.spec.Name, r.spec.MTU)
	if err != nil {
		return fmt.Errorf("wireguard-go: %w", err)
	}
	dev := device.NewDevice(link, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, "wireguard-go: "))
	defer dev.Close()
	err = dev.IpcSet(fmt.Sprintf(
		"private_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s\nallowed_ip=0.0.0.0/0\n",
		hex.EncodeToString(r.spec.PrivateKey), r.spec.Port, hex.EncodeToString(r.spec.PeerKey), r.spec.Peer))
	if err != nil {
		return fmt.Errorf("wireguard-go: %w", err)
	}
	if err := dev.Up(); err != nil {
		return fmt.Errorf("wireguard-go: %w", err)
	}
	ready()
	select {
	case <-ctx.Done():
		return nil
	case <-dev.Wait():
		return fmt.Errorf("wireguard-go: device %s went away", r.spec.Name)
	}
}

func (*wireguardRole) counters() traffic.Counters { return traffic.Counters{} }
