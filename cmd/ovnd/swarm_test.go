package main

import (
	"net/http"
	"strings"
	"testing"
)

const swarmObject = `{"ID":"3pcu786v7mllcnsyuf56g3gkp","Version":{"Index":11},
 "Spec":{"Name":"default","Labels":{},"Orchestration":{"TaskHistoryRetentionLimit":5},"Raft":{"SnapshotInterval":10000,"ElectionTick":10,"HeartbeatTick":1},
 "Dispatcher":{"HeartbeatPeriod":5000000000},"CAConfig":{"NodeCertExpiry":7776000000000000},"TaskDefaults":{},"EncryptionConfig":{"AutoLockManagers":false}},
 "JoinTokens":{"Worker":"SWMTKN-1-w","Manager":"SWMTKN-1-m"}}`

const workerHint = "To add a worker to this swarm, run the following command:\n\n    ovnd up --join SWMTKN-1-w 192.0.2.11:2377\n\n"

func TestSwarmInit(t *testing.T) {
	n := newFakeManager(t)
	n.on("GET /swarm", 0, swarmObject)
	n.on("POST /swarm/init", 0, `"ah2lt4rfnp5tua63rsdks07g2"`)
	const initialized = "Swarm initialized: current node (ah2lt4rfnp5tua63rsdks07g2) is now a manager.\n\n" + workerHint +
		"To add a manager to this swarm, run 'ovnd swarm join-token manager' and follow the instructions.\n"
	n.run(t, "swarm", "init").want(t, initialized, "", 0)
	// What was not said is left to the node.
	n.last(t, "POST /swarm/init").wantBody(t, `{"ListenAddr":"","AdvertiseAddr":"","DataPathAddr":"","DataPathPort":0,"ForceNewCluster":false,
		"Spec":{"Labels":null,"Orchestration":{},"Raft":{"ElectionTick":0,"HeartbeatTick":0},"Dispatcher":{},"CAConfig":{},"TaskDefaults":{},"EncryptionConfig":{"AutoLockManagers":false}},
		"AutoLockManagers":false,"Availability":"active","DefaultAddrPool":null,"SubnetSize":24}`)
	n.run(t, "swarm", "init", "--advertise-addr", "192.0.2.11", "--listen-addr", "192.0.2.11:2378", "--data-path-addr", "eth1", "--data-path-port", "5000",
		"--default-addr-pool", "10.20.0.0/16", "--default-addr-pool-mask-length", "26", "--availability", "drain", "--force-new-cluster",
		"--task-history-limit", "3", "--dispatcher-heartbeat", "7s", "--cert-expiry", "2h", "--max-snapshots", "1", "--snapshot-interval", "99").
		want(t, initialized, "", 0)
	n.last(t, "POST /swarm/init").wantBody(t, `{"ListenAddr":"192.0.2.11:2378","AdvertiseAddr":"192.0.2.11","DataPathAddr":"eth1","DataPathPort":5000,"ForceNewCluster":true,
		"Spec":{"Labels":null,"Orchestration":{"TaskHistoryRetentionLimit":3},"Raft":{"SnapshotInterval":99,"KeepOldSnapshots":1,"ElectionTick":0,"HeartbeatTick":0},
		"Dispatcher":{"HeartbeatPeriod":7000000000},"CAConfig":{"NodeCertExpiry":7200000000000},"TaskDefaults":{},"EncryptionConfig":{"AutoLockManagers":false}},
		"AutoLockManagers":false,"Availability":"drain","DefaultAddrPool":["10.20.0.0/16"],"SubnetSize":26}`)
}

