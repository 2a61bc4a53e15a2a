package api

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// listQuery is what a client asked of GET /containers/json.
type listQuery struct {
	all     bool
	limit   int // 0: none
	filters filters
	exited  []int
	task    *bool
	ports   map[string]map[string]bool // of the filters publish and expose: "80/tcp" and so on
}

func parseListQuery(r *http.Request) (listQuery, error) {
	var q listQuery
	query := r.URL.Query()
	q.all = isTrue(query.Get("all"))
	var err error
	if s := query.Get("limit"); s != "" {
		if q.limit, err = strconv.Atoi(s); err != nil {
			return q, invalid("invalid value for limit: %q", s)
		}
	}
	q.filters, err = parseFilters(query.Get("filters"), "ancestor", "before", "exited", "expose", "health", "id", "is-task",
		"label", "name", "network", "publish", "since", "status", "volume")
	if err != nil {
		return q, err
	}
	return q, q.parseTerms()
}

// parseTerms reads the terms that are more than text.
func (q *listQuery) parseTerms() error {
	for _, s := range q.filters["status"] {
		if err := container.ValidateContainerState(container.ContainerState(s)); err != nil {
			return invalid("invalid filter 'status=%s': %w", s, err)
		}
		q.all = true
	}
	for _, s := range q.filters["health"] {
		if err := container.ValidateHealthStatus(container.HealthStatus(s)); err != nil {
			return invalid("invalid filter 'health=%s': %w", s, err)
		}
	}
	for _, s := range q.filters["exited"] {
		code, err := strconv.Atoi(s)
		if err != nil {
			return invalid("invalid filter 'exited=%s': want an exit code", s)
		}
		q.exited = append(q.exited, code)
		q.all = true
	}
	if s, ok, err := q.filters.one("is-task"); err != nil {
		return err
	} else if ok {
		task, err := strconv.ParseBool(s)
		if err != nil {
			return invalid("invalid filter 'is-task=%s': want true or false", s)
		}
		q.task = &task
	}
	q.ports = map[string]map[string]bool{}
	for _, key := range []string{"publish", "expose"} {
		for _, s := range q.filters[key] {
			if err := q.parsePorts(key, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// parsePorts reads "80", "80/udp" or "8000-8080/tcp".
func (q *listQuery) parsePorts(key, s string) error {
	ports, err := network.ParsePortRange(s)
	if err != nil {
		return invalid("invalid filter '%s=%s': %w", key, s, err)
	}
	if q.ports[key] == nil {
		q.ports[key] = map[string]bool{}
	}
	for p := range ports.All() {
		q.ports[key][p.String()] = true
	}
	return nil
}

// isTrue reads a flag of a query, as Docker does: what is not plainly false is true.
func isTrue(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// choose returns the containers asked for, the newest first.
func (q listQuery) choose(list []Container) ([]Container, error) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Container) int { return b.Created.Compare(a.Created) })
	before, after := -1, len(list)
	for _, term := range q.filters["before"] {
		c, err := findContainer(list, term)
		if err != nil {
			return nil, err
		}
		before = max(before, indexOf(list, c.ID))
	}
	for _, term := range q.filters["since"] {
		c, err := findContainer(list, term)
		if err != nil {
			return nil, err
		}
		after = min(after, indexOf(list, c.ID))
	}
	match := q.matcher()
	var out []Container
	for i, c := range list {
		if i > before && i < after && match(c) && (q.limit <= 0 || len(out) < q.limit) {
			out = append(out, c)
		}
	}
	return out, nil
}

func indexOf(list []Container, id string) int {
	return slices.IndexFunc(list, func(c Container) bool { return c.ID == id })
}

func (q listQuery) matcher() func(Container) bool {
	f := q.filters
	name, id := f.matcher("name"), f.matcher("id")
	return func(c Container) bool {
		return (q.all || q.limit > 0 || c.Running()) &&
			(name(c.Name) || name("/"+c.Name)) && id(c.ID) && f.labels("label", c.Labels) &&
			f.exact("status", string(c.State.Status)) && f.exact("health", string(healthStatus(c.State.Health))) &&
			f.some("ancestor", func(term string) bool { return isImage(c.Image, term) }) &&
			f.some("network", func(term string) bool { return onNetwork(c, term) }) &&
			f.some("volume", func(term string) bool { return hasMount(c, term) }) &&
			(q.task == nil || *q.task == c.isTask()) &&
			(len(q.exited) == 0 || c.State.Status == container.StateExited && slices.Contains(q.exited, c.State.Code)) &&
			hasPort(c, q.ports["expose"], func(ContainerPort) bool { return true }) &&
			hasPort(c, q.ports["publish"], func(p ContainerPort) bool { return p.Published != 0 })
	}
}

// isImage reports whether a user who says term means the image: with or
// without its tag, with or without the default tag.
func isImage(image, term string) bool {
	untagged := func(s string) string {
		s, _, _ = strings.Cut(s, "@")
		if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
			return s[:i]
		}
		return s
	}
	return term == image || term == untagged(image) || untagged(image) == image && term == image+":latest"
}

func onNetwork(c Container, term string) bool {
	return slices.ContainsFunc(c.Networks, func(n ContainerNetwork) bool {
		return n.Name == term || n.NetworkID == term || term != "" && strings.HasPrefix(n.NetworkID, term)
	})
}

func hasMount(c Container, term string) bool {
	return slices.ContainsFunc(c.Mounts, func(m container.MountPoint) bool {
		return m.Source == term || m.Destination == term || m.Name != "" && m.Name == term
	})
}

// hasPort reports whether one of the container's ports that count is wanted.
func hasPort(c Container, want map[string]bool, counts func(ContainerPort) bool) bool {
	return want == nil || slices.ContainsFunc(c.Ports, func(p ContainerPort) bool {
		return counts(p) && want[p.name()]
	})
}
