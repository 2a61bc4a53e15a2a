package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/v2/daemon/server/httputils"
	"github.com/moby/moby/v2/daemon/server/router"
)

// errConnect is what `docker network connect` is told.
var errConnect = cerrdefs.ErrNotImplemented.WithMessage("ovnd cannot connect or disconnect a running process: its networks are those of `ovnd run --network`")

// networkAPI serves /networks.
type networkAPI struct {
	backend NetworkBackend
	log     *slog.Logger
}

func networkRoutes(cfg Config) []router.Route {
	a := &networkAPI{backend: cfg.Networks, log: cfg.Log}
	return []router.Route{
		router.NewGetRoute("/networks", a.list),
		router.NewGetRoute("/networks/", a.list),
		router.NewGetRoute("/networks/{id:.+}", a.inspect),
		router.NewPostRoute("/networks/create", a.create),
		router.NewPostRoute("/networks/prune", a.prune),
		router.NewPostRoute("/networks/{id:.+}/connect", a.connect),
		router.NewPostRoute("/networks/{id:.+}/disconnect", a.connect),
		router.NewDeleteRoute("/networks/{id:.+}", a.remove),
	}
}

func (a *networkAPI) list(ctx context.Context, w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	match, err := networkFilter(r.URL.Query().Get("filters"))
	if err != nil {
		return err
	}
	nets, err := a.backend.GetNetworks(ctx)
	if err != nil {
		return err
	}
	list := make([]network.Summary, 0, len(nets))
	for _, n := range nets {
		snap, self := a.backend.Snapshot(n.ID)
		if match(n, hasEndpoints(snap, self)) {
			list = append(list, network.Summary{Network: n})
		}
	}
	return httputils.WriteJSON(w, http.StatusOK, list)
}

// networkFilter reads the filters of a network list. The match it returns
// takes a network and whether this node has sandboxes on it.
func networkFilter(param string) (match func(n network.Network, used bool) bool, err error) {
	f, err := parseFilters(param, "dangling", "driver", "id", "label", "name", "scope", "type")
	if err != nil {
		return nil, err
	}
	dangling, byUse, err := f.one("dangling")
	if err != nil {
		return nil, err
	}
	wantUsed := false
	switch dangling {
	case "", "1", "true":
	case "0", "false":
		wantUsed = true
	default:
		return nil, invalid(`invalid value for filter 'dangling': must be "true" (or "1"), or "false" (or "0")`)
	}
	for _, t := range f["type"] {
		if t != "builtin" && t != "custom" {
			return nil, invalid("invalid value for filter 'type': must be 'builtin' or 'custom'")
		}
	}
	name, id := f.matcher("name"), f.matcher("id")
	return func(n network.Network, used bool) bool {
		return f.exact("driver", n.Driver) && name(n.Name) && id(n.ID) &&
			f.labels("label", n.Labels) && f.exact("scope", n.Scope) &&
			f.exact("type", "custom") && // there are no bridge, host or none here
			(!byUse || used == wantUsed)
	}, nil
}

func (a *networkAPI) inspect(ctx context.Context, w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	query := r.URL.Query()
	verbose := false
	if v := query.Get("verbose"); v != "" {
		var err error
		if verbose, err = strconv.ParseBool(v); err != nil {
			return invalid("invalid value for verbose: %q", v)
		}
	}
	n, err := a.find(ctx, vars["id"])
	if err != nil {
		return err
	}
	if scope := query.Get("scope"); scope != "" && scope != n.Scope {
		return noSuchNetwork(vars["id"])
	}
	snap, self := a.backend.Snapshot(n.ID)
	out := inspectNetwork(n, snap, self, verbose)
	if verbose {
		out.Sealing = a.backend.Sealing(n.ID)
	}
	return httputils.WriteJSON(w, http.StatusOK, out)
}

// find resolves what a user calls a network: its ID, else its name, else the
// beginning of its ID, which must be that of one network only.
func (a *networkAPI) find(ctx context.Context, term string) (network.Network, error) {
	nets, err := a.backend.GetNetworks(ctx)
	if err != nil {
		return network.Network{}, err
	}
	return findNetwork(nets, term)
}

func findNetwork(nets []network.Network, term string) (network.Network, error) {
	var named, prefixed []network.Network
	for _, n := range nets {
		switch {
		case n.ID == term:
			return n, nil
		case n.Name == term:
			named = append(named, n)
		case term != "" && strings.HasPrefix(n.ID, term):
			prefixed = append(prefixed, n)
		}
	}
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(named) > 1:
		return network.Network{}, invalid("network %s is ambiguous (%d matches found based on name)", term, len(named))
	case len(prefixed) == 1:
		return prefixed[0], nil
	case len(prefixed) > 1:
		return network.Network{}, invalid("network %s is ambiguous (%d matches found based on ID prefix)", term, len(prefixed))
	}
	return network.Network{}, noSuchNetwork(term)
}

func noSuchNetwork(term string) error {
	return cerrdefs.ErrNotFound.WithMessage(fmt.Sprintf("network %s not found", term))
}

