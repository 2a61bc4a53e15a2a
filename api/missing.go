package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/v2/daemon/server/httputils"
	"github.com/moby/moby/v2/daemon/server/router"
)

// missing says, by the first element of its path, why a part of Docker's API
// is not here.
var missing = map[string]string{
	"auth":         "registries",
	"build":        "image builds",
	"commit":       "images",
	"containers":   "containers: processes are started with `ovnd run`",
	"distribution": "registries",
	"exec":         "containers: processes are started with `ovnd run`",
	"grpc":         "image builds",
	"images":       "images",
	"plugins":      "plugins",
	"session":      "image builds",
	"system":       "disk usage",
	"volumes":      "volumes",
}

// missingRoutes cover the parts of Docker's API that ovnd does not have. What
// `docker inspect NAME` asks on its way to a network or node is answered with
// "not found", since every other status would end the search; `docker ps` gets
// a list, which is empty.
func missingRoutes() []router.Route {
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete}
	list := slices.Grow([]router.Route{
		router.NewGetRoute("/containers/json", noContainers),
		router.NewGetRoute("/containers/{name:.*}/json", notFound("No such container: %s")),
		router.NewGetRoute("/images/json", refuse("images")),
		router.NewGetRoute("/images/{name:.*}/json", notFound("No such image: %s")),
		router.NewGetRoute("/volumes/{name:.+}", notFound("get %s: no such volume")),
		router.NewGetRoute("/plugins/{name:.+}/json", notFound("plugin %q not found")),
	}, 2*len(methods)*len(missing))
	for name := range missing {
		for _, method := range methods {
			list = append(list,
				router.NewRoute(method, "/"+name, refuse(name)),
				router.NewRoute(method, "/"+name+"/{rest:.*}", refuse(name)))
		}
	}
	return list
}

func noContainers(_ context.Context, w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
	return httputils.WriteJSON(w, http.StatusOK, []container.Summary{})
}

func notFound(format string) httputils.APIFunc {
	return func(_ context.Context, _ http.ResponseWriter, _ *http.Request, vars map[string]string) error {
		return cerrdefs.ErrNotFound.WithMessage(fmt.Sprintf(format, vars["name"]))
	}
}

func refuse(name string) httputils.APIFunc {
	return func(context.Context, http.ResponseWriter, *http.Request, map[string]string) error {
		return cerrdefs.ErrNotImplemented.WithMessage("ovnd does not have " + missing[name])
	}
}
