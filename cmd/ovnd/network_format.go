package main

import (
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/fvbommel/sortorder"
	"github.com/moby/moby/api/types/network"
)

const (
	networkTable = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
	networkRaw   = "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n"
)

// listFormat resolves the short forms of a list's --format.
func listFormat(format, table, raw string, quiet bool) formatter.Format {
	switch {
	case format == formatter.RawFormatKey:
		return formatter.Format(raw)
	case format != "" && format != formatter.TableFormatKey:
		return formatter.Format(format)
	case quiet:
		return formatter.DefaultQuietFormat
	default:
		return formatter.Format(table)
	}
}

func writeNetworks(w io.Writer, networks []network.Summary, format string, quiet, trunc bool) error {
	slices.SortFunc(networks, func(a, b network.Summary) int {
		return naturalCompare(a.Name, b.Name)
	})
	fc := formatter.Context{Output: w, Format: listFormat(format, networkTable, networkRaw, quiet), Trunc: trunc}
	header := formatter.HeaderContext{Header: formatter.SubHeaderContext{
		"ID":        "NETWORK ID",
		"Name":      formatter.NameHeader,
		"Driver":    formatter.DriverHeader,
		"Scope":     formatter.ScopeHeader,
		"IPv4":      "IPV4",
		"IPv6":      "IPV6",
		"Internal":  "INTERNAL",
		"Labels":    formatter.LabelsHeader,
		"CreatedAt": formatter.CreatedAtHeader,
	}}
	return fc.Write(&networkRow{HeaderContext: header}, func(row func(formatter.SubContext) error) error {
		for _, n := range networks {
			if err := row(&networkRow{HeaderContext: header, n: n, trunc: trunc}); err != nil {
				return err
			}
		}
		return nil
	})
}

// naturalCompare orders net2 before net10.
func naturalCompare(a, b string) int {
	switch {
	case a == b:
		return 0
	case sortorder.NaturalLess(a, b):
		return -1
	default:
		return 1
	}
}

// A networkRow has a method for each field that a template may name.
type networkRow struct {
	formatter.HeaderContext
	n     network.Summary
	trunc bool
}

func (r *networkRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *networkRow) ID() string {
	if r.trunc {
		return formatter.TruncateID(r.n.ID)
	}
	return r.n.ID
}
func (r *networkRow) Name() string      { return r.n.Name }
func (r *networkRow) Driver() string    { return r.n.Driver }
func (r *networkRow) Scope() string     { return r.n.Scope }
func (r *networkRow) IPv4() string      { return strconv.FormatBool(r.n.EnableIPv4) }
func (r *networkRow) IPv6() string      { return strconv.FormatBool(r.n.EnableIPv6) }
func (r *networkRow) Internal() string  { return strconv.FormatBool(r.n.Internal) }
func (r *networkRow) CreatedAt() string { return r.n.Created.String() }

// Label is the value of one label.
func (r *networkRow) Label(name string) string { return r.n.Labels[name] }

// Labels are all of them, as key=value,key=value.
func (r *networkRow) Labels() string {
	list := make([]string, 0, len(r.n.Labels))
	for _, k := range slices.Sorted(maps.Keys(r.n.Labels)) {
		list = append(list, k+"="+r.n.Labels[k])
	}
	return strings.Join(list, ",")
}
