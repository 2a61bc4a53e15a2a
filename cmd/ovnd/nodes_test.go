package main

import (
	"net/http"
	"testing"
)

const trustRoot = "-----BEGIN CERTIFICATE-----\\nMIIBajCCARCgAwIBAgIUUfzTuQ4sHH8G\\n-----END CERTIFICATE-----\\n"

const tlsInfo = `{"TrustRoot":"` + trustRoot + `","CertIssuerSubject":"MBMxETAPBgNVBAMTCHN3YXJtLWNh","CertIssuerPublicKey":"MFkwEwYH"}`

// nodeLocalhost is a manager with all that inspect shows.
const nodeLocalhost = `{"ID":"ah2lt4rfnp5tua63rsdks07g2","Version":{"Index":90},"CreatedAt":"2026-11-22T17:27:29.563843309Z","UpdatedAt":"2026-11-22T17:28:57.022382951Z",
 "Spec":{"Labels":{"c":"","a":"b"},"Role":"manager","Availability":"active"},
 "Description":{"Hostname":"localhost","Platform":{"Architecture":"x86_64","OS":"linux"},"Resources":{"NanoCPUs":2000000000,"MemoryBytes":25276510208},
  "Engine":{"EngineVersion":"0.1.0","Labels":{"rack":"1"},"Plugins":[{"Type":"Network","Name":"overlay"},{"Type":"Log","Name":"json-file"},{"Type":"Network","Name":"host"}]},
  "TLSInfo":` + tlsInfo + `},
 "Status":{"State":"ready","Addr":"192.0.2.11"},
 "ManagerStatus":{"Leader":true,"Reachability":"reachable","Addr":"192.0.2.11:2377"}}`

const nodeList = `[` + nodeLocalhost + `,
 {"ID":"31dki1k2velesgo16zxydrg2r","Version":{"Index":12},"Spec":{"Role":"worker","Availability":"drain"},"Description":{"Hostname":"hsp2","Engine":{"EngineVersion":"28.2.2"}},"Status":{"State":"down"}},
 {"ID":"y9vv9bfwwknxnrd3eruffwkr0","Version":{"Index":13},"Spec":{"Role":"manager","Availability":"active"},"Description":{"Hostname":"hsp1","Engine":{"EngineVersion":"28.2.2"},"TLSInfo":{"TrustRoot":"other","CertIssuerSubject":"TQ==","CertIssuerPublicKey":"TQ=="}},"Status":{"State":"ready"},"ManagerStatus":{"Reachability":"unreachable","Addr":"192.0.2.12:2377"}}
]`

const managerInfo = `{"Swarm":{"NodeID":"ah2lt4rfnp5tua63rsdks07g2","NodeAddr":"192.0.2.11","LocalNodeState":"active","ControlAvailable":true,
 "RemoteManagers":[{"NodeID":"y9vv9bfwwknxnrd3eruffwkr0","Addr":"192.0.2.12:2377"},{"NodeID":"ah2lt4rfnp5tua63rsdks07g2","Addr":"192.0.2.11:2377"}],"Nodes":3,"Managers":2,
 "Cluster":{"ID":"3pcu786v7mllcnsyuf56g3gkp","Spec":{"Name":"default","Orchestration":{"TaskHistoryRetentionLimit":5},"Raft":{"SnapshotInterval":10000,"KeepOldSnapshots":0,"ElectionTick":10,"HeartbeatTick":1},
  "Dispatcher":{"HeartbeatPeriod":5000000000},"CAConfig":{"NodeCertExpiry":7776000000000000}},"TLSInfo":` + tlsInfo + `,"DefaultAddrPool":["10.0.0.0/8"],"SubnetSize":24,"DataPathPort":4789}},
 "ID":"4f6a","Name":"localhost","Containers":2,"ContainersRunning":2,"ServerVersion":"0.1.0","Plugins":{"Network":["overlay"]},"SecurityOptions":["name=rootless"],
 "KernelVersion":"6.18.44","OperatingSystem":"Debian GNU/Linux 12 (bookworm)","OSType":"linux","Architecture":"x86_64","NCPU":2,"MemTotal":25276510208,"DockerRootDir":"/var/lib/ovnd","Warnings":["WARNING: beware"]}`

const notManager = `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`

func newFakeManager(t *testing.T) *fakeNode {
	n := newFakeNode(t)
	n.on("GET /info", 0, managerInfo)
	n.on("GET /nodes", 0, nodeList)
	n.on("GET /nodes/ah2lt4rfnp5tua63rsdks07g2", 0, nodeLocalhost)
	n.on("GET /nodes/localhost", 0, nodeLocalhost)
	n.on("POST /nodes/ah2lt4rfnp5tua63rsdks07g2/update", 0, nil)
	n.on("GET /nodes/nosuch", http.StatusNotFound, message("node nosuch not found"))
	return n
}

