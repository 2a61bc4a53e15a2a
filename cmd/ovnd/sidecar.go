package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// sidecarImage is the image of services whose tasks are applications that run
// already, and sidecarLabel precedes their names in their nodes' engine labels.
const (
	sidecarImage = "ovnd/sidecar"
	sidecarLabel = "engine.labels.ovnd.service."
)

// serviceName is what SwarmKit takes for one, of which a constraint can be made.
var serviceName = regexp.MustCompile(`^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`)

// parseSidecars reads NAME and NAME=PORT.
func parseSidecars(list []string) (map[string]uint16, error) {
	if len(list) == 0 {
		return nil, nil
	}
	services := make(map[string]uint16)
	for _, s := range list {
		name, portText, named := strings.Cut(s, "=")
		if !serviceName.MatchString(name) {
			return nil, fmt.Errorf("--service %q: %q is no name of a service", s, name)
		}
		if _, again := services[name]; again {
			return nil, fmt.Errorf("--service %q: service %s is given twice: a node has one application of it beside it", s, name)
		}
		var port uint16
		if named {
			var err error
			if port, err = parsePort(portText); err != nil {
				return nil, fmt.Errorf("--service %q: %w", s, err)
			}
		}
		services[name] = port
	}
	return services, nil
}

// addSidecar gives `service create` the flag for services of applications that
// run already.
func addSidecar(create *cobra.Command) {
	sidecar := create.Flags().Bool("sidecar", false, "The tasks are applications that run beside nodes started with \"up --service NAME\": no IMAGE, mode global")
	args, run := create.Args, create.RunE
	create.Args = func(cmd *cobra.Command, given []string) error {
		if *sidecar {
			return noArgs(cmd, given)
		}
		return args(cmd, given)
	}
	create.RunE = func(cmd *cobra.Command, given []string) error {
		if *sidecar {
			if err := makeSidecar(cmd); err != nil {
				return err
			}
			given = []string{sidecarImage}
		}
		return run(cmd, given)
	}
}

// makeSidecar sets what the service of a sidecar has.
func makeSidecar(cmd *cobra.Command) error {
	flags := cmd.Flags()
	name, err := flags.GetString("name")
	if err != nil {
		return err
	}
	if name == "" {
		return errors.New("--sidecar: the service needs a --name, which nodes give with \"up --service NAME\"")
	}
	if flags.Changed("mode") || flags.Changed("replicas") {
		return errors.New("--sidecar: the service has one task on each node with the application: leave out --mode and --replicas")
	}
	if err := flags.Set("mode", "global"); err != nil {
		return err
	}
	return flags.Set("constraint", sidecarLabel+name+"==true")
}
