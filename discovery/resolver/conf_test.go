package resolver

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestResolvConf(t *testing.T) {
	for _, tc := range []struct {
		name, host string
		want       string // without the comment
		servers    []string
		ndots      bool
	}{
		{"empty", "", "nameserver 127.0.0.11\noptions ndots:0\n", nil, false},
		{
			"usual",
			"# made by somebody\nnameserver 192.0.2.53\nnameserver 127.0.0.53\nsearch example.com corp.example\noptions edns0 trust-ad\n",
			"nameserver 127.0.0.11\nsearch example.com corp.example\noptions edns0 trust-ad ndots:0\n",
			[]string{"192.0.2.53", "127.0.0.53"},
			false,
		},
		{
			"ndots is kept, the last search counts, three servers do",
			"nameserver 192.0.2.1\nnameserver nonsense\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\n" +
				"domain a.example\nsearch b.example\noptions ndots:2\n",
			"nameserver 127.0.0.11\nsearch b.example\noptions ndots:2\n",
			[]string{"192.0.2.1", "2001:db8::1", "fe80::1%eth0"},
			true,
		},
		{
			"nonsense",
			"nameserver\noptions\nsearch\n; nameserver 192.0.2.1\noptions ndots:x ndots: ndots ndots:-1 rotate\n\x00\xff",
			"nameserver 127.0.0.11\noptions rotate ndots:0\n", nil, false,
		},
	} {
		c := ParseConf([]byte(tc.host))
		comment, body, _ := strings.Cut(string(ResolvConf([]byte(tc.host))), "\n")
		if body != tc.want || !strings.HasPrefix(comment, "# ") || c.NdotsSet() != tc.ndots {
			t.Errorf("%s: got\n%s\n%swant\n%s", tc.name, comment, body, tc.want)
		}
		var servers []string
		for i, a := range c.Servers {
			servers = append(servers, a.String())
			if c.Upstreams()[i] != netip.AddrPortFrom(a, 53) {
				t.Errorf("%s: upstreams %v", tc.name, c.Upstreams())
			}
			if !strings.Contains(comment, " "+a.String()) {
				t.Errorf("%s: the comment does not name %s: %s", tc.name, a, comment)
			}
		}
		if !slices.Equal(servers, tc.servers) {
			t.Errorf("%s: servers %v, want %v", tc.name, servers, tc.servers)
		}
	}
}

// The file is read again when it was changed, replaced, or came back.
func TestHostConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	h := NewHostConf(path, nil)
	look := func() string {
		h.mu.Lock()
		h.looked = time.Time{} // as if a second had passed
		h.mu.Unlock()
		var out []string
		for _, a := range h.Upstreams() {
			out = append(out, a.Addr().String())
		}
		return strings.Join(out, " ")
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := look(); got != "" {
		t.Errorf("no file: %s", got)
	}
	write(path, "nameserver 192.0.2.1\nsearch a.example\n")
	if got := look(); got != "192.0.2.1" || h.Conf().Search[0] != "a.example" {
		t.Errorf("written: %s", got)
	}
	write(path, "nameserver 192.0.2.22\n")
	if got := look(); got != "192.0.2.22" {
		t.Errorf("changed: %s", got)
	}
	// Replaced within one tick by one of the same size.
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	write(path+".new", "nameserver 192.0.2.33\n")
	if err := os.Chtimes(path+".new", info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if got := look(); got != "192.0.2.33" {
		t.Errorf("replaced: %s", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := look(); got != "" {
		t.Errorf("removed: %s", got)
	}
	write(path, "nameserver 192.0.2.44\n")
	if got := h.Upstreams(); len(got) != 0 {
		t.Errorf("looked twice within a second: %v", got)
	}
	if got := look(); got != "192.0.2.44" {
		t.Errorf("back: %s", got)
	}
}

func FuzzParseConf(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\nsearch a b\noptions ndots:1 edns0\n"))
	f.Add([]byte("options ndots:\nnameserver ::ffff:192.0.2.1\ndomain x\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		c := ParseConf(file)
		if len(c.Servers) > maxUpstreams {
			t.Errorf("%d servers", len(c.Servers))
		}
		again := ParseConf(c.Sandbox())
		if len(again.Servers) != 1 || again.Servers[0].String() != Addr || !again.NdotsSet() || !slices.Equal(again.Search, c.Search) {
			t.Errorf("the sandbox's file is read as %+v", again)
		}
	})
}
