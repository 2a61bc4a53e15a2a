package cluster

import (
	swarmrouter "github.com/moby/moby/v2/daemon/server/router/swarm"
	"github.com/moby/swarmkit/v2/agent/exec"
)

var (
	_ swarmrouter.Backend = (*Cluster)(nil)
	_ exec.Executor       = (*executor)(nil)
	_ exec.Controller     = (*attachmentController)(nil)
)
