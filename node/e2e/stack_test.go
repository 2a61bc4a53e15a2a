package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestStack deploys a compose file with the stock CLI, changes it, and removes it.
func TestStack(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		if ci {
			t.Fatal("CI needs the docker CLI")
		}
		t.Skip("no docker CLI on this machine")
	}
	hosts, addrs := oneMachine(t)
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	deploy := func(replicas int) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "compose.yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, stackFile, replicas), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if r := dockerCLI(m, "stack", "deploy", "--detach=false", "-c", file, "shop"); r.code != 0 {
			t.Fatalf("stack deploy: %+v", r)
		}
	}
	deploy(2)
	if out := m.must("network", "inspect", "--format", "{{.Options.encrypted}}", "shop_back"); out != "true" {
		t.Errorf("the network's option encrypted is %q", out)
	}
	client := m.startAgent("--network", "shop_back")
	outside := startHostAgent(m)
	for _, url := range []string{"http://web/", "http://shop_web/"} {
		client.waitFetch(url, 2)
	}
	outside.waitFetch("http://"+m.addr+":8080/", 2)
	deploy(3)
	client.waitNames("tasks.web", 3)
	if r := dockerCLI(m, "stack", "services", "--format", "{{.Name}} {{.Replicas}}", "shop"); strings.TrimSpace(r.stdout) != "shop_web 3/3" {
		t.Errorf("stack services: %+v", r)
	}
	client.stdin.Close()
	m.eventually("the stack is removed", func() error { return succeeded(dockerCLI(m, "stack", "rm", "shop")) })
	m.eventually("nothing is left", func() error {
		if out := m.must("service", "ls", "-q") + m.must("network", "ls", "-q", "--filter", "label=com.docker.stack.namespace=shop"); out != "" {
			return fmt.Errorf("%q", out)
		}
		return nil
	})
}

const stackFile = `version: "3.8"
services:
  web:
    image: ovnd/whoami
    ports: ["8080:80"]
    networks: [back]
    deploy:
      replicas: %d
networks:
  back:
    driver: overlay
    attachable: true
    driver_opts:
      encrypted: "true"
`
