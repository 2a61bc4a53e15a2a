package resolver

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Addr is where a sandbox finds its resolver.
const Addr = "127.0.0.11"

const (
	dnsPort      = 53
	maxUpstreams = 3        // Docker's, and glibc's
	maxConfLen   = 64 << 10 // bytes of a resolv.conf that are read
	confMaxAge   = time.Second
)

// A Conf is the part of a resolv.conf(5) that matters to a sandbox.
type Conf struct {
	Servers []netip.Addr // at most three
	Search  []string
	Options []string
}

// ParseConf reads a resolv.conf. What makes no sense is skipped, as the C
// library skips it.
func ParseConf(file []byte) Conf {
	var c Conf
	for line := range strings.Lines(string(file)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(fields[1]); err == nil && len(c.Servers) < maxUpstreams {
				c.Servers = append(c.Servers, a.Unmap())
			}
		case "domain", "search":
			c.Search = fields[1:] // the last one counts
		case "options":
			c.Options = append(c.Options, fields[1:]...)
		}
	}
	return c
}

// Upstreams returns the name servers' addresses and ports.
func (c Conf) Upstreams() []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(c.Servers))
	for _, a := range c.Servers {
		out = append(out, netip.AddrPortFrom(a, dnsPort))
	}
	return out
}

// NdotsSet reports whether the options say how many dots make a name absolute;
// see [Scope].
func (c Conf) NdotsSet() bool {
	return slices.ContainsFunc(c.Options, validNdots)
}

func validNdots(option string) bool {
	value, isNdots := strings.CutPrefix(option, "ndots:")
	n, err := strconv.Atoi(value)
	return isNdots && err == nil && n >= 0
}

// Sandbox returns the resolv.conf of a sandbox on a host with c: the sandbox's
// own resolver, c's search domains and options, and ndots:0 unless c says
// otherwise, so that names without a dot are asked for as they are.
func (c Conf) Sandbox() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Made by ovnd. The node answers here, and asks for other names:%s\n", join(c.Servers))
	fmt.Fprintf(&b, "nameserver %s\n", Addr)
	if len(c.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Search, " "))
	}
	options := make([]string, 0, len(c.Options)+1)
	for _, o := range c.Options {
		if !strings.HasPrefix(o, "ndots") || validNdots(o) {
			options = append(options, o)
		}
	}
	if !c.NdotsSet() {
		options = append(options, "ndots:0")
	}
	fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	return b.Bytes()
}

func join(servers []netip.Addr) string {
	if len(servers) == 0 {
		return " nobody"
	}
	var b strings.Builder
	for _, a := range servers {
		b.WriteString(" " + a.String())
	}
	return b.String()
}

// ResolvConf returns the resolv.conf of a sandbox on a host that has this one.
func ResolvConf(host []byte) []byte { return ParseConf(host).Sandbox() }

// A HostConf is the host's resolv.conf, read again after it has changed, which
// is looked for once a second at most. It is safe for concurrent use.
type HostConf struct {
	// Original, if not nil, returns what a file was before this program replaced
	// it. It is set before the first use.
	Original func(file []byte) []byte

	path string
	log  *slog.Logger

	mu        sync.Mutex
	looked    time.Time
	info      fs.FileInfo // of the file that conf is from; nil: there is none
	failed    bool        // the last attempt did, and was logged
	conf      Conf
	upstreams []netip.AddrPort
}

// NewHostConf reads path, usually /etc/resolv.conf. A file that cannot be read
// is one without name servers until it can; log, which may be nil, tells.
func NewHostConf(path string, log *slog.Logger) *HostConf {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &HostConf{path: path, log: log}
}

// Conf returns what the file says now. The caller must not change its slices.
func (h *HostConf) Conf() Conf {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refresh()
	return h.conf
}

// Upstreams returns the name servers in the file, for [Config]. The caller must
// not change the slice.
func (h *HostConf) Upstreams() []netip.AddrPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refresh()
	return h.upstreams
}

func (h *HostConf) refresh() {
	now := time.Now()
	if !h.looked.IsZero() && now.Sub(h.looked) < confMaxAge {
		return
	}
	h.looked = now
	info, err := os.Stat(h.path) // of what a link points to
	if err == nil && sameFile(info, h.info) {
		return
	}
	var file []byte
	if err == nil {
		file, err = readConf(h.path)
	}
	if err != nil {
		info = nil
		if !h.failed {
			h.log.Warn("no name servers: names outside the swarm will not resolve", "error", err)
		}
	}
	h.failed, h.info = err != nil, info
	if h.Original != nil {
		file = h.Original(file)
	}
	h.conf = ParseConf(file)
	h.upstreams = h.conf.Upstreams()
}

// sameFile reports whether a file is as it was when b was its description.
func sameFile(a, b fs.FileInfo) bool {
	return b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func readConf(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxConfLen))
}
