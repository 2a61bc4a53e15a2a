package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/ovnd/ovnd/api/types"
)

// printTUN says how tasks live on the node.
func printTUN(w io.Writer, t types.TUNState) {
	switch {
	case t.Sandboxes:
		fmt.Fprintln(w, "Tasks:\tin namespaces of their own")
	case t.Reason != "":
		fmt.Fprintf(w, "Tasks:\twithout namespaces: %s\n", t.Reason)
	}
}

func printProxies(w io.Writer, proxies []types.ProxyState) {
	if len(proxies) == 0 {
		return
	}
	fmt.Fprintln(w, "\nPROXY\tLISTENS AT\tTARGET\tNETWORKS\tCONNECTIONS")
	for _, p := range proxies {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", p.Kind, p.Listen, p.Target, strings.Join(p.Networks, ","), p.Connections)
	}
}
