package api

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/v2/daemon/server/httputils"
	"github.com/moby/moby/v2/daemon/server/router"
)

// missing says, by the first element of its path, why a part of Docker's API
// is not here.
var missing = map[string]string{
	"auth":         "registries",
	"build":        "image builds",
	"commit":       "images",
	"distribution": "registries",
	"grpc":         "image builds",
	"images":       "images",
	"plugins":      "plugins",
	"session":      "image builds",
	"system":       "disk usage",
	"volumes":      "volumes",
}

// missingOfContainers says, by the last element of its path, why a call about
// containers is not here, and what to do instead.
var missingOfContainers = map[string]string{
	"create":  "ovnd creates no containers: start a process with `ovnd run`, or a service with `service create`",
	"start":   "ovnd cannot start a container again: `service update --force` starts the tasks of a service anew, `ovnd run` a process",
	"restart": "ovnd cannot restart a container: `service update --force` starts the tasks of a service anew, and a task that is stopped is replaced",
	"rename":  "ovnd cannot rename a container: name a process with `ovnd run --name`",
	"update":  "ovnd cannot limit a running container: set what a task may use with `service update`",
	"pause":   "ovnd cannot pause a container: stop it, or scale its service to 0",
	"unpause": "ovnd cannot pause a container, so none is paused",
	"export":  "ovnd's containers have no file system of their own to export: they see the node's",
	"archive": "ovnd's containers have no file system of their own to copy from or to: they see the node's files",
	"changes": "ovnd's containers have no file system of their own to compare: they see the node's",
	"stats":   "ovnd does not measure containers one by one: see `docker top` for processes, `ovnd status` for traffic",
	"ws":      "ovnd has no attach over websocket: use POST /containers/NAME/attach",
	"resize":  "ovnd cannot resize a container's own terminal: use exec -it, whose terminal follows",
	"prune":   "ovnd keeps no stopped containers to prune: they go with their task",
}

// missingContainers is told of any other call about containers.
const missingContainers = "ovnd does not have this call of containers: it has ps, inspect, logs, top, exec, attach, stop, kill and wait"

// missingRoutes cover the parts of Docker's API that ovnd does not have. What
// `docker inspect NAME` asks on its way to a network or node is answered with
// "not found", since every other status would end the search; `docker ps` gets
// a list, which is empty, where there are no containers.
func missingRoutes() []router.Route {
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete}
	list := slices.Grow([]router.Route{
		router.NewGetRoute("/containers/json", noContainers),
		router.NewGetRoute("/containers/{name:.*}/json", notFound("No such container: %s")),
		router.NewGetRoute("/images/json", refuse("images")),
		router.NewGetRoute("/images/{name:.*}/json", notFound("No such image: %s")),
		router.NewGetRoute("/volumes/{name:.+}", notFound("get %s: no such volume")),
		router.NewGetRoute("/plugins/{name:.+}/json", notFound("plugin %q not found")),
		router.NewGetRoute("/distribution/{name:.*}/json", noDigest),
	}, 2*len(methods)*(len(missing)+2))
	for _, method := range methods {
		for name := range missing {
			list = append(list,
				router.NewRoute(method, "/"+name, refuse(name)),
				router.NewRoute(method, "/"+name+"/{rest:.*}", refuse(name)))
		}
		list = append(list,
			router.NewRoute(method, "/containers/{rest:.*}", refuseContainer(method)),
			router.NewRoute(method, "/exec/{rest:.*}", refuseContainer(method)))
	}
	return list
}

// refuseContainer refuses what is about containers and not served.
func refuseContainer(method string) httputils.APIFunc {
	return func(_ context.Context, _ http.ResponseWriter, _ *http.Request, vars map[string]string) error {
		message, ok := missingOfContainers[path.Base(vars["rest"])]
		switch {
		case method == http.MethodDelete:
			message = "ovnd forgets a container with its task: scale or remove the service, or stop the process"
		case !ok:
			message = missingContainers
		}
		return cerrdefs.ErrNotImplemented.WithMessage(message)
	}
}

// noDigest answers what the docker CLI asks before it creates a service. There
// is no registry: without a digest the CLI takes the image as it was given,
// while to an error it answers with a warning about registries.
func noDigest(_ context.Context, w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
	return httputils.WriteJSON(w, http.StatusOK, registry.DistributionInspect{})
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
