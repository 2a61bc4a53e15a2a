package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/moby/client"

	ovnd "github.com/ovnd/ovnd/api/client"
	"github.com/ovnd/ovnd/node"
)

// paths are the files of the node on this machine that the flags name.
func (c *cli) paths() (node.Paths, error) {
	return node.ResolvePaths(c.stateDirOrEnv())
}

func (c *cli) stateDirOrEnv() string { return cmp.Or(c.stateDir, os.Getenv("OVND_STATE_DIR")) }

// apiHost is the address of the node's API. DOCKER_HOST has no say in it: it
// names a Docker engine, and a command for one must not reach the other.
func (c *cli) apiHost() (string, error) {
	if host := cmp.Or(c.host, os.Getenv("OVND_HOST")); host != "" {
		return host, nil
	}
	paths, err := c.paths()
	if err != nil {
		return "", err
	}
	return "unix://" + paths.APISocket, nil
}

// docker is a client for the Docker part of the node's API.
func (c *cli) docker() (*client.Client, error) {
	host, err := c.apiHost()
	if err != nil {
		return nil, err
	}
	return newDockerClient(host)
}

func newDockerClient(host string) (*client.Client, error) {
	version, _, _ := node.Build()
	api, err := client.New(client.WithHost(host), client.WithUserAgent("ovnd/"+version))
	if err != nil {
		return nil, fmt.Errorf("--host: %w", err)
	}
	return api, nil
}

// ovnd is a client for ovnd's own part of the node's API.
func (c *cli) ovnd() (*ovnd.Client, error) {
	host, err := c.apiHost()
	if err != nil {
		return nil, err
	}
	return ovnd.New(host)
}

// explain is what the user reads about err.
func (c *cli) explain(err error) string {
	// `service scale` hands on the text of an error alone.
	const noNode = "failed to connect to the docker API at "
	if !client.IsErrConnectionFailed(err) && !errors.Is(err, ovnd.ErrNoNode) && !strings.Contains(err.Error(), noNode) {
		return err.Error()
	}
	host, hostErr := c.apiHost()
	if hostErr != nil {
		return hostErr.Error()
	}
	return fmt.Sprintf(`Cannot connect to the ovnd node at %s. Is it running? Start one with "ovnd up".`, host)
}

// eachRef calls do for every reference, prints what went wrong with some of
// them, and goes on to the next, as docker does for `rm`.
func (c *cli) eachRef(ctx context.Context, refs []string, do func(context.Context, string) error) error {
	failed := false
	for _, ref := range refs {
		if err := do(ctx, ref); err != nil {
			fmt.Fprintln(c.err, c.explain(err))
			failed = true
		}
	}
	if failed {
		return &exitError{code: exitFailed}
	}
	return nil
}
