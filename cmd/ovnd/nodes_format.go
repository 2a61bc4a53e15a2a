package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/docker/cli/cli/command/formatter"
	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/swarm"
)

const (
	nodeTable = "table {{.ID}} {{if .Self}}*{{else}} {{ end }}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}\t{{.EngineVersion}}"
	nodeRaw   = "node_id: {{.ID}}\nhostname: {{.Hostname}}\nstatus: {{.Status}}\navailability: {{.Availability}}\nmanager_status: {{.ManagerStatus}}\n"
)

func writeNodes(w io.Writer, nodes []swarm.Node, info swarm.Info, format string, quiet bool) error {
	slices.SortFunc(nodes, func(a, b swarm.Node) int {
		return naturalCompare(a.Description.Hostname, b.Description.Hostname)
	})
	fc := formatter.Context{Output: w, Format: listFormat(format, nodeTable, nodeRaw, quiet)}
	header := formatter.HeaderContext{Header: formatter.SubHeaderContext{
		"ID":            "ID",
		"Self":          "",
		"Hostname":      "HOSTNAME",
		"Status":        formatter.StatusHeader,
		"Availability":  "AVAILABILITY",
		"ManagerStatus": "MANAGER STATUS",
		"EngineVersion": "ENGINE VERSION",
		"TLSStatus":     "TLS STATUS",
	}}
	return fc.Write(&nodeRow{HeaderContext: header}, func(row func(formatter.SubContext) error) error {
		for _, n := range nodes {
			if err := row(&nodeRow{HeaderContext: header, n: n, info: info}); err != nil {
				return err
			}
		}
		return nil
	})
}

// A nodeRow has a method for each field that a template may name.
type nodeRow struct {
	formatter.HeaderContext
	n    swarm.Node
	info swarm.Info
}

func (r *nodeRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *nodeRow) ID() string            { return r.n.ID }
func (r *nodeRow) Self() bool            { return r.n.ID == r.info.NodeID }
func (r *nodeRow) Hostname() string      { return r.n.Description.Hostname }
func (r *nodeRow) Status() string        { return formatter.PrettyPrint(string(r.n.Status.State)) }
func (r *nodeRow) Availability() string  { return formatter.PrettyPrint(string(r.n.Spec.Availability)) }
func (r *nodeRow) EngineVersion() string { return r.n.Description.Engine.EngineVersion }

func (r *nodeRow) ManagerStatus() string {
	switch {
	case r.n.ManagerStatus == nil:
		return ""
	case r.n.ManagerStatus.Leader:
		return "Leader"
	default:
		return formatter.PrettyPrint(string(r.n.ManagerStatus.Reachability))
	}
}

// TLSStatus compares the root that the node trusts with the swarm's.
func (r *nodeRow) TLSStatus() string {
	node := r.n.Description.TLSInfo
	switch {
	case r.info.Cluster == nil || len(node.TrustRoot) == 0 || len(node.CertIssuerPublicKey) == 0:
		return "Unknown"
	case node.TrustRoot == r.info.Cluster.TLSInfo.TrustRoot &&
		slices.Equal(node.CertIssuerPublicKey, r.info.Cluster.TLSInfo.CertIssuerPublicKey) &&
		slices.Equal(node.CertIssuerSubject, r.info.Cluster.TLSInfo.CertIssuerSubject):
		return "Ready"
	default:
		return "Needs Rotation"
	}
}

// prettyNodes prints nodes as `docker node inspect --pretty` does: all of them
// or, if one is missing, none.
func prettyNodes(ctx context.Context, w io.Writer, refs []string, get func(context.Context, string) (object, error)) error {
	var out bytes.Buffer
	for _, ref := range refs {
		o, err := get(ctx, ref)
		if err != nil {
			return err
		}
		if n, ok := o.typed.(swarm.Node); ok {
			prettyNode(&out, n)
		}
	}
	_, err := out.WriteTo(w)
	return err
}

func prettyNode(w io.Writer, n swarm.Node) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format, args...) }
	p("ID:\t\t\t%s\n", n.ID)
	if n.Spec.Name != "" {
		p("Name:\t\t\t%s\n", n.Spec.Name)
	}
	if len(n.Spec.Labels) > 0 {
		p("Labels:\n")
		for _, k := range slices.Sorted(maps.Keys(n.Spec.Labels)) {
			p(" - %s\n", strings.TrimSuffix(k+"="+n.Spec.Labels[k], "="))
		}
	}
	p("Hostname:              \t%s\n", n.Description.Hostname)
	p("Joined at:             \t%s\n", strings.ToLower(n.CreatedAt.String()))
	p("Status:\n State:\t\t\t%s\n", formatter.PrettyPrint(string(n.Status.State)))
	if n.Status.Message != "" {
		p(" Message:              \t%s\n", formatter.PrettyPrint(n.Status.Message))
	}
	p(" Availability:         \t%s\n", formatter.PrettyPrint(string(n.Spec.Availability)))
	if n.Status.Addr != "" {
		p(" Address:\t\t%s\n", n.Status.Addr)
	}
	if m := n.ManagerStatus; m != nil {
		leader := "No"
		if m.Leader {
			leader = "Yes"
		}
		p("Manager Status:\n Address:\t\t%s\n Raft Status:\t\t%s\n Leader:\t\t%s\n", m.Addr, formatter.PrettyPrint(string(m.Reachability)), leader)
	}
	prettyDescription(w, n.Description)
}

func prettyDescription(w io.Writer, d swarm.NodeDescription) {
	fmt.Fprintf(w, "Platform:\n Operating System:\t%s\n Architecture:\t\t%s\n", d.Platform.OS, d.Platform.Architecture)
	fmt.Fprintf(w, "Resources:\n CPUs:\t\t\t%d\n Memory:\t\t%s\n", d.Resources.NanoCPUs/1e9, units.BytesSize(float64(d.Resources.MemoryBytes)))
	plugins := make(map[string][]string)
	for _, p := range d.Engine.Plugins {
		plugins[p.Type] = append(plugins[p.Type], p.Name)
	}
	if len(plugins) > 0 {
		fmt.Fprintln(w, "Plugins:")
		for _, kind := range slices.Sorted(maps.Keys(plugins)) {
			fmt.Fprintf(w, " %s:\t\t%s\n", kind, strings.Join(plugins[kind], ", "))
		}
	}
	fmt.Fprintf(w, "Engine Version:\t\t%s\n", d.Engine.EngineVersion)
	if len(d.Engine.Labels) > 0 {
		fmt.Fprintln(w, "Engine Labels:")
		for _, k := range slices.Sorted(maps.Keys(d.Engine.Labels)) {
			fmt.Fprintf(w, " - %s\n", strings.TrimSuffix(k+"="+d.Engine.Labels[k], "="))
		}
	}
	if tls := d.TLSInfo; tls.TrustRoot != "" {
		fmt.Fprintf(w, "TLS Info:\n TrustRoot:\n%s\n", tls.TrustRoot)
		fmt.Fprintf(w, " Issuer Subject:\t%s\n Issuer Public Key:\t%s\n", base64.StdEncoding.EncodeToString(tls.CertIssuerSubject), base64.StdEncoding.EncodeToString(tls.CertIssuerPublicKey))
	}
}