func (a *networkAPI) create(ctx context.Context, w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	req, err := readCreateRequest(r)
	if err != nil {
		return err
	}
	// A node that cannot list, such as a worker, says so in CreateNetwork, and
	// two requests at once are told apart there too.
	if nets, err := a.backend.GetNetworks(ctx); err == nil &&
		slices.ContainsFunc(nets, func(n network.Network) bool { return n.Name == req.Name }) {
		return cerrdefs.ErrConflict.WithMessage(fmt.Sprintf("network with name %s already exists", req.Name))
	}
	id, warning, err := a.backend.CreateNetwork(ctx, req)
	if err != nil {
		return err
	}
	return httputils.WriteJSON(w, http.StatusCreated, network.CreateResponse{ID: id, Warning: warning})
}

// createRequest is network.CreateRequest with addresses as text, so that a bad
// one is reported in Docker's words rather than in those of a JSON decoder.
type createRequest struct {
	network.CreateRequest
	IPAM *struct {
		Driver  string
		Options map[string]string
		Config  []ipamConfig
	}
}

type ipamConfig struct {
	Subnet, IPRange, Gateway string
	AuxAddress               map[string]string `json:"AuxiliaryAddresses"`
}

func readCreateRequest(r *http.Request) (network.CreateRequest, error) {
	var raw createRequest
	if err := httputils.ReadJSON(r, &raw); err != nil {
		return network.CreateRequest{}, err
	}
	req := raw.CreateRequest
	if strings.TrimSpace(req.Name) == "" {
		return network.CreateRequest{}, invalid("invalid name: name is empty")
	}
	if raw.IPAM == nil {
		return req, nil
	}
	req.IPAM = &network.IPAM{Driver: raw.IPAM.Driver, Options: raw.IPAM.Options}
	var errs []error
	for _, c := range raw.IPAM.Config {
		cfg, err := c.parse()
		req.IPAM.Config = append(req.IPAM.Config, cfg)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return network.CreateRequest{}, invalid("invalid network config:\n%w", err)
	}
	return req, nil
}

// parse returns the configuration with its addresses as they were given, bits
// behind the prefix included, and all of its errors together.
func (c ipamConfig) parse() (network.IPAMConfig, error) {
	var errs []error
	prefix := func(what, s string) netip.Prefix {
		p, err := netip.ParsePrefix(s)
		if s != "" && err != nil {
			errs = append(errs, fmt.Errorf("invalid %s %s: invalid CIDR block notation", what, s))
		}
		return p
	}
	addr := func(what, s string) netip.Addr {
		a, err := netip.ParseAddr(s)
		if s != "" && err != nil {
			errs = append(errs, fmt.Errorf("invalid %s %s: invalid address", what, s))
		}
		return a
	}
	cfg := network.IPAMConfig{
		Subnet:  prefix("subnet", c.Subnet),
		IPRange: prefix("ip-range", c.IPRange),
		Gateway: addr("gateway", c.Gateway),
	}
	for name, s := range c.AuxAddress {
		if cfg.AuxAddress == nil {
			cfg.AuxAddress = map[string]netip.Addr{}
		}
		cfg.AuxAddress[name] = addr("auxiliary address "+name, s)
	}
	return cfg, errors.Join(errs...)
}

func (a *networkAPI) remove(ctx context.Context, w http.ResponseWriter, _ *http.Request, vars map[string]string) error {
	n, err := a.find(ctx, vars["id"])
	if err != nil {
		return err
	}
	if err := a.backend.RemoveNetwork(ctx, n.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// prune removes the networks that nothing uses. Only the swarm knows which
// those are: it refuses to remove the others.
func (a *networkAPI) prune(ctx context.Context, w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	match, err := pruneFilter(r.URL.Query().Get("filters"), time.Now())
	if err != nil {
		return err
	}
	nets, err := a.backend.GetNetworks(ctx)
	if err != nil {
		return err
	}
	report := network.PruneReport{NetworksDeleted: []string{}}
	for _, n := range nets {
		if n.Ingress || !match(n) {
			continue
		}
		err := a.backend.RemoveNetwork(ctx, n.ID)
		switch {
		case err == nil:
			report.NetworksDeleted = append(report.NetworksDeleted, n.Name)
		case cerrdefs.IsUnavailable(err) || ctx.Err() != nil:
			return err // no manager here: the next network would fare no better
		case !strings.Contains(err.Error(), "is in use"):
			a.log.Warn("network not pruned", "network", n.Name, "err", err)
		}
	}
	return httputils.WriteJSON(w, http.StatusOK, report)
}

func pruneFilter(param string, now time.Time) (match func(network.Network) bool, err error) {
	f, err := parseFilters(param, "label", "label!", "until")
	if err != nil {
		return nil, err
	}
	var before time.Time
	if s, ok, err := f.one("until"); err != nil {
		return nil, err
	} else if ok {
		if before, err = parseTime(s, now); err != nil {
			return nil, invalid("invalid filter 'until': %w", err)
		}
	}
	return func(n network.Network) bool {
		return f.labels("label", n.Labels) &&
			(len(f["label!"]) == 0 || !f.labels("label!", n.Labels)) &&
			(before.IsZero() || !n.Created.After(before))
	}, nil
}

func (a *networkAPI) connect(_ context.Context, _ http.ResponseWriter, r *http.Request, _ map[string]string) error {
	var body json.RawMessage
	if err := httputils.ReadJSON(r, &body); err != nil {
		return err
	}
	return errConnect
}
