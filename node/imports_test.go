package node

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ovnd/ovnd/"

// mayImportOutside says which packages alone may import these modules, and
// all below them: the control plane stays out of the packet's way.
var mayImportOutside = map[string]string{
	"github.com/moby/swarmkit/":                  "cluster",
	"github.com/moby/moby/v2/daemon/libnetwork/": "cluster discovery",
	"github.com/moby/moby/v2/daemon/cluster/":    "cluster",
	"github.com/moby/moby/v2/daemon/server":      "api cluster node",
	"github.com/moby/moby/api/":                  "api api/client api/types cluster cmd/ovnd node",
	"github.com/moby/moby/client":                "api/client cmd/ovnd",
	"github.com/hashicorp/":                      "discovery",
	"golang.zx2c4.com/wireguard/":                "bench crypto dataplane/tun",
	"github.com/flynn/noise":                     "crypto",
	"gonum.org/v1/plot":                          "bench/report",
	"gvisor.dev/gvisor/":                         "netstack",
	"github.com/spf13/":                          "cmd/ovnd",
	"github.com/vishvananda/netlink":             "bench/lab dataplane/tun doctor sandbox",
}

// mayImport is the import policy inside the module, read from the table in
// ARCHITECTURE.md: an edge that is not written there must not exist.
func mayImport(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	policy := make(map[string][]string)
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		pkg := strings.Trim(cells[1], " `")
		policy[pkg] = strings.Fields(strings.NewReplacer("`", "", ",", "", "–", "").Replace(cells[3]))
	}
	if len(policy) < 10 {
		t.Fatalf("ARCHITECTURE.md has an import table of %d packages", len(policy))
	}
	return policy
}

func TestImportsPointDown(t *testing.T) {
	policy := mayImport(t)
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		for _, imported := range fields[1:] {
			checkEdge(t, policy, pkg, imported)
		}
	}
}

func checkEdge(t *testing.T, policy map[string][]string, pkg, imported string) {
	t.Helper()
	if inner, ok := strings.CutPrefix(imported, module); ok {
		allowed, known := policy[pkg]
		if !known {
			t.Errorf("package %s is not in the import policy", pkg)
		} else if !slices.Contains(allowed, inner) {
			t.Errorf("%s imports %s, which the import policy does not allow", pkg, inner)
		}
		return
	}
	for prefix, allowed := range mayImportOutside {
		if strings.HasPrefix(imported, prefix) && !slices.Contains(strings.Fields(allowed), pkg) {
			t.Errorf("%s imports %s, which only %s may", pkg, imported, allowed)
		}
	}
}
