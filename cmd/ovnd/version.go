package main

import (
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/templates"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/ovnd/ovnd/node"
)

// versions is what templates of `version --format` see, as docker's.
type versions struct {
	Client clientVersion
	Server *serverVersion
}

type clientVersion struct {
	Version           string `json:"Version,omitempty"`
	APIVersion        string `json:"ApiVersion,omitempty"`
	DefaultAPIVersion string `json:"DefaultAPIVersion,omitempty"`
	GitCommit         string `json:"GitCommit,omitempty"`
	GoVersion         string `json:"GoVersion,omitempty"`
	Os                string `json:"Os,omitempty"`
	Arch              string `json:"Arch,omitempty"`
	BuildTime         string `json:"BuildTime,omitempty"`
}

type serverVersion struct {
	Platform      client.PlatformInfo
	Components    []system.ComponentVersion
	Version       string
	APIVersion    string `json:"ApiVersion"`
	MinAPIVersion string
	GitCommit     string
	GoVersion     string
	Os            string
	Arch          string
	KernelVersion string
	BuildTime     string
}

func newVersionCommand(c *cli) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "version [OPTIONS]",
		Short:   "Show the version of this program and of the node",
		Example: `  ovnd version --format '{{.Server.Version}}'`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write, err := versionWriter(format)
			if err != nil {
				return &exitError{exitBadFormat, "template parsing error: " + err.Error()}
			}
			api, err := c.docker()
			if err != nil {
				return err
			}
			// A node that does not answer must not hide the client's version.
			res, serverErr := api.ServerVersion(cmd.Context(), client.ServerVersionOptions{})
			v := versions{Client: clientInfo()}
			v.Client.APIVersion = api.ClientVersion()
			if serverErr == nil {
				v.Server = newServerVersion(res)
			}
			if err := write(c.out, v); err != nil {
				return err
			}
			return serverErr
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	return cmd
}

// clientInfo is this program's own version.
func clientInfo() clientVersion {
	version, commit, built := node.Build()
	return clientVersion{
		Version:           version,
		DefaultAPIVersion: client.MaxAPIVersion,
		GitCommit:         commit,
		GoVersion:         runtime.Version(),
		Os:                runtime.GOOS,
		Arch:              runtime.GOARCH,
		BuildTime:         readableTime(built),
	}
}

func newServerVersion(res client.ServerVersionResult) *serverVersion {
	v := &serverVersion{
		Platform:      res.Platform,
		Components:    res.Components,
		Version:       res.Version,
		APIVersion:    res.APIVersion,
		MinAPIVersion: res.MinAPIVersion,
		Os:            res.Os,
		Arch:          res.Arch,
	}
	if len(res.Components) > 0 {
		d := res.Components[0].Details
		v.GitCommit, v.GoVersion, v.KernelVersion, v.BuildTime = d["GitCommit"], d["GoVersion"], d["KernelVersion"], d["BuildTime"]
	}
	return v
}

func readableTime(s string) string {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.Format(time.ANSIC)
	}
	return s
}

func versionWriter(format string) (func(io.Writer, versions) error, error) {
	switch format {
	case "":
		return printVersion, nil
	case formatter.JSONFormatKey:
		format = formatter.JSONFormat
	}
	tmpl, err := templates.New("version").Parse(format)
	if err != nil {
		return nil, err
	}
	return func(w io.Writer, v versions) error {
		err := tmpl.Execute(w, v)
		fmt.Fprintln(w)
		return err
	}, nil
}

func printVersion(w io.Writer, v versions) error {
	tw := tabwriter.NewWriter(w, 20, 1, 1, ' ', 0)
	api := v.Client.APIVersion
	if api != v.Client.DefaultAPIVersion {
		api += " (downgraded from " + v.Client.DefaultAPIVersion + ")"
	}
	fmt.Fprintf(tw, "Client: ovnd\n Version:\t%s\n API version:\t%s\n Go version:\t%s\n", v.Client.Version, api, v.Client.GoVersion)
	fmt.Fprintf(tw, " Git commit:\t%s\n Built:\t%s\n OS/Arch:\t%s/%s\n", v.Client.GitCommit, v.Client.BuildTime, v.Client.Os, v.Client.Arch)
	if s := v.Server; s != nil {
		fmt.Fprintf(tw, "\nServer: %s\n Node:\n", s.Platform.Name)
		fmt.Fprintf(tw, "  Version:\t%s\n  API version:\t%s (minimum version %s)\n  Go version:\t%s\n", s.Version, s.APIVersion, s.MinAPIVersion, s.GoVersion)
		fmt.Fprintf(tw, "  Git commit:\t%s\n  Built:\t%s\n  OS/Arch:\t%s/%s\n", s.GitCommit, readableTime(s.BuildTime), s.Os, s.Arch)
	}
	return tw.Flush()
}
