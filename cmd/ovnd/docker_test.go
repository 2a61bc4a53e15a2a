package main

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/spf13/cobra"
)

// The linker checks that the function is there, and nobody its type.
func TestDockerCommandsAreWhereTheyWere(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/docker/cli").Output()
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "internal", "commands", "commands.go"), nil, 0)
	if err != nil {
		t.Fatalf("docker/cli has moved internal/commands, which docker_unsafe.go links to: %v", err)
	}
	const want = "func() []func(command.Cli) *cobra.Command"
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "Commands" {
			if got := typeString(f.Type); got != want {
				t.Errorf("docker/cli has changed what docker_unsafe.go links to: it is %s, was %s", got, want)
			}
			return
		}
	}
	t.Error("docker/cli has no function internal/commands.Commands any more, which docker_unsafe.go links to")
}

func TestDockerCommandsThatAreThere(t *testing.T) {
	root := newRootCommand(&cli{})
	for group, want := range map[string]string{
		"container": "exec inspect kill logs ls port stop top wait",
		"service":   "create inspect logs ls ps rm rollback scale update",
		"node":      "demote inspect ls promote ps rm update",
	} {
		var got []string
		for _, cmd := range find(root, group).Commands() {
			got = append(got, cmd.Name())
		}
		diff(t, group, strings.Join(got, " "), want)
	}
}

func typeString(f *ast.FuncType) string {
	text := "func("
	for _, p := range f.Params.List {
		text += exprString(p.Type)
	}
	text += ")"
	if f.Results != nil {
		for _, r := range f.Results.List {
			text += " " + exprString(r.Type)
		}
	}
	return text
}

func exprString(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.ArrayType:
		return "[]" + exprString(e.Elt)
	case *ast.FuncType:
		return typeString(e)
	case *ast.StarExpr:
		return "*" + exprString(e.X)
	case *ast.SelectorExpr:
		return exprString(e.X) + "." + e.Sel.Name
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

func TestNoCommandNamesDocker(t *testing.T) {
	t.Setenv("DOCKER_HIDE_LEGACY_COMMANDS", "1") // which is about docker's
	eachCommand(newRootCommand(&cli{}), func(cmd *cobra.Command) {
		if cmd.Hidden && cmd.Name() != "demo-probe" && cmd.CommandPath() != "ovnd bench child" {
			t.Errorf("%s is hidden", cmd.CommandPath())
		}
		help := strings.ReplaceAll(cmd.UsageString(), "docs.docker.com", "")
		help = strings.ReplaceAll(help, "com.docker.network", "")
		for line := range strings.Lines(help) {
			if strings.Contains(line, "docker") {
				t.Errorf("%s: %s", cmd.CommandPath(), line)
			}
		}
	})
}

func TestServiceMistakes(t *testing.T) {
	tests := []struct {
		args, err string
		code      int
	}{
		{"service create", "ovnd: 'ovnd service create' requires at least 1 argument\n\nUsage:  ovnd service create [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nSee 'ovnd service create --help' for more information\n", 1},
		{"service ls x", "ovnd: 'ovnd service ls' accepts no arguments\n\nUsage:  ovnd service ls [OPTIONS]\n\nRun 'ovnd service ls --help' for more information\n", 1},
		{"service foo", "ovnd: unknown command: ovnd service foo\n\nUsage:  ovnd service\n\nRun 'ovnd service --help' for more information\n", 1},
		{"service create --foo x", "unknown flag: --foo\n\nUsage:  ovnd service create [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'ovnd service create --help' for more information\n", 125},
		{"service create --mode global --replicas 2 x", "replicas can only be used with replicated or replicated-job mode\n", 1},
		{"service scale a", "invalid scale specifier 'a'.\nSee 'ovnd service scale --help'.\n\nUsage:  ovnd service scale SERVICE=REPLICAS [SERVICE=REPLICAS...]\n\nScale one or multiple replicated services\n", 1},
		{"exec a", "ovnd: 'ovnd exec' requires at least 2 arguments\n\nUsage:  ovnd exec [OPTIONS] CONTAINER COMMAND [ARG...]\n\nSee 'ovnd exec --help' for more information\n", 1},
		{"container create x", "ovnd: unknown command: ovnd container create\n\nUsage:  ovnd container\n\nRun 'ovnd container --help' for more information\n", 1},
		{"inspect --type volume x", "unknown type: \"volume\": must be one of \"container\", \"network\", \"service\", \"task\", \"node\"\n", 1},
		{"--host tcp: service ls", "--host: unable to parse docker host `tcp:`\n", 1},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			ovndCommand(t, strings.Fields(tt.args)...).want(t, "", tt.err, tt.code)
		})
	}
}

