package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/docker/cli/opts"
)

func TestRunAttaches(t *testing.T) {
	n := newFakeNode(t)
	n.on("POST /ovnd/attach", http.StatusForbidden, message("network back is not attachable"))
	const refused = "ovnd: Error response from daemon: network back is not attachable\n\nRun 'ovnd run --help' for more information\n"
	tests := []struct {
		name, body string
		args       []string
	}{
		{"name", `{"Networks":[{"Target":"back"}]}`, []string{"--network", "back", "true"}},
		{
			"all", `{"Name":"a","Hostname":"h","Networks":[{"Target":"back","IP":"10.10.0.7","Aliases":["x","y"]},{"Target":"front"}]}`,
			[]string{"--network", "back", "--network=front", "--name", "a", "-h", "h", "--ip", "10.10.0.7", "--network-alias", "x", "--network-alias", "y", "--", "ls", "-h"},
		},
		{
			"long form", `{"Networks":[{"Target":"back","IP":"10.10.0.8","Aliases":["x","y"]},{"Target":"front","Aliases":["z"]}]}`,
			[]string{"--network", "name=back,alias=x,alias=y,ip=10.10.0.8", "--network", "name=front,alias=z", "ls", "--network", "its own"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n.run(t, append([]string{"run"}, tt.args...)...).want(t, "", refused, 125)
			n.last(t, "POST /ovnd/attach").wantBody(t, tt.body)
		})
	}
}

// A command that cannot start gives back what it was given.
func TestRunReleases(t *testing.T) {
	n := newFakeNode(t)
	n.on("POST /ovnd/attach", http.StatusCreated, `{"Spec":{"ID":"e5403e446ce0","Token":"secret"}}`)
	n.on("POST /ovnd/release", http.StatusNoContent, nil)
	n.run(t, "run", "--network", "back", "true").want(t, "",
		"ovnd: sandbox ID \"e5403e446ce0\" is not 64 hexadecimal digits\n\nRun 'ovnd run --help' for more information\n", 125)
	n.last(t, "POST /ovnd/release").wantBody(t, `{"Id":"e5403e446ce0","Token":"secret"}`)
}

func TestRunMistakes(t *testing.T) {
	for want, args := range map[string][]string{
		"--ip: \"ten\" is not an IP address":                                             {"--network", "a", "--ip", "ten"},
		"conflicting options: cannot specify both --ip and per-network IPv4 address":     {"--network", "name=a,ip=10.0.0.2", "--ip", "10.0.0.3"},
		"conflicting options: cannot specify both --network-alias and per-network alias": {"--network", "name=a,alias=b", "--network-alias", "c"},
		"--network a: the fields are name, alias and ip":                                 {"--network", "name=a,driver-opt=x=y"},
		"--env-file: open /nonexistent: no such file or directory":                       {"--network", "a", "--env-file", "/nonexistent"},
		`a command needs a network: give --network NAME ("ovnd network ls" lists them)`:  nil,
	} {
		got := ovndCommand(t, append(append([]string{"run"}, args...), "true")...)
		got.want(t, "", "ovnd: "+want+"\n\nRun 'ovnd run --help' for more information\n", 125)
	}
}

func TestRunEnvironment(t *testing.T) {
	t.Setenv("FROM_CALLER", "1")
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("# comment\nA=file\nB=file\nFROM_CALLER\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := runFlags{envFiles: []string{file}, env: opts.NewListOpts(opts.ValidateEnv)}
	for _, v := range []string{"B=flag", "FROM_CALLER", "NOT_THERE", "EMPTY="} {
		if err := f.env.Set(v); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.environment()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"A=file", "B=file", "FROM_CALLER=1", "B=flag", "FROM_CALLER=1", "EMPTY="}; !slices.Equal(got, want) {
		t.Errorf("environment %q, want %q", got, want)
	}
}
