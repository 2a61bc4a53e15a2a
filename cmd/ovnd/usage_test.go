package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// The words are docker 28.2.2's, but for the program's name.
func TestMistakesOnTheCommandLine(t *testing.T) {
	tests := []struct {
		args, err string
		code      int
	}{
		{"network create", "ovnd: 'ovnd network create' requires 1 argument\n\nUsage:  ovnd network create [OPTIONS] NETWORK\n\nRun 'ovnd network create --help' for more information\n", 1},
		{"network create a b", "ovnd: 'ovnd network create' requires 1 argument\n\nUsage:  ovnd network create [OPTIONS] NETWORK\n\nRun 'ovnd network create --help' for more information\n", 1},
		{"network inspect", "ovnd: 'ovnd network inspect' requires at least 1 argument\n\nUsage:  ovnd network inspect [OPTIONS] NETWORK [NETWORK...]\n\nSee 'ovnd network inspect --help' for more information\n", 1},
		{"network ls x", "ovnd: 'ovnd network ls' accepts no arguments\n\nUsage:  ovnd network ls [OPTIONS]\n\nRun 'ovnd network ls --help' for more information\n", 1},
		{"network foo", "ovnd: unknown command: ovnd network foo\n\nUsage:  ovnd network\n\nRun 'ovnd network --help' for more information\n", 1},
		{"foo", "ovnd: unknown command: ovnd foo\n\nRun 'ovnd --help' for more information\n", 1},
		{"completion foo", "ovnd: unknown command: ovnd completion foo\n\nUsage:  ovnd completion\n\nRun 'ovnd completion --help' for more information\n", 1},
		{"network create --foo", "unknown flag: --foo\n\nUsage:  ovnd network create [OPTIONS] NETWORK\n\nRun 'ovnd network create --help' for more information\n", 125},
		{"network create --label", "flag needs an argument: --label\n\nUsage:  ovnd network create [OPTIONS] NETWORK\n\nRun 'ovnd network create --help' for more information\n", 125},
		{"network create --label =b x", "invalid argument \"=b\" for \"--label\" flag: invalid label '=b': empty name\n\nUsage:  ovnd network create [OPTIONS] NETWORK\n\nRun 'ovnd network create --help' for more information\n", 125},
		{"network ls -f foo", "invalid argument \"foo\" for \"-f, --filter\" flag: bad format of filter (expected name=value)\n\nUsage:  ovnd network ls [OPTIONS]\n\nRun 'ovnd network ls --help' for more information\n", 125},
		{"network create --ipv6=foo x", "invalid argument \"foo\" for \"--ipv6\" flag: strconv.ParseBool: parsing \"foo\": invalid syntax\n\nUsage:  ovnd network create [OPTIONS] NETWORK\n\nRun 'ovnd network create --help' for more information\n", 125},
		{"swarm join-token foo", "unknown role foo\n", 1},
		{"run --foo", "unknown flag: --foo\n\nUsage:  ovnd run [OPTIONS] [--] COMMAND [ARG...]\n\nRun 'ovnd run --help' for more information\n", 125},
		{"run -- true", "ovnd: a command needs a network: give --network NAME (\"ovnd network ls\" lists them)\n\nRun 'ovnd run --help' for more information\n", 125},
		{"up --join TOKEN", "ovnd: 'ovnd up' requires 1 argument\n\nUsage:  ovnd up [OPTIONS] [--join TOKEN HOST:PORT]\n\nRun 'ovnd up --help' for more information\n", 1},
		{"up 192.0.2.1:2377", "ovnd: 'ovnd up' accepts no arguments\n\nUsage:  ovnd up [OPTIONS] [--join TOKEN HOST:PORT]\n\nRun 'ovnd up --help' for more information\n", 1},
		{"up --log-level loud", "--log-level: \"loud\" is not \"debug\", \"info\", \"warn\" or \"error\"\n", 1},
		{"up --default-addr-pool ten", "--default-addr-pool: \"ten\" is not an address range such as 10.0.0.0/8\n", 1},
		{"up --data-path-addr 127.0.0.1:4789", "--data-path-addr: \"127.0.0.1:4789\" has a port: --data-path-port sets it\n", 1},
		{"up --dns nowhere", "--dns: address \"nowhere\" must be an IP address or network interface (with optional port number): no interface \"nowhere\"\n", 1},
		{"version -f {{", "template parsing error: template: version:1: unclosed action\n", 64},
		{"network inspect -f {{ x", "template parsing error: template: :1: unclosed action\n", 64},
		{"status -f {{", "template parsing error: template: :1: unclosed action\n", 64},
		{"events --format {{.Foo}}", "Error parsing format: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *events.Message\n", 64},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			ovndCommand(t, strings.Fields(tt.args)...).want(t, "", tt.err, tt.code)
		})
	}
}

