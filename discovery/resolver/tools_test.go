package resolver

import (
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// tool runs a program that must be there in CI.
func tool(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(args[0])
	if err != nil {
		if os.Getenv("OVND_CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	out, err := exec.CommandContext(t.Context(), path, args[1:]...).CombinedOutput()
	if err != nil {
		t.Logf("%v: %v", args, err) // nslookup has a status for names that do not exist
	}
	return string(out)
}

// Debian's dig and nslookup, as the walk-through uses them.
func TestDig(t *testing.T) {
	up := upstream(t, func(q *dns.Msg) *dns.Msg {
		if q.Question[0].Name == "nosuch.example.com." {
			return new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		}
		return answerA(q, outside)
	})
	server := serve(t, New(Config{Store: world(), Upstreams: up.list}), both)
	host, port, _ := net.SplitHostPort(server)
	dig := func(args ...string) string {
		return tool(t, append([]string{"dig", "@" + host, "-p", port, "+tries=1", "+time=5"}, args...)...)
	}
	for _, tc := range []struct {
		args []string
		want []string // lines, sorted
	}{
		{[]string{"my-test"}, []string{"10.10.0.2"}},
		{[]string{"+noedns", "MY-TEST.ngx_net"}, []string{"10.10.0.2"}},
		{[]string{"tasks.my-test"}, []string{"10.10.0.3", "10.10.0.4"}},
		{[]string{"+tcp", "+dnssec", "rr"}, []string{"10.10.0.11", "10.10.0.12"}},
		{[]string{"AAAA", "my-test"}, nil},
		{[]string{"-x", "10.10.0.3"}, []string{"my-test.1.id1.ngx_net."}},
		{[]string{"SRV", "_http._tcp.my-test"}, []string{"0 0 80 my-test."}},
		{[]string{"example.com"}, []string{outside}},
		{[]string{"nosuch.example.com"}, nil},
	} {
		out := dig(append(tc.args, "+short")...)
		got := strings.Split(strings.TrimSpace(out), "\n")
		slices.Sort(got)
		if want := max(len(tc.want), 1); len(got) != want || tc.want != nil && !slices.Equal(got, tc.want) || tc.want == nil && got[0] != "" {
			t.Errorf("dig %v: got %q, want %q", tc.args, out, tc.want)
		}
	}
	for name, pattern := range map[string]string{
		"my-test AAAA":                       `(?s)status: NOERROR.*flags: qr rd ra;.*ANSWER: 0, AUTHORITY: 1, ADDITIONAL: 1.*udp: 1232.*IN\s+SOA\s+ovnd\.`,
		"nosuch.example.com":                 `status: NXDOMAIN`,
		"version.bind CH TXT":                `status: REFUSED`,
		"my-test +opcode=5":                  `status: NOTIMP`,
		"my-test +edns=1 +noednsnegotiation": `status: BADVERS`,
	} {
		if out := dig(strings.Fields(name)...); !regexp.MustCompile(pattern).MatchString(out) || strings.Contains(out, "malformed") {
			t.Errorf("dig %s:\n%s", name, out)
		}
	}
}

func TestNslookup(t *testing.T) {
	server := serve(t, New(Config{Store: world()}), both)
	host, port, _ := net.SplitHostPort(server)
	for name, want := range map[string][]string{
		"my-test":       {"10.10.0.2"},
		"tasks.my-test": {"10.10.0.3", "10.10.0.4"},
		"rr":            {"10.10.0.11", "10.10.0.12"}, // and no VIP
	} {
		out := tool(t, "nslookup", "-port="+port, name, host)
		var got []string
		for _, m := range regexp.MustCompile(`Name:\s+(\S+)\nAddress: (\S+)`).FindAllStringSubmatch(out, -1) {
			if m[1] == name {
				got = append(got, m[2])
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) || strings.Contains(out, "can't find") {
			t.Errorf("nslookup %s:\n%s", name, out)
		}
	}
	if out := tool(t, "nslookup", "-port="+port, "10.10.0.3", host); !strings.Contains(out, "name = my-test.1.id1.ngx_net.") {
		t.Errorf("nslookup 10.10.0.3:\n%s", out)
	}
}
