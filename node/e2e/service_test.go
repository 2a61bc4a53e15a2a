package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// nginxSizes are the bytes of the page that Debian's nginx serves unless it is
// told otherwise.
var nginxSizes = []int{612, 615}

// needNginx skips a test on a machine without Debian's nginx; CI has it.
func needNginx(t *testing.T) {
	t.Helper()
	for _, path := range []string{"/usr/sbin/nginx", "nginx"} {
		if _, err := exec.LookPath(path); err == nil {
			return
		}
	}
	if ci {
		t.Fatal("CI needs Debian's nginx")
	}
	t.Skip("no nginx on this machine")
}

// TestWalkthrough is the reference's walk-through, over three nodes on one
// machine, by ovnd's commands and by the stock docker CLI.
func TestWalkthrough(t *testing.T) {
	testWalkthrough(t, func(w *walkthrough) {
		w.must("network", "create", "--driver", "overlay", "--attachable", "--subnet", "10.10.0.0/16", "ngx_net")
	})
}

// testWalkthrough does the walk-through on the network that is created by
// network.
func testWalkthrough(t *testing.T, network func(w *walkthrough)) {
	needNginx(t)
	clis := map[string]func(n *node, args ...string) result{
		"ovnd": func(n *node, args ...string) result { return n.run(args...) },
	}
	if _, err := exec.LookPath("docker"); err == nil {
		clis["docker"] = dockerCLI
	} else if ci {
		t.Error("CI needs the docker CLI")
	}
	for name, cli := range clis {
		t.Run(name, func(t *testing.T) {
			hosts, addrs := oneMachine(t)
			nodes := threeNodes(t, hosts, addrs)
			w := walkthrough{t: t, nodes: nodes, do: func(args ...string) result { return cli(nodes[0], args...) }}
			network(&w)
			w.service()
			w.names()
			w.traffic()
			w.exec()
			w.dnsrr()
			w.scale()
			w.remove()
		})
	}
}

// A walkthrough is one pass, its commands given to the manager.
type walkthrough struct {
	t      *testing.T
	nodes  [3]*node
	do     func(args ...string) result
	client *sandbox
}