func TestHelp(t *testing.T) {
	ovndCommand(t, "network", "--help").want(t, testdata(t, "network-help.txt"), "", 0)
	ovndCommand(t, "network").want(t, "", testdata(t, "network-help.txt"), 0)
	ovndCommand(t, "network", "ls", "--help").want(t, testdata(t, "network-ls-help.txt"), "", 0)
}

// Everything that can be typed explains itself, within docker's 80 columns
// where it is wrapped.
func TestEveryCommandHasHelp(t *testing.T) {
	eachCommand(newRootCommand(&cli{}), func(cmd *cobra.Command) {
		if cmd.Short == "" {
			t.Errorf("%s has no short help", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.UsageString()) {
			if strings.Contains(line, "--") && !strings.Contains(line, "ovnd ") && len(line) > usualHelp {
				t.Errorf("%s: %d columns: %s", cmd.CommandPath(), len(line), line)
			}
		}
	})
}

func TestUnreachableNode(t *testing.T) {
	const host = "unix:///nonexistent/ovnd.sock"
	const text = `Cannot connect to the ovnd node at unix:///nonexistent/ovnd.sock. Is it running? Start one with "ovnd up".` + "\n"
	for _, args := range []string{
		"network ls", "network create x", "network rm -f x", "network prune -f", "node ls", "node update x",
		"node rm x", "swarm leave", "swarm join-token worker", "events", "status", "down",
	} {
		t.Run(args, func(t *testing.T) {
			got := ovndCommand(t, append([]string{"-H", host}, strings.Fields(args)...)...)
			if strings.HasPrefix(args, "network rm") {
				got.want(t, "", text+"exit status 1\n", 1)
			} else {
				got.want(t, "", text, 1)
			}
		})
	}
	ovndCommand(t, "-H", host, "network", "inspect", "x").want(t, "[]\n", text, 1)
	ovndCommand(t, "-H", host, "run", "--network", "x", "true").want(t, "", "ovnd: "+text+"\nRun 'ovnd run --help' for more information\n", 125)
	// What is known without the node is still shown.
	if got := ovndCommand(t, "-H", host, "version"); !strings.HasPrefix(got.out, "Client: ovnd\n Version: ") || got.err != text || got.code != 1 {
		t.Errorf("version: %+v", got)
	}
}

func TestHost(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///docker.sock")
	c := &cli{stateDir: "/tmp/x"}
	wantHost(t, c, "unix:///tmp/x/run/ovnd.sock")
	t.Setenv("OVND_STATE_DIR", "/tmp/y")
	wantHost(t, c, "unix:///tmp/x/run/ovnd.sock")
	wantHost(t, &cli{}, "unix:///tmp/y/run/ovnd.sock")
	t.Setenv("OVND_HOST", "unix:///env.sock")
	wantHost(t, &cli{}, "unix:///env.sock")
	wantHost(t, &cli{host: "unix:///flag.sock"}, "unix:///flag.sock")
}

func wantHost(t *testing.T, c *cli, want string) {
	t.Helper()
	if got, err := c.apiHost(); got != want || err != nil {
		t.Errorf("host %q, %v, want %q", got, err, want)
	}
}

func TestOutputCannotBeWritten(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	n := newFakeNode(t)
	n.on("GET /networks", 0, networkList)
	var errs bytes.Buffer
	code := execute(t.Context(), &cli{out: full, err: &errs}, []string{"-H", n.host, "network", "ls"})
	result{"", errs.String(), code}.want(t, "", "cannot write the output: write /dev/full: no space left on device\n", 1)
}
