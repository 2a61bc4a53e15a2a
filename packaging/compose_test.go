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
		t.Skip("neither docker compose nor docker-compose on this machine")
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

// The example of three nodes runs as it is written.
func TestCompose(t *testing.T) {
	img := image(t)
	shim := compose(t)
	script := written(t, "compose/compose.yaml")
	if strings.Count(script, "\n") != 9 {
		t.Fatalf("the file says:\n%s", script)
	}
	port := 20000 + os.Getpid()%10000
	script = strings.ReplaceAll(script, ":8080/", fmt.Sprintf(":%d/", port))
	env := append(os.Environ(), "OVND_IMAGE="+img, fmt.Sprintf("OVND_PORT=%d", port), fmt.Sprintf("OVND_NET=172.31.%d", os.Getpid()%256),
		fmt.Sprintf("COMPOSE_PROJECT_NAME=ovnd-test-%d", os.Getpid()))
	run := func(script string) (string, error) {
		cmd := exec.Command("bash", "-euc", "set -o pipefail\n"+shim+script)
		cmd.Dir, cmd.Env = "compose", env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() { _, _ = run("docker compose down -v -t 1") }) // if the script did not get there
	out, err := run(script)
	if err != nil || !strings.Contains(out, "service: web\n") || !strings.Contains(out, ": it closes") {
		t.Errorf("%v:\n%s\n%s", err, script, out)
	}
	for _, more := range []string{"sidecars.yaml", "sidecars.yaml:sidecars-tun.yaml"} {
		if out, err := run("COMPOSE_FILE=compose.yaml:" + more + " docker compose config -q"); err != nil {
			t.Errorf("%s: %v: %s", more, err, out)
		}
	}
}
