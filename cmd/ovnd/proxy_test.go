package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ovnd/ovnd/api/types"
)

func TestListenAddr(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"1080": "127.0.0.1:1080", "0": "127.0.0.1:0", "127.0.0.3": "127.0.0.3:1080", "::1": "[::1]:1080",
		"127.0.0.3:9": "127.0.0.3:9", "[::1]:9": "[::1]:9", "localhost:9": "localhost:9",
		"/run/x.sock": "/run/x.sock", "./x.sock": filepath.Join(wd, "x.sock"),
		"web": "", "70000": "", "": "", "127.0.0.1:70000": "", "localhost:http": "",
	} {
		got, err := listenAddr(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

// What is connected to is looked at before anything is opened, and what is wrong
// with it is said.
func TestParseTarget(t *testing.T) {
	for in, want := range map[string]string{
		"web:80": "", "web.:80": "", "tasks.web.net:80": "", "10.0.0.1:80": "", "[2001:db8::1]:80": "",
		"web": "NAME:PORT", "": "NAME:PORT", ":80": "empty", "web:": "port", "web:0": "port", "web:70000": "port", "web:http": "port",
		"http://web:80/": "without scheme", "http://web/": "without scheme", "web:80/": "without scheme", "2001:db8::1": "NAME:PORT",
	} {
		got, err := parseTarget(in)
		if want == "" && (err != nil || got != in) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %q, %v; want an error with %q", in, got, err, want)
		}
	}
	// Without a node: it is the arguments that are wrong.
	for _, args := range [][]string{
		{"forward", "5432", "http://db:80/"},
		{"forward", "5432", "db:0"},
		{"nc", "", "80"},
		{"nc", "http://web", "80"},
		{"nc", "web", "0"},
		{"expose", "api:80/sctp", "3000"},
		{"proxy", "-l", "127.0.0.1:99999"},
	} {
		if r := ovndCommand(t, append([]string{"--state-dir", t.TempDir()}, args...)...); r.code != 1 || strings.Contains(r.err, "ovnd up") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func TestParseExpose(t *testing.T) {
	for _, tc := range []struct{ name, local, want string }{
		{"api:80", "3000", "api 80  127.0.0.1:3000"},
		{"dns:53/udp", "127.0.0.2:5353", "dns 53 udp 127.0.0.2:5353"},
		{"api:80", "[::1]:3000", "api 80  [::1]:3000"},
		{"api", "3000", ""},
		{":80", "3000", ""},
		{"api:0", "3000", ""},
		{"api:http", "3000", ""},
		{"api:80", "0", ""},
		{"api:80", "web", ""},
		{"api:80", "localhost:8080", "api 80  127.0.0.1:8080"},
		{"api.:80", "3000", "api 80  127.0.0.1:3000"},
		{"api:80/sctp", "3000", ""},
		{"http://api:80", "3000", ""},
		{".:80", "3000", ""},
	} {
		var req types.ExposeRequest
		err := parseExpose(&req, tc.name, tc.local)
		got := ""
		if err == nil {
			got = fmt.Sprintf("%s %d %s %s", req.Name, req.Port, req.Protocol, req.Target)
		}
		if got != tc.want {
			t.Errorf("%s %s: %q, %v; want %q", tc.name, tc.local, got, err, tc.want)
		}
	}
}

func TestParseSidecars(t *testing.T) {
	got, err := parseSidecars([]string{"web", "api=3000"})
	if want := map[string]uint16{"web": 0, "api": 3000}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"", "=80", "a b", "web=", "web=0", "web=http", "-web"} {
		if got, err := parseSidecars([]string{bad}); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

// TestPrintEnv: the lines are a shell's.
func TestPrintEnv(t *testing.T) {
	var b bytes.Buffer
	printEnv(&b, []string{"ALL_PROXY=socks5h://u:p@127.0.0.1:1080", "NO_PROXY=localhost,::1"})
	if want := "export ALL_PROXY='socks5h://u:p@127.0.0.1:1080'\nexport NO_PROXY='localhost,::1'\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
