package main

import (
	"fmt"
	"io"

	"github.com/ovnd/ovnd/api/types"
)

// printServices prints what became of connections to services at this node.
func printServices(w io.Writer, s types.Status) {
	if len(s.Services) == 0 {
		return
	}
	fmt.Fprintln(w, "\nSERVICE\tNETWORK\tVIP\tWAY\tTASKS\tCONNECTIONS\tOPEN\tDIRECT\tFAILED TURNS")
	for _, v := range s.Services {
		vip := "-"
		if v.VIP.IsValid() {
			vip = v.VIP.String()
		}
		var all types.BackendState
		for _, b := range v.Backends {
			all.Connections += b.Connections
			all.Active += b.Active
			all.Direct += b.Direct
			all.Failures += b.Failures
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n",
			v.Name, v.Network, vip, v.Way, len(v.Backends), all.Connections, all.Active, all.Direct, all.Failures)
	}
	if s.Flows.Full > 0 {
		fmt.Fprintf(w, "%d connections were proxied, since the data plane had its %d\n", s.Flows.Full, s.Flows.Limit)
	}
}
