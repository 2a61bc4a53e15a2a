package api

import (
	"context"
	"net/http"
	"os"
	"regexp"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/v2/daemon/server/httputils"
	"github.com/moby/moby/v2/daemon/server/router"

	"github.com/ovnd/ovnd/api/types"
)

// Bounds on what one sandbox may ask for. Aliases travel in the endpoint's
// gossip record, which must fit one NetworkDB message of 1,400 bytes.
const (
	maxAttachNetworks = 64
	maxAliases        = 16
	maxAliasBytes     = 512 // all aliases on one network together
)

var (
	// nameRE is Docker's rule for container names, but that one character is enough.
	nameRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)
	// hostRE is a host name: labels of RFC 1123 §2.1, and underscores, which
	// Docker takes too.
	hostRE = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?)*$`)
)

// maxHostname is the kernel's limit on a host name, in bytes (sethostname(2)).
const maxHostname = 64

// ovndAPI serves /ovnd.
type ovndAPI struct {
	backend  OvndBackend
	networks *networkAPI
}

func ovndRoutes(cfg Config) []router.Route {
	a := &ovndAPI{backend: cfg.Ovnd, networks: &networkAPI{backend: cfg.Networks, log: cfg.Log}}
	return []router.Route{
		router.NewPostRoute("/ovnd/attach", a.attach),
		router.NewPostRoute("/ovnd/release", a.release),
		router.NewGetRoute("/ovnd/status", a.status),
		router.NewPostRoute("/ovnd/down", a.down),
		router.NewGetRoute("/ovnd/networks/{id:.+}/verbose", a.verbose),
	}
}

func (a *ovndAPI) attach(ctx context.Context, w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	var req types.AttachRequest
	if err := httputils.ReadJSON(r, &req); err != nil {
		return err
	}
	if err := CheckAttach(req); err != nil {
		return err
	}
	resp, err := a.backend.Attach(ctx, req)
	if err != nil {
		return err
	}
	return httputils.WriteJSON(w, http.StatusCreated, resp)
}

func (a *ovndAPI) release(_ context.Context, w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	var req types.ReleaseRequest
	if err := httputils.ReadJSON(r, &req); err != nil {
		return err
	}
	if err := a.backend.Release(req); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// CheckAttach checks the form of a request: names, counts, sizes. What it
// names may still not exist.
func CheckAttach(req types.AttachRequest) error {
	switch {
	case req.Name != "" && !nameRE.MatchString(req.Name):
		return invalid("invalid name (%s): 1 to 128 of [a-zA-Z0-9_.-] are allowed, the first a letter or digit", req.Name)
	case req.Hostname != "" && (len(req.Hostname) > maxHostname || !hostRE.MatchString(req.Hostname)):
		return invalid("invalid hostname (%s): up to %d bytes of letters, digits, hyphens and dots are allowed", req.Hostname, maxHostname)
	case len(req.Networks) == 0:
		return invalid("no network given: name at least one with --network")
	case len(req.Networks) > maxAttachNetworks:
		return invalid("%d networks given: a sandbox has at most %d", len(req.Networks), maxAttachNetworks)
	}
	seen := map[string]bool{}
	for _, n := range req.Networks {
		if err := checkAttachNetwork(n); err != nil {
			return err
		}
		if seen[n.Target] {
			return invalid("network %s is given twice", n.Target)
		}
		seen[n.Target] = true
	}
	return nil
}

func checkAttachNetwork(n types.AttachNetwork) error {
	if n.Target == "" {
		return invalid("invalid network: name is empty")
	}
	if n.IP.IsValid() && (n.IP.IsUnspecified() || n.IP.IsMulticast() || n.IP.Zone() != "") {
		return invalid("invalid address %s for network %s: it must be that of one host", n.IP, n.Target)
	}
	if len(n.Aliases) > maxAliases {
		return invalid("%d aliases on network %s: at most %d are allowed", len(n.Aliases), n.Target, maxAliases)
	}
	total := 0
	for _, alias := range n.Aliases {
		if !hostRE.MatchString(alias) {
			return invalid("invalid alias (%s) on network %s: it must be a DNS name", alias, n.Target)
		}
		if total += len(alias); total > maxAliasBytes {
			return invalid("aliases on network %s have more than %d bytes together", n.Target, maxAliasBytes)
		}
	}
	return nil
}

func (a *ovndAPI) status(ctx context.Context, w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
	status, err := a.backend.Status(ctx)
	if err != nil {
		return err
	}
	return httputils.WriteJSON(w, http.StatusOK, status)
}

// down answers first and stops the node then, or the answer would not arrive.
func (a *ovndAPI) down(_ context.Context, w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
	defer a.backend.Down()
	if err := httputils.WriteJSON(w, http.StatusAccepted, types.DownResponse{PID: os.Getpid()}); err != nil {
		return nil // the client has gone, and the status is sent
	}
	_ = http.NewResponseController(w).Flush() // likewise
	return nil
}

func (a *ovndAPI) verbose(ctx context.Context, w http.ResponseWriter, _ *http.Request, vars map[string]string) error {
	n, err := a.networks.find(ctx, vars["id"])
	if err != nil {
		return err
	}
	snap, self := a.networks.backend.Snapshot(n.ID)
	if snap == nil {
		return cerrdefs.ErrNotFound.WithMessage("network " + n.Name + " has no endpoint on this node, which so does not know the others': ask a node that has one")
	}
	out := verboseNetwork(snap, self)
	out.Sealing = a.networks.backend.Sealing(n.ID)
	return httputils.WriteJSON(w, http.StatusOK, out)
}
