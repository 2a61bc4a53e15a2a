package main

import (
	"strings"
	"testing"
	"time"
)

func TestEvents(t *testing.T) {
	time.Local = time.UTC // as in the reference
	n := newFakeNode(t)
	n.on("GET /events", 0, `{"Type":"network","Action":"create","Actor":{"ID":"biqvry1vahzl3892w2zyenak1","Attributes":{"type":"overlay","name":"ingress"}},"scope":"local","time":1795376486,"timeNano":1795376486198984312}
{"Type":"node","Action":"update","Actor":{"ID":"tba91kwrrl8jibyyhmyzgjx3b"},"time":1795376486}
`)
	n.run(t, "events", "--until", "0s", "-f", "type=network").want(t, `2026-11-22T19:41:26.198984312Z network create biqvry1vahzl3892w2zyenak1 (name=ingress, type=overlay)
2026-11-22T19:41:26.000000000Z node update tba91kwrrl8jibyyhmyzgjx3b
`, "", 0)
	if got := n.last(t, "GET /events").query; !strings.Contains(got, "type%22%3A%7B%22network") || !strings.Contains(got, "until=") {
		t.Errorf("query %q", got)
	}
	n.run(t, "events", "--format", "{{.Type}} {{.Action}}").want(t, "network create\nnode update\n", "", 0)
	if got := n.run(t, "events", "--format", "json"); !strings.HasPrefix(got.out, `{"Type":"network","Action":"create","Actor":{"ID":"biqvry1vahzl3892w2zyenak1"`) {
		t.Errorf("%+v", got)
	}
}

func TestInfo(t *testing.T) {
	n := newFakeManager(t)
	got := n.run(t, "info")
	got.out = strings.Replace(got.out, " Version: "+clientInfo().Version, " Version: VERSION", 1)
	got.want(t, testdata(t, "info.txt"), "WARNING: beware\n", 0)
	n.run(t, "info", "-f", "{{.Swarm.LocalNodeState}} {{.Name}} {{.ClientInfo.Version}}").want(t, "active localhost "+clientInfo().Version+"\n", "", 0)
	n.run(t, "info", "-f", "{{").want(t, "", "template parsing error: template: :1: unclosed action\n", 64)
	if got := n.run(t, "info", "-f", "json"); !strings.Contains(got.out, `"LocalNodeState":"active"`) || got.code != 0 {
		t.Errorf("%+v", got)
	}
}

func TestVersion(t *testing.T) {
	n := newFakeNode(t)
	n.on("GET /version", 0, `{"Platform":{"Name":"ovnd"},"Version":"0.1.0","ApiVersion":"1.51","MinAPIVersion":"1.40","Os":"linux","Arch":"amd64",
		"Components":[{"Name":"ovnd","Version":"0.1.0","Details":{"GitCommit":"1f168b1","GoVersion":"go1.26.3","BuildTime":"2026-11-22T19:41:26Z","KernelVersion":"6.18.44"}}]}`)
	got := n.run(t, "version")
	_, server, _ := strings.Cut(got.out, "\n\n")
	diff(t, "server", server, `Server: ovnd
 Node:
  Version:          0.1.0
  API version:      1.51 (minimum version 1.40)
  Go version:       go1.26.3
  Git commit:       1f168b1
  Built:            Sun Nov 22 19:41:26 2026
  OS/Arch:          linux/amd64
`)
	if !strings.HasPrefix(got.out, "Client: ovnd\n Version:           ") || !strings.Contains(got.out, " API version:       1.51 (downgraded from ") || got.code != 0 {
		t.Errorf("%+v", got)
	}
	n.run(t, "version", "-f", "{{.Server.Version}} {{.Server.KernelVersion}} {{.Client.APIVersion}}").want(t, "0.1.0 6.18.44 1.51\n", "", 0)
}

func TestStatus(t *testing.T) {
	n := newFakeNode(t)
	n.on("GET /ovnd/status", 0, testdata(t, "status.json"))
	n.run(t, "status").want(t, testdata(t, "status.txt"), "", 0)
	n.run(t, "status", "-f", "{{.Role}} {{.Ledger.Sent}} {{range .Ports}}{{.Name}}:{{.RxPackets}} {{end}}").want(t, "manager 1120 a:600 b:500 \n", "", 0)
	asJSON := n.run(t, "status", "--json")
	if !strings.Contains(asJSON.out, `"Ledger":{"Sent":1120,"Delivered":1100,"Dropped":20}`) || asJSON.code != 0 {
		t.Errorf("%+v", asJSON)
	}
	n.run(t, "status", "--format", "json").want(t, asJSON.out, "", 0)
}

// TestStatusOfSessions is a node on an encrypted network: two peers with a
// session, one without.
func TestStatusOfSessions(t *testing.T) {
	n := newFakeNode(t)
	n.on("GET /ovnd/status", 0, testdata(t, "status_sealed.json"))
	n.run(t, "status").want(t, testdata(t, "status_sealed.txt"), "", 0)
	n.run(t, "status", "-f", "{{range .Peers}}{{range .Sessions}}{{.NodeID}} {{.Cipher}} {{end}}{{end}}{{.Sealing.Primary}}").
		want(t, "w1 aes-256-gcm w2 chacha20-poly1305 w3  12\n", "", 0)
}

func TestStatusOfAnEmptyNode(t *testing.T) {
	n := newFakeNode(t)
	n.on("GET /ovnd/status", 0, `{"Hostname":"vm","State":"inactive","Version":"dev","PID":7,"Uptime":3,"StateDir":"/s","Addresses":{"API":"/s/run/ovnd.sock"}}`)
	n.run(t, "status").want(t, `Node:      vm
Swarm:     inactive
Running:   3 seconds (pid 7, version dev)
State:     /s
API:       unix:///s/run/ovnd.sock

Dropped: none
Ledger: 0 sent, 0 delivered, 0 dropped: it closes
`, "", 0)
}
