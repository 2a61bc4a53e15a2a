package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A runner does what GitHub's does with the steps of a composite action: each is
// a script, with files for what later steps are to know.
type runner struct {
	t    *testing.T
	dir  string
	vars map[string]string // of the environment
}

func newRunner(t *testing.T) *runner {
	t.Helper()
	dir, err := os.MkdirTemp("", "ovnd-act") //nolint:usetesting // sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &runner{t: t, dir: dir, vars: map[string]string{"RUNNER_TEMP": dir}}
	for _, name := range []string{"GITHUB_PATH", "GITHUB_ENV", "GITHUB_OUTPUT"} {
		r.vars[name] = filepath.Join(dir, name)
	}
	return r
}

// lines reads what the steps wrote to one of their files.
func (r *runner) lines(name string) []string {
	r.t.Helper()
	b, err := os.ReadFile(r.vars[name])
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return strings.Fields(string(b))
}

func (r *runner) run(script string, env map[string]string) string {
	r.t.Helper()
	cmd := exec.Command("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
	cmd.Env = append(os.Environ(), "PATH="+strings.Join(append(r.lines("GITHUB_PATH"), os.Getenv("PATH")), ":"))
	cmd.Env = append(cmd.Env, r.lines("GITHUB_ENV")...)
	for _, vars := range []map[string]string{r.vars, env} {
		for k, v := range vars {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%v:\n%s\n%s", err, script, out)
	}
	return string(out)
}

// The action's steps start a node that later steps can use.
func TestAction(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	action := documents(t, "../action.yml")[0]
	if at(action, "runs", "using") != "composite" {
		t.Fatalf("%v", action["runs"])
	}
	source, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	r := newRunner(t)
	inputs := strings.NewReplacer(
		"${{ inputs.version }}", "source", "${{ github.action_path }}", source,
		"${{ inputs.join }}", "", "${{ inputs.token }}", "", "${{ inputs.network }}", "",
		"${{ inputs.args }}", fmt.Sprintf("--advertise-addr 127.%d.%d.9", 100+os.Getpid()>>8&63, os.Getpid()&255),
	)
	t.Cleanup(func() { r.run("ovnd down || true", nil) })
	for _, step := range list(at(action, "runs", "steps")) {
		env := make(map[string]string)
		vars, _ := at(step, "env").(map[string]any)
		for k, v := range vars {
			if env[k] = inputs.Replace(v.(string)); strings.Contains(env[k], "${{") {
				t.Fatalf("%s is %s", k, v)
			}
		}
		if at(step, "shell") != "bash" {
			t.Fatalf("a step without a shell: %v", step)
		}
		r.run(at(step, "run").(string), env)
	}
	token := strings.TrimSpace(r.run("ovnd swarm join-token -q worker", nil))
	outputs := strings.Join(r.lines("GITHUB_OUTPUT"), "\n")
	if want := "token=" + token + "\nhost=unix://" + r.dir + "/ovnd/state/run/ovnd.sock"; outputs != want {
		t.Errorf("outputs:\n%s\nwant:\n%s", outputs, want)
	}
	r.run(`test -S "${HOST#unix://}"`, map[string]string{"HOST": "unix://" + r.dir + "/ovnd/state/run/ovnd.sock"})
}