// must runs a command that has to succeed.
func (w *walkthrough) must(args ...string) string {
	w.t.Helper()
	r := w.do(args...)
	if r.code != 0 {
		w.t.Fatalf("%s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

func (w *walkthrough) service() {
	out := w.must("service", "create", "--replicas", "5", "--network", "ngx_net", "--name", "my-test", "-p", "8080:80", "nginx")
	id, _, _ := strings.Cut(out, "\n")
	for _, want := range []string{"overall progress: 5 out of 5 tasks", "verify: Service " + id + " converged"} {
		if !strings.Contains(out, want) {
			w.t.Errorf("service create prints no %q:\n%s", want, out)
		}
	}
	w.match("service ls", `(?m)^\S+ +my-test +replicated +5/5 +nginx:latest +\*:8080->80/tcp`)
	ps := w.must("service", "ps", "my-test", "--format", "{{.Name}} {{.Node}} {{.CurrentState}}")
	nodes := map[string]int{}
	for line := range strings.Lines(ps) {
		fields := strings.Fields(line)
		nodes[fields[1]]++
		if fields[2] != "Running" {
			w.t.Errorf("service ps: %s", line)
		}
	}
	if len(nodes) != 3 {
		w.t.Errorf("five tasks are on %d of three nodes:\n%s", len(nodes), ps)
	}
	w.match("network inspect ngx_net", `my-test\.[1-5]\.[a-z0-9]{25}`)
	w.match("network inspect ngx_net", `"MacAddress": "02:42:0a:0a:`)
	w.match("network inspect ngx_net", `"lb-ngx_net"`)
}

// match checks what a command prints against a regular expression.
func (w *walkthrough) match(command, pattern string) {
	w.t.Helper()
	if out := w.must(strings.Fields(command)...); !regexp.MustCompile(pattern).MatchString(out) {
		w.t.Errorf("%s does not match %s:\n%s", command, pattern, out)
	}
}

func (w *walkthrough) names() {
	w.client = w.nodes[2].startAgent("--network", "ngx_net", "--name", "client")
	w.expectNames("my-test", 1)
	w.expectNames("tasks.my-test", 5)
	vip := w.lookup("my-test")[0]
	w.client.mustAsk(nil, "ping", vip, "84")
	for _, task := range w.lookup("tasks.my-test") {
		w.client.mustAsk(nil, "ping", task, "84")
	}
}

func (w *walkthrough) lookup(name string) []string {
	w.t.Helper()
	var addrs []string
	w.client.mustAsk(&addrs, "lookup", name)
	return addrs
}

// expectNames waits until a name has so many addresses, or is no name any more.
func (w *walkthrough) expectNames(name string, want int) {
	w.t.Helper()
	if want > 0 {
		w.client.waitNames(name, want)
		return
	}
	w.client.node.eventually(name+" has no address", func() error {
		var addrs []string
		if err := w.client.ask(&addrs, "lookup", name); err == nil {
			return fmt.Errorf("it has %v", addrs)
		}
		return nil
	})
}

// traffic fetches pages by the VIP, and by the published port of each node.
func (w *walkthrough) traffic() {
	w.pages(w.client, "http://my-test/", 25)
	outside := startHostAgent(w.nodes[0])
	for _, n := range w.nodes {
		n.eventually("the published port answers on "+n.name, func() error {
			return outside.ask(nil, "dial", n.addr+":8080")
		})
		w.pages(outside, "http://"+n.addr+":8080/", 25)
	}
}

// pages fetches n pages, none of which may fail.
func (w *walkthrough) pages(from *sandbox, url string, n int) {
	w.t.Helper()
	var got fetched
	from.mustAsk(&got, "fetch", url, fmt.Sprint(n), "5")
	if got.Failed > 0 {
		w.t.Errorf("%s: %d of %d requests failed: %s", url, got.Failed, n, got.Error)
	}
	for size, count := range got.Sizes {
		if !slices.Contains(nginxSizes, size) {
			w.t.Errorf("%s: %d pages of %d bytes, want %v", url, count, size, nginxSizes)
		}
	}
}

// exec runs commands in a task.
func (w *walkthrough) exec() {
	names := w.must("ps", "--format", "{{.Names}}", "--filter", "label=com.docker.swarm.service.name=my-test")
	name, _, _ := strings.Cut(names, "\n")
	if !strings.HasPrefix(name, "my-test.") {
		w.t.Fatalf("ps: %q", names)
	}
	if out := w.must("exec", name, "cat", "/etc/resolv.conf"); !strings.Contains(out, "nameserver 127.0.0.11") {
		w.t.Errorf("resolv.conf in a task:\n%s", out)
	}
	if r := w.do("exec", name, "sh", "-c", "exit 7"); r.code != 7 {
		w.t.Errorf("exec of a command that exits 7: %+v", r)
	}
}

func (w *walkthrough) dnsrr() {
	w.must("service", "create", "--replicas", "3", "--name", "my-dnsrr-nginx", "--network", "ngx_net", "--endpoint-mode", "dnsrr", "nginx")
	w.expectNames("my-dnsrr-nginx", 3)
	w.expectNames("tasks.my-dnsrr-nginx", 3)
	w.pages(w.client, "http://my-dnsrr-nginx/", 9)
	r := w.do("service", "create", "--name", "bad", "--endpoint-mode", "dnsrr", "-p", "81:80", "nginx")
	if want := "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"; r.code != 1 || !strings.Contains(r.stderr, want) {
		w.t.Errorf("dnsrr with a published port: exit %d, %q, want %q", r.code, r.stderr, want)
	}
}

func (w *walkthrough) scale() {
	w.must("service", "scale", "my-test=2")
	w.expectNames("tasks.my-test", 2)
	w.must("service", "scale", "my-test=4")
	w.expectNames("tasks.my-test", 4)
	w.pages(w.client, "http://my-test/", 8)
}

func (w *walkthrough) remove() {
	w.must("service", "rm", "my-test", "my-dnsrr-nginx")
	w.expectNames("my-test", 0)
	w.client.stdin.Close()
	<-w.client.process.Done()
	w.nodes[0].eventually("the network can go", func() error {
		if r := w.do("network", "rm", "ngx_net"); r.code != 0 {
			return errors.New(r.stderr)
		}
		return nil
	})
}

// startHostAgent runs an agent on the node's machine, outside of any sandbox.
func startHostAgent(n *node) *sandbox {
	n.t.Helper()
	s := hostAgent(n)
	s.waitOutput("agent ready")
	return s
}