func TestServiceWithoutNode(t *testing.T) {
	const host = "unix:///nonexistent/ovnd.sock"
	const text = `Cannot connect to the ovnd node at unix:///nonexistent/ovnd.sock. Is it running? Start one with "ovnd up".` + "\n"
	for _, args := range []string{
		"service ls", "service create x", "service rm x", "service ps x", "service scale x=1", "service logs x", "service update x", "service rollback x",
		"ps", "exec x true", "logs x", "stop x", "kill x", "wait x", "top x", "port x", "container ls", "node ps", "inspect x",
	} {
		t.Run(args, func(t *testing.T) {
			got := ovndCommand(t, append([]string{"-H", host}, strings.Fields(args)...)...)
			out := ""
			if args == "inspect x" {
				out = "[]\n"
			}
			got.want(t, out, text, 1)
		})
	}
}

// Docker's own settings must not change what ovnd prints or talks to.
func TestDockersConfigurationIsNotRead(t *testing.T) {
	dir := t.TempDir()
	config := `{"psFormat":"{{.ID}}!","servicesFormat":"{{.ID}}!","currentContext":"elsewhere","credsStore":"nonexistent","detachKeys":"??"}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("DOCKER_CONTEXT", "elsewhere")
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	n := newFakeNode(t)
	n.on("GET /services", 0, "[]")
	n.on("GET /containers/json", 0, "[]")
	n.run(t, "service", "ls").want(t, "ID        NAME      MODE      REPLICAS   IMAGE     PORTS\n", "", 0)
	n.run(t, "ps").want(t, "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n", "", 0)
}

const serviceID = "ivcb6veswzb8lbiguopvgmfyr"

func serviceNode(t *testing.T) *fakeNode {
	n := newFakeNode(t)
	n.on("POST /services/create", 201, `{"ID":"`+serviceID+`"}`)
	return n
}

func TestServiceCreateImage(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		args, image   string
		command, argv []string
	}{
		{"nginx", "nginx:latest", nil, nil},
		{"ovnd/whoami -v", "ovnd/whoami:latest", nil, []string{"-v"}},
		{"nginx:1.27 -g x", "nginx:1.27", nil, []string{"-g", "x"}},
		{"/usr/bin/python3 -m http.server", "host:latest", nil, []string{"/usr/bin/python3", "-m", "http.server"}},
		{"./server", "host:latest", nil, []string{here + "/server"}},
		{"MyServer --port 80", "host:latest", nil, []string{"MyServer", "--port", "80"}},
		{"--entrypoint /bin/sh /srv/web -c date", "host:latest", []string{"/bin/sh"}, []string{"-c", "date"}},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			n := serviceNode(t)
			n.run(t, append([]string{"service", "create", "-d", "--host", "db:10.0.0.9"}, strings.Fields(tt.args)...)...).want(t, serviceID+"\n", "", 0)
			var spec swarm.ServiceSpec
			if err := json.Unmarshal([]byte(n.last(t, "POST /services/create").body), &spec); err != nil {
				t.Fatal(err)
			}
			got := spec.TaskTemplate.ContainerSpec
			if got.Image != tt.image || !slices.Equal(got.Command, tt.command) || !slices.Equal(got.Args, tt.argv) {
				t.Errorf("image %q command %q args %q, want %q %q %q", got.Image, got.Command, got.Args, tt.image, tt.command, tt.argv)
			}
			if want := []string{"10.0.0.9 db"}; !slices.Equal(got.Hosts, want) {
				t.Errorf("hosts %q, want %q", got.Hosts, want)
			}
			for _, c := range n.calls {
				if strings.HasPrefix(c.path, "/distribution") {
					t.Errorf("a registry was asked: %s", c)
				}
			}
		})
	}
}

func TestServiceUpdateImage(t *testing.T) {
	host := func(args ...string) *swarm.ContainerSpec {
		return &swarm.ContainerSpec{Image: "host:latest", Args: args}
	}
	tests := []struct {
		name      string
		old, spec *swarm.ContainerSpec
		want      []string
	}{
		{"another program, the same arguments", host("/a", "x"), &swarm.ContainerSpec{Image: "/b", Args: []string{"/a", "x"}}, []string{"/b", "x"}},
		{"another program, other arguments", host("/a", "x"), &swarm.ContainerSpec{Image: "/b", Args: []string{"y"}}, []string{"/b", "y"}},
		{"a program in an image's place", &swarm.ContainerSpec{Image: "nginx", Args: []string{"x"}}, &swarm.ContainerSpec{Image: "/b", Args: []string{"x"}}, []string{"/b", "x"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			programImage(tt.spec, tt.old)
			if tt.spec.Image != "host" || !reflect.DeepEqual(tt.spec.Args, tt.want) {
				t.Errorf("%s %q, want host %q", tt.spec.Image, tt.spec.Args, tt.want)
			}
		})
	}
}

// The exit code is the command's, and so are its two outputs.
func TestExec(t *testing.T) {
	n := newFakeNode(t)
	n.on("GET /containers/web.1.abc/json", 0, `{"Id":"abc"}`)
	n.on("POST /containers/web.1.abc/exec", 201, `{"Id":"e1"}`)
	frame := func(stream byte, text string) string {
		return string([]byte{stream, 0, 0, 0, 0, 0, 0, byte(len(text))}) + text
	}
	n.on("POST /exec/e1/start", 0, hijacked(frame(1, "out\n")+frame(2, "err\n")))
	n.on("GET /exec/e1/json", 0, `{"ID":"e1","ExitCode":42}`)
	n.run(t, "exec", "-e", "A=b", "-w", "/srv", "web.1.abc", "sh", "-c", "exit 42").want(t, "out\n", "err\n", 42)
	n.last(t, "POST /containers/web.1.abc/exec").wantBody(t, `{"User":"","Privileged":false,"Tty":false,"AttachStdin":false,"AttachStderr":true,"AttachStdout":true,"DetachKeys":"","Env":["A=b"],"WorkingDir":"/srv","Cmd":["sh","-c","exit 42"]}`)
	n.run(t, "exec", "-it", "web.1.abc", "sh").want(t, "", "cannot attach stdin to a TTY-enabled container because stdin is not a terminal\n", 1)
	n.run(t, "exec", "nosuch", "sh").want(t, "", "Error response from daemon: no answer for GET /containers/nosuch/json\n", 1)
}

func TestInspectAny(t *testing.T) {
	n := newFakeNode(t)
	n.on("GET /containers/web.1.abc/json", 0, `{"Id":"abc","Name":"/web.1.abc"}`)
	n.on("GET /services/web", 0, `{"ID":"s1","Spec":{"Name":"web"}}`)
	n.on("GET /tasks/t1", 0, `{"ID":"t1","Status":{"State":"running"}}`)
	n.run(t, "inspect", "--format", "{{.ID}}", "web.1.abc", "web", "t1").want(t, "abc\ns1\nt1\n", "", 0)
	n.run(t, "inspect", "--type", "task", "--format", "{{.Status.State}}", "t1").want(t, "running\n", "", 0)
	n.run(t, "inspect", "nosuch").want(t, "[]\n", "error: no such object: nosuch\n", 1)
	// A worker knows its containers and networks alone.
	for _, path := range []string{"services", "tasks", "nodes"} {
		n.on("GET /"+path+"/nosuch", 503, message("This node is not a swarm manager."))
	}
	n.run(t, "inspect", "nosuch").want(t, "[]\n", "error: no such object: nosuch\n", 1)
	n.run(t, "inspect", "--type", "service", "nosuch").want(t, "[]\n", "Error response from daemon: This node is not a swarm manager.\n", 1)
}

func TestProgressNamesOvnd(t *testing.T) {
	var out bytes.Buffer
	if _, err := io.WriteString(toOvndWriter{&out}, "Use `docker service ps x` to check progress.\n"); err != nil {
		t.Fatal(err)
	}
	diff(t, "text", out.String(), "Use `ovnd service ps x` to check progress.\n")
}

// A wait for tasks that can never run ends, and says why.
func TestServiceCreateWherePortCannotBePublished(t *testing.T) {
	n := serviceNode(t)
	n.on("GET /services/"+serviceID, 0, `{"ID":"`+serviceID+`","Spec":{"Name":"web","Mode":{"Replicated":{"Replicas":1}}}}`)
	n.on("GET /nodes", 0, `[{"ID":"n1","Status":{"State":"ready"}}]`)
	const why = "node n1 cannot publish port 80/tcp: permission denied: choose a port of 1024 or more"
	n.on("GET /tasks", 0, `[{"ID":"t1","ServiceID":"`+serviceID+`","NodeID":"n1","Slot":1,"DesiredState":"shutdown","Status":{"State":"rejected","Err":"`+why+`"}}]`)
	const end = why + "\nThe service exists, and its tasks are tried again: \"ovnd service rm web\" ends that\n"
	n.run(t, "service", "create", "-q", "--name", "web", "-p", "80:80", "nginx").want(t, serviceID+"\n", end, 1)

	// What an update finds is no fault of the update.
	n.on("POST /services/"+serviceID+"/update", 0, "{}")
	n.on("GET /services/web", 0, `{"ID":"`+serviceID+`","Spec":{"Name":"web","Mode":{"Replicated":{"Replicas":1}},"TaskTemplate":{"ContainerSpec":{"Image":"nginx"}}}}`)
	time.AfterFunc(300*time.Millisecond, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.answers["GET /tasks"] = answer{body: `[{"ID":"t2","ServiceID":"` + serviceID + `","NodeID":"n1","Slot":1,"DesiredState":"running","Status":{"State":"rejected","Err":"` + why + `"}}]`}
	})
	got := n.run(t, "service", "scale", "web=2")
	if !strings.HasPrefix(got.out, "web scaled to 2\noverall progress: 0 out of 1 tasks\n1/1:") {
		t.Errorf("output %q", got.out)
	}
	result{"", got.err, got.code}.want(t, "", "web: "+end, 1)
	query, err := url.ParseQuery(n.last(t, "GET /tasks").query)
	if err != nil || !strings.Contains(query.Get("filters"), "_up-to-date") {
		t.Errorf("query %v, %v", query, err)
	}
}
