package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// compose is the command that this machine has, as a function of a shell.
func compose(t *testing.T) string {
	t.Helper()
	if exec.Command("docker", "compose", "version").Run() == nil {
		return ""
	}
	if _, err := exec.LookPath("docker-compose"); err != nil {
		lacking(t, "neither docker compose nor docker-compose on this machine")
	}
	return `docker() { if [ "$1" = compose ]; then shift; command docker-compose "$@"; else command docker "$@"; fi; }` + "\n"
}

// written are the commands in the comments at a file's head, but for those that
// make the image and change folders.
func written(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "#") {
			break
		}
		command, found := strings.CutPrefix(line, "#   ")
		if found && !strings.HasPrefix(command, "packaging/image.sh") && !strings.HasPrefix(command, "cd ") {
			script.WriteString(command)
		}
	}
	return script.String()
}

// A project runs the commands of an example with names and ports of its own.
type project struct {
	t    *testing.T
	shim string
	port int
	env  []string
}

// newProject takes a number that tells this test's projects apart.
func newProject(t *testing.T, number int, env ...string) *project {
	t.Helper()
	img, seed := image(t), os.Getpid()+100*number
	p := &project{t: t, shim: compose(t), port: 20000 + seed%10000}
	p.env = append(append(os.Environ(), "OVND_IMAGE="+img, fmt.Sprintf("OVND_PORT=%d", p.port),
		fmt.Sprintf("OVND_NET=172.31.%d", seed%256), fmt.Sprintf("COMPOSE_PROJECT_NAME=ovnd-test-%d-%d", number, os.Getpid())), env...)
	// If the commands did not get there. What is down already says nothing.
	t.Cleanup(func() { _, _ = p.run("docker compose down -v -t 1 --remove-orphans") })
	return p
}

func (p *project) run(script string) (string, error) {
	script = strings.ReplaceAll(script, ":8080/", fmt.Sprintf(":%d/", p.port))
	cmd := exec.Command("bash", "-euc", "set -o pipefail\n"+p.shim+script)
	cmd.Dir, cmd.Env = "compose", p.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		logs := exec.Command("bash", "-c", p.shim+"docker compose logs --no-color --tail 20")
		logs.Dir, logs.Env = cmd.Dir, cmd.Env
		more, _ := logs.CombinedOutput() // of what there is
		out = append(out, more...)
	}
	return string(out), err
}

// The example of three nodes runs as it is written.
func TestCompose(t *testing.T) {
	t.Parallel()
	p := newProject(t, 1)
	script := written(t, "compose/compose.yaml")
	if strings.Count(script, "\n") != 9 {
		t.Fatalf("the file says:\n%s", script)
	}
	out, err := p.run(script)
	if err != nil || !strings.Contains(out, "service: web\n") || !strings.Contains(out, ": it closes") {
		t.Errorf("%v:\n%s\n%s", err, script, out)
	}
}

// The example of sidecars runs as it is written, with three replicas of an
// application that knows nothing of ovnd; and so it does where the sidecars may
// add devices.
func TestComposeSidecars(t *testing.T) {
	t.Parallel()
	apps := programs(t)
	script := written(t, "compose/sidecars.yaml")
	if strings.Count(script, "\n") != 11 {
		t.Fatalf("the file says:\n%s", script)
	}
	for i, files := range []string{"compose.yaml:sidecars.yaml", "compose.yaml:sidecars.yaml:sidecars-tun.yaml"} {
		p := newProject(t, 2+i, "WEB_IMAGE="+apps, "CLIENT_IMAGE="+apps, "COMPOSE_FILE="+files)
		all := strings.Replace(script, "COMPOSE_FILE=compose.yaml:sidecars.yaml\n", "COMPOSE_FILE="+files+"\n", 1)
		if len(all) != len(script)+len(files)-len("compose.yaml:sidecars.yaml") {
			t.Fatalf("the file does not say which files it is of:\n%s", script)
		}
		out, err := p.run(all)
		if err != nil || strings.Count(out, "nginx on web") != 2 {
			t.Errorf("%v:\n%s\n%s", err, all, out)
		}
	}
}
