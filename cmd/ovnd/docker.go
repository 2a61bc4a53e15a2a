package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/streams"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// topCommands are those of Docker's top-level commands that ovnd has, in help's
// order.
var topCommands = []string{"service", "ps", "exec", "logs", "stop", "kill", "wait", "top", "port", "container"}

// containerCommands are those of Docker's commands for containers that mean
// something for tasks and for what `run` started. At the top level `ls` is
// called `ps`.
var containerCommands = []string{"exec", "inspect", "kill", "logs", "ls", "port", "stop", "top", "wait"}

// uselessFlags are about registries, of which ovnd knows none, and Windows.
var uselessFlags = []string{"with-registry-auth", "no-resolve-image", "credential-spec", "isolation"}

// addDockerCommands gives root what is Docker's own code: services, tasks and
// what runs in them. They talk to the node through a dockerCLI.
func addDockerCommands(root *cobra.Command, c *cli) {
	d := newDockerCLI(c)
	cmds := dockerCommands(d, append([]string{"node"}, topCommands...)...)

	keep(cmds["container"], containerCommands)
	keep(cmds["node"], []string{"ps"})
	for _, cmd := range cmds {
		eachCommand(cmd, d.adopt)
	}
	for _, cmd := range cmds["service"].Commands() {
		switch cmd.Name() {
		case "create", "rollback", "scale", "update":
			cmd.PreRunE = d.connectForProgress
		}
	}
	create := find(cmds["service"], "create")
	create.Long, create.Example = createHelp, createExample
	addSidecar(create)

	for _, name := range topCommands {
		root.AddCommand(cmds[name])
	}
	node, ps := find(root, "node"), find(cmds["node"], "ps")
	cmds["node"].RemoveCommand(ps)
	node.AddCommand(ps)
	for _, group := range []*cobra.Command{cmds["service"], cmds["container"], node} {
		sortCommands(group)
	}
}

const createHelp = `Create a new service.

IMAGE names a program of the nodes' own: it is looked up on the PATH of each
node, without its tag, and COMMAND and ARG are its arguments. A path, or a name
that is no image's, works too. "ovnd/whoami" is built in: a small server that
says which task answered.`

const createExample = `  ovnd service create --replicas 5 --network my_net --name web -p 8080:80 nginx
  ovnd service create --network my_net --name who ovnd/whoami
  ovnd service create --network my_net --name files /usr/bin/python3 -m http.server`

// keep removes all subcommands but the named ones.
func keep(group *cobra.Command, names []string) {
	for _, cmd := range group.Commands() {
		if !slices.Contains(names, cmd.Name()) {
			group.RemoveCommand(cmd)
		}
	}
}

// sortCommands puts subcommands in the order that help shows.
func sortCommands(group *cobra.Command) {
	sorted := slices.SortedFunc(slices.Values(group.Commands()), func(a, b *cobra.Command) int { return cmp.Compare(a.Name(), b.Name()) })
	group.RemoveCommand(sorted...)
	group.AddCommand(sorted...)
}

func find(group *cobra.Command, name string) *cobra.Command {
	i := slices.IndexFunc(group.Commands(), func(cmd *cobra.Command) bool { return cmd.Name() == name })
	return group.Commands()[i]
}

// adopt makes one command of Docker's one of ours.
func (d *dockerCLI) adopt(cmd *cobra.Command) {
	cmd.PreRunE = d.connect
	cmd.Hidden = false // legacy ones are, if the environment says so
	cmd.Short, cmd.Example = toOvnd(cmd.Short), toOvnd(cmd.Example)
	if names, ok := cmd.Annotations["aliases"]; ok {
		cmd.Annotations = maps.Clone(cmd.Annotations)
		cmd.Annotations["aliases"] = toOvnd(names)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		f.Usage = toOvnd(f.Usage)
		if slices.Contains(uselessFlags, f.Name) {
			f.Hidden = true
		}
	})
}

// toOvnd puts this program's name where Docker's commands have theirs.
func toOvnd(text string) string {
	return strings.NewReplacer("docker ", "ovnd ", "Docker objects", "objects").Replace(text)
}

// dockerCLI is what Docker's commands know of the program that they are part
// of: its streams and its client. Docker's own has a configuration file,
// contexts and credential helpers as well; ovnd has none of those, and what is
// configured for Docker must not change what ovnd prints or talks to.
type dockerCLI struct {
	command.Cli // the rest of the interface, for commands that ovnd has not
	c           *cli

	in       *streams.In
	out, err *streams.Out
	config   configfile.ConfigFile
	client   client.APIClient
}

func newDockerCLI(c *cli) *dockerCLI {
	d := &dockerCLI{c: c, out: outStream(c.out), err: outStream(c.err)}
	if in, ok := c.in.(io.ReadCloser); ok {
		d.in = streams.NewIn(in)
	} else {
		d.in = streams.NewIn(io.NopCloser(c.in))
	}
	return d
}

// outStream knows a terminal by its file; anything else goes through w.
func outStream(w io.Writer) *streams.Out {
	under := w
	if s, ok := w.(*stickyWriter); ok {
		under = s.w
	}
	if f, ok := under.(*os.File); ok {
		if out := streams.NewOut(f); out.IsTerminal() {
			return out
		}
	}
	return streams.NewOut(w)
}

func (d *dockerCLI) In() *streams.In                    { return d.in }
func (d *dockerCLI) SetIn(in *streams.In)               { d.in = in }
func (d *dockerCLI) Out() *streams.Out                  { return d.out }
func (d *dockerCLI) Err() *streams.Out                  { return d.err }
func (d *dockerCLI) ConfigFile() *configfile.ConfigFile { return &d.config }
func (d *dockerCLI) ServerInfo() command.ServerInfo     { return command.ServerInfo{OSType: "linux"} }
func (d *dockerCLI) CurrentVersion() string             { return d.Client().ClientVersion() }

// connect is run before each command, when the flags that choose the node have
// been parsed.
func (d *dockerCLI) connect(*cobra.Command, []string) error {
	api, err := d.c.docker()
	if err != nil {
		return err
	}
	d.client = &serviceClient{APIClient: api}
	return nil
}

// Client is asked for without connect by what completes names on the command
// line. Who gets none there cannot go on, and cannot say so either.
func (d *dockerCLI) Client() client.APIClient {
	if d.client == nil {
		if err := d.connect(nil, nil); err != nil {
			fmt.Fprintln(d.err, err)
			os.Exit(exitFailed)
		}
	}
	return d.client
}

// connectForProgress is connect for a command that waits for a service to
// converge: the one line of it that names Docker's program is changed.
func (d *dockerCLI) connectForProgress(cmd *cobra.Command, args []string) error {
	out := streams.NewOut(toOvndWriter{d.out})
	out.SetIsTerminal(d.out.IsTerminal())
	d.out = out
	return d.connect(cmd, args)
}

// A toOvndWriter changes the text that goes through it. Docker's progress
// writes whole messages.
type toOvndWriter struct{ w io.Writer }

func (t toOvndWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(t.w, strings.ReplaceAll(string(p), "`docker service ps ", "`ovnd service ps ")); err != nil {
		return 0, err
	}
	return len(p), nil
}
