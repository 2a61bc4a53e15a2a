// Package packaging tests what ovnd is packaged by: what can be run is run, the
// rest is read as whoever it is for reads it.
package packaging

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/ovnd/ovnd/bench/lab"
)

func TestMain(m *testing.M) {
	lab.Exclusive()
	code := m.Run()
	removeImages()
	os.Exit(code)
}

// documents reads a YAML file, strictly: a key that is there twice is an error.
func documents(t *testing.T, path string) (docs []map[string]any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	for {
		var doc map[string]any
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return docs
		} else if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		docs = append(docs, doc)
	}
}

// at returns what is at a path of keys, nil if nothing is.
func at(v any, keys ...string) any {
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// Each container of ours is asked whether it is ready by `status --wait`, may do
// nothing, and a native sidecar is one.
func TestKubernetes(t *testing.T) {
	files, err := filepath.Glob("kubernetes/*.yaml")
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	found := 0
	for _, file := range files {
		for _, doc := range documents(t, file) {
			if doc["apiVersion"] == nil || at(doc, "metadata", "name") == nil {
				t.Errorf("%s: no object: %v", file, doc)
			}
			pod := at(doc, "spec", "template", "spec")
			for _, kind := range []string{"containers", "initContainers"} {
				for _, c := range list(at(pod, kind)) {
					if at(c, "name") != "ovnd" {
						continue
					}
					found++
					for probe, command := range map[string]string{"startupProbe": "ovnd status --wait=4s", "readinessProbe": "ovnd status --wait=1s", "livenessProbe": "ovnd status"} {
						var got []string
						for _, arg := range list(at(c, probe, "exec", "command")) {
							got = append(got, arg.(string))
						}
						if strings.Join(got, " ") != command {
							t.Errorf("%s: %s is %q", file, probe, got)
						}
					}
					if at(c, "securityContext", "allowPrivilegeEscalation") != false || kind == "initContainers" && at(c, "restartPolicy") != "Always" {
						t.Errorf("%s: %v", file, c)
					}
				}
			}
		}
	}
	if found != 2 {
		t.Errorf("%d containers of ovnd's", found)
	}
}

// The examples have only fields that Kubernetes has. Its types are a module of
// their own, of the test alone.
func TestKubernetesFields(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles Kubernetes' types")
	}
	const module = "kubernetes/check"
	if out, err := exec.Command("go", "-C", module, "mod", "download").CombinedOutput(); err != nil {
		lacking(t, "Kubernetes' types cannot be had here: %v: %s", err, out)
	}
	cmd := exec.Command("go", "-C", module, "test", "-count=1", "./...")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// The unit is one that systemd takes without a word.
func TestSystemdUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze on this machine")
	}
	b, err := os.ReadFile("systemd/ovnd.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Type=notify\n", "WatchdogSec=", "KillMode=process\n", " up --foreground\n"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("the unit has no %q", want)
		}
	}
	unit := filepath.Join(t.TempDir(), "ovnd.service")
	// The program has to be there.
	b = bytes.Replace(b, []byte("%h/.local/bin/ovnd"), []byte("/bin/true"), 1)
	if err := os.WriteFile(unit, b, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(analyze, "verify", "--user", "--man=no", unit)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

// What a release names is there.
func TestReleaseConfiguration(t *testing.T) {
	docs := documents(t, "../.goreleaser.yaml")
	if len(docs) != 1 || docs[0]["version"] != 2 {
		t.Fatalf("%v", docs)
	}
	for _, b := range list(docs[0]["builds"]) {
		if _, err := os.Stat(filepath.Join("..", at(b, "main").(string), "main.go")); err != nil {
			t.Error(err)
		}
	}
	for _, a := range list(docs[0]["archives"]) {
		for _, f := range list(at(a, "files")) {
			if _, err := os.Stat(filepath.Join("..", f.(string))); err != nil {
				t.Error(err)
			}
		}
	}
	if images := list(docs[0]["dockers"]); len(images) != 2 || at(images[1], "goarch") != "arm64" || at(images[1], "dockerfile") != "packaging/Dockerfile" {
		t.Errorf("%v", images)
	}
}