func TestNodeLs(t *testing.T) {
	n := newFakeManager(t)
	for format, out := range map[string]string{
		"": `ID                            HOSTNAME    STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION
y9vv9bfwwknxnrd3eruffwkr0     hsp1        Ready     Active         Unreachable      28.2.2
31dki1k2velesgo16zxydrg2r     hsp2        Down      Drain                           28.2.2
ah2lt4rfnp5tua63rsdks07g2 *   localhost   Ready     Active         Leader           0.1.0
`,
		"json": `{"Availability":"Active","EngineVersion":"28.2.2","Hostname":"hsp1","ID":"y9vv9bfwwknxnrd3eruffwkr0","ManagerStatus":"Unreachable","Self":false,"Status":"Ready","TLSStatus":"Needs Rotation"}
{"Availability":"Drain","EngineVersion":"28.2.2","Hostname":"hsp2","ID":"31dki1k2velesgo16zxydrg2r","ManagerStatus":"","Self":false,"Status":"Down","TLSStatus":"Unknown"}
{"Availability":"Active","EngineVersion":"0.1.0","Hostname":"localhost","ID":"ah2lt4rfnp5tua63rsdks07g2","ManagerStatus":"Leader","Self":true,"Status":"Ready","TLSStatus":"Ready"}
`,
		"{{.Hostname}}: {{.Self}}": "hsp1: false\nhsp2: false\nlocalhost: true\n",
	} {
		n.run(t, "node", "ls", "--format", format).want(t, out, "", 0)
	}
	n.run(t, "node", "ls", "-q").want(t, "y9vv9bfwwknxnrd3eruffwkr0\n31dki1k2velesgo16zxydrg2r\nah2lt4rfnp5tua63rsdks07g2\n", "", 0)
}

func TestNodeInspect(t *testing.T) {
	n := newFakeManager(t)
	n.run(t, "node", "inspect", "self", "--pretty").want(t, testdata(t, "node-pretty.txt"), "", 0)
	n.run(t, "node", "inspect", "-f", "{{.ID}} {{.Spec.Role}}", "localhost", "self").
		want(t, "ah2lt4rfnp5tua63rsdks07g2 manager\nah2lt4rfnp5tua63rsdks07g2 manager\n", "", 0)
	const missing = "Error response from daemon: node nosuch not found\n"
	n.run(t, "node", "inspect", "nosuch").want(t, "[]\n", missing, 1)
	n.run(t, "node", "inspect", "--pretty", "self", "nosuch").want(t, "", missing, 1)

	n.on("GET /info", 0, `{"Swarm":{"LocalNodeState":"inactive"}}`)
	n.on("GET /nodes", http.StatusServiceUnavailable, message(notManager))
	n.run(t, "node", "inspect", "self").want(t, "[]\n", "Error response from daemon: "+notManager+"\n", 1)
}

func TestNodeUpdate(t *testing.T) {
	n := newFakeManager(t)
	update := func(spec string, args ...string) {
		t.Helper()
		n.run(t, append([]string{"node", "update"}, args...)...).want(t, "localhost\n", "", 0)
		got := n.last(t, "POST /nodes/ah2lt4rfnp5tua63rsdks07g2/update")
		got.wantBody(t, spec)
		if got.query != "version=90" {
			t.Errorf("query %q, want the version that was read", got.query)
		}
	}
	update(`{"Labels":{"a":"b","c":""},"Role":"manager","Availability":"drain"}`, "--availability", "drain", "localhost")
	update(`{"Labels":{"a":"2","d":""},"Role":"worker","Availability":"active"}`, "--role", "worker", "--label-add", "a=2", "--label-add", "d", "--label-rm", "c", "localhost")
	n.run(t, "node", "update", "--label-rm", "zz", "localhost").want(t, "", "key zz doesn't exist in node's labels\n", 1)

	n.run(t, "node", "promote", "localhost").want(t, "Node ah2lt4rfnp5tua63rsdks07g2 is already a manager.\n", "", 0)
	n.run(t, "node", "demote", "localhost").want(t, "Manager localhost demoted in the swarm.\n", "", 0)
	n.last(t, "POST /nodes/ah2lt4rfnp5tua63rsdks07g2/update").wantBody(t, `{"Labels":{"a":"b","c":""},"Role":"worker","Availability":"active"}`)
	n.run(t, "node", "promote", "nosuch", "localhost").want(t, "", "Error response from daemon: node nosuch not found\n", 1)
}

func TestNodeRm(t *testing.T) {
	n := newFakeNode(t)
	n.on("DELETE /nodes/a", 0, nil)
	n.on("DELETE /nodes/b", http.StatusBadRequest, message("node b is not down and can't be removed"))
	n.run(t, "node", "rm", "b", "a").want(t, "a\n", "Error response from daemon: node b is not down and can't be removed\n", 1)
	n.run(t, "node", "rm", "--force", "a").want(t, "a\n", "", 0)
	if got := n.last(t, "DELETE /nodes/a").query; got != "force=1" {
		t.Errorf("query %q, want force=1", got)
	}
}