func TestSwarmJoinToken(t *testing.T) {
	n := newFakeManager(t)
	n.on("GET /swarm", 0, swarmObject)
	n.on("POST /swarm/update", 0, nil)
	n.run(t, "swarm", "join-token", "worker").want(t, workerHint, "", 0)
	n.run(t, "swarm", "join-token", "manager").want(t, strings.NewReplacer("worker", "manager", "-w", "-m").Replace(workerHint), "", 0)
	n.run(t, "swarm", "join-token", "-q", "worker").want(t, "SWMTKN-1-w\n", "", 0)
	n.run(t, "swarm", "join-token", "-q", "manager").want(t, "SWMTKN-1-m\n", "", 0)
	n.run(t, "swarm", "join-token", "--rotate", "worker").want(t, "Successfully rotated worker join token.\n\n"+workerHint, "", 0)
	if got, want := n.last(t, "POST /swarm/update").query, "rotateManagerToken=false&rotateManagerUnlockKey=false&rotateWorkerToken=true&version=11"; got != want {
		t.Errorf("query %q, want %q", got, want)
	}
	n.run(t, "swarm", "join-token", "--rotate", "-q", "manager").want(t, "SWMTKN-1-m\n", "", 0)
	if got, want := n.last(t, "POST /swarm/update").query, "rotateManagerToken=true&rotateManagerUnlockKey=false&rotateWorkerToken=false&version=11"; got != want {
		t.Errorf("query %q, want %q", got, want)
	}
}

func TestSwarmJoinAndLeave(t *testing.T) {
	n := newFakeManager(t)
	n.on("POST /swarm/join", 0, nil)
	n.run(t, "swarm", "join", "--token", "SWMTKN-1-m", "192.0.2.11:2377").want(t, "This node joined a swarm as a manager.\n", "", 0)
	n.last(t, "POST /swarm/join").wantBody(t, `{"ListenAddr":"","AdvertiseAddr":"","DataPathAddr":"","RemoteAddrs":["192.0.2.11:2377"],"JoinToken":"SWMTKN-1-m","Availability":"active"}`)
	n.on("GET /info", 0, `{"Swarm":{"NodeID":"x","LocalNodeState":"active"}}`)
	n.run(t, "swarm", "join", "--token", "SWMTKN-1-w", "192.0.2.11:2377").want(t, "This node joined a swarm as a worker.\n", "", 0)
	n.on("POST /swarm/join", http.StatusBadRequest, message("invalid join token"))
	n.run(t, "swarm", "join", "--token", "x", "192.0.2.11:2377").want(t, "", "Error response from daemon: invalid join token\n", 1)

	n.on("POST /swarm/leave", 0, nil)
	n.run(t, "swarm", "leave").want(t, "Node left the swarm.\n", "", 0)
	n.run(t, "swarm", "leave", "-f").want(t, "Node left the swarm.\n", "", 0)
	if got := n.last(t, "POST /swarm/leave").query; got != "force=1" {
		t.Errorf("query %q, want force=1", got)
	}
}

func TestSwarmUpdate(t *testing.T) {
	n := newFakeNode(t)
	n.on("GET /swarm", 0, swarmObject)
	n.on("POST /swarm/update", 0, nil)
	n.run(t, "swarm", "update", "--cert-expiry", "1h").want(t, "Swarm updated.\n", "", 0)
	got := n.last(t, "POST /swarm/update")
	got.wantBody(t, `{"Name":"default","Labels":{},"Orchestration":{"TaskHistoryRetentionLimit":5},"Raft":{"SnapshotInterval":10000,"ElectionTick":10,"HeartbeatTick":1},
		"Dispatcher":{"HeartbeatPeriod":5000000000},"CAConfig":{"NodeCertExpiry":3600000000000},"TaskDefaults":{},"EncryptionConfig":{"AutoLockManagers":false}}`)
	if !strings.Contains(got.query, "version=11") {
		t.Errorf("query %q, want the version that was read", got.query)
	}
	if got := n.run(t, "swarm", "update"); !strings.HasPrefix(got.out, "Usage:  ovnd swarm update [OPTIONS]\n") || got.code != 0 {
		t.Errorf("without flags: %+v, want the help", got)
	}
}
