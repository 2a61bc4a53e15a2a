package api

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// dockerCLI runs the stock docker command against the server.
func (s *testServer) dockerCLI(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", append([]string{"-H", "unix://" + s.path}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir(), "DOCKER_HOST=", "DOCKER_API_VERSION=")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("docker %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// TestDockerCLI holds what the stock command prints and how it exits, as the
// reference output of Docker 28.2 has it.
func TestDockerCLI(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("no docker command here; CI installs it")
	}
	s := serve(t, newFakeNode())
	tests := []struct {
		args   string
		stdout string // all of it, if it ends in a newline; else a part
		stderr string // a part; empty: nothing on stderr
		code   int
	}{
		{"network ls --format {{.ID}}|{{.Name}}|{{.Driver}}|{{.Scope}}", "j0a7j3mks3py|ingress|overlay|swarm\ndvdqkogqh62g|plain_net|overlay|swarm\ndvzzkogqh62g|spare|overlay|swarm\n", "", 0},
		{"network ls -q --no-trunc --filter name=spare", "dvzzkogqh62gxbbi77m7ctrts\n", "", 0},
		{"network ls --filter label=a=b --format json", `"IPv4":"true","IPv6":"false","Internal":"false","Labels":"a=b","Name":"spare","Scope":"swarm"}`, "", 0},
		{"network inspect -f {{range.IPAM.Config}}{{.Subnet}},{{.Gateway}}{{end}} plain_net", "10.20.0.0/16,10.20.0.1\n", "", 0},
		{"network inspect --verbose -f {{range.Services}}{{.VIP}}{{end}} plain_net", "10.20.0.2\n", "", 0},
		{"network inspect nosuch", "[]\n", "Error response from daemon: network nosuch not found", 1},
		{"inspect -f {{.Id}} plain_net", usedID + "\n", "", 0},
		{"network create -d overlay --subnet 10.10.19.0/16 ngx_net", "new0000000000000000000001\n", "", 0},
		{"network create -d overlay plain_net", "", "Error response from daemon: network with name plain_net already exists\n", 1},
		{"network create -d overlay --subnet foo bad", "", "Error response from daemon: invalid network config:\ninvalid subnet foo: invalid CIDR block notation\n", 1},
		{"network rm ngx_net", "ngx_net\n", "", 0},
		{"network rm nosuch", "", "Error response from daemon: network nosuch not found\nexit status 1\n", 1},
		{"network rm plain_net", "", "is in use by service", 1},
		{"network connect plain_net x", "", "ovnd cannot connect or disconnect a running process", 1},
		{"network prune -f", "Deleted Networks:\nspare\n\n", "", 0},
		{"node ls --format {{.ID}}|{{.Self}}|{{.Hostname}}|{{.ManagerStatus}}", workerID + "|false|hsp1|\n" + managerID + "|true|localhost|Leader\n", "", 0},
		{"node inspect -f {{.ID}} self", managerID + "\n", "", 0},
		{"node update --availability drain hsp1", "hsp1\n", "", 0},
		{"node promote hsp1", "Node hsp1 promoted to a manager in the swarm.\n", "", 0},
		{"node demote hsp1", "Manager hsp1 demoted in the swarm.\n", "", 0},
		{"node rm " + workerID, "", "is not down and can't be removed", 1},
		{"node rm --force " + workerID, workerID + "\n", "", 0},
		{"swarm init", "", "This node is already part of a swarm", 1},
		{"swarm join --token x 192.0.2.1:2377", "", "invalid join token", 1},
		{"swarm join-token -q worker", "SWMTKN-1-worker\n", "", 0},
		{"swarm join-token manager", "    docker swarm join --token SWMTKN-1-manager 192.0.2.11:2377\n", "", 0},
		{"swarm update --task-history-limit 3", "Swarm updated.\n", "", 0},
		{"swarm leave", "", "participating as a manager", 1},
		{"swarm leave --force", "Node left the swarm.\n", "", 0},
		{"info -f {{.Swarm.NodeID}}|{{.Swarm.Managers}}|{{.Name}}", managerID + "|1|localhost\n", "", 0},
		{"info", "Swarm: active", "no CPU or memory limits", 0},
		{"version -f {{.Server.Platform.Name}}|{{.Server.Version}}|{{.Server.APIVersion}}|{{.Server.MinAPIVersion}}", "ovnd|0.1.0|1.56|1.40\n", "", 0},
		{"version", "Server: ovnd\n Engine:\n  Version:          0.1.0\n  API version:      1.56 (minimum version 1.40)", "", 0},
		{"ps -aq", "", "", 0},
		{"service ls -q", "", "", 0},
		{"images", "", "Error response from daemon: ovnd does not have images\n", 1},
		{"volume ls", "", "Error response from daemon: ovnd does not have volumes\n", 1},
		{"run nginx", "", "ovnd creates no containers: start a process with `ovnd run`, or a service with `service create`", 125},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			stdout, stderr, code := s.dockerCLI(t, strings.Fields(tt.args)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if tt.stdout != stdout && (tt.stdout == "" || !strings.Contains(stdout, tt.stdout)) {
				t.Errorf("stdout %q, want %q", stdout, tt.stdout)
			}
			if !strings.Contains(stderr, tt.stderr) || tt.stderr == "" && stderr != "" {
				t.Errorf("stderr %q, want %q", stderr, tt.stderr)
			}
		})
	}
	m := created("plain_net")
	m.Time = time.Now().Unix() - 5 // the command cuts its times to seconds
	m.TimeNano = m.Time * 1e9
	s.events.Publish(m)
	stdout, _, code := s.dockerCLI(t, "events", "--since", "1m", "--until", "0s", "--filter", "type=network")
	if want := " network create " + usedID + " (name=plain_net)\n"; code != 0 || !strings.HasSuffix(stdout, want) {
		t.Errorf("events: exit code %d, stdout %q; want %q", code, stdout, want)
	}
}
