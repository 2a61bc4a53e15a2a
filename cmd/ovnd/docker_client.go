package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
)

// hostImage is the image of a program that has no image's name: the program
// comes first among the arguments.
const hostImage = "host"

// A serviceClient is Docker's client as Docker's own commands get it here. It
// asks no registry, takes paths for images, and ends a wait for tasks that can
// never run. It serves one command.
type serviceClient struct {
	client.APIClient
	before []string // IDs of the tasks that an updated service had
}

// ServiceCreate implements client.ServiceAPIClient.
func (s *serviceClient) ServiceCreate(ctx context.Context, o client.ServiceCreateOptions) (client.ServiceCreateResult, error) {
	o.QueryRegistry, o.EncodedRegistryAuth = false, ""
	if spec := o.Spec.TaskTemplate.ContainerSpec; spec != nil {
		programImage(spec, nil)
	}
	return s.APIClient.ServiceCreate(ctx, o)
}

// ServiceUpdate implements client.ServiceAPIClient.
func (s *serviceClient) ServiceUpdate(ctx context.Context, id string, o client.ServiceUpdateOptions) (client.ServiceUpdateResult, error) {
	o.QueryRegistry, o.EncodedRegistryAuth = false, ""
	if spec := o.Spec.TaskTemplate.ContainerSpec; spec != nil && !isImage(spec.Image) {
		old, err := s.ServiceInspect(ctx, id, client.ServiceInspectOptions{})
		if err != nil {
			return client.ServiceUpdateResult{}, err
		}
		programImage(spec, old.Service.Spec.TaskTemplate.ContainerSpec)
	}
	tasks, err := s.APIClient.TaskList(ctx, client.TaskListOptions{Filters: make(client.Filters).Add("service", id)})
	if err != nil {
		return client.ServiceUpdateResult{}, err
	}
	for _, t := range tasks.Items {
		s.before = append(s.before, t.ID)
	}
	return s.APIClient.ServiceUpdate(ctx, id, o)
}

// TaskList implements client.TaskAPIClient. Docker's commands wait for a
// service by listing its tasks over and over, and would do so for ever where a
// node may not publish the service's port: every task there is rejected.
func (s *serviceClient) TaskList(ctx context.Context, o client.TaskListOptions) (client.TaskListResult, error) {
	res, err := s.APIClient.TaskList(ctx, o)
	if err != nil {
		return res, err
	}
	if _, waiting := o.Filters["_up-to-date"]; !waiting {
		return res, nil
	}
	for _, t := range res.Items {
		if strings.Contains(t.Status.Err, "cannot publish port") && !slices.Contains(s.before, t.ID) {
			return res, fmt.Errorf("%s\nThe service exists, and its tasks are tried again: \"ovnd service rm %s\" ends that", t.Status.Err, s.serviceName(ctx, t.ServiceID))
		}
	}
	return res, nil
}

// serviceName is for a message: where it cannot be had, the ID does too.
func (s *serviceClient) serviceName(ctx context.Context, id string) string {
	res, err := s.ServiceInspect(ctx, id, client.ServiceInspectOptions{})
	if err != nil {
		return id
	}
	return res.Service.Spec.Name
}

func isImage(name string) bool {
	_, err := reference.ParseNormalizedNamed(name)
	return err == nil
}

// programImage rewrites a spec whose image is no image's name, such as a path:
// it becomes the command behind the image `host`. A path from here is made
// absolute, for tasks start elsewhere. If the old spec is of that kind too and
// its arguments were kept, the new program takes the old one's place in them.
func programImage(spec, old *swarm.ContainerSpec) {
	if spec.Image == "" || isImage(spec.Image) {
		return
	}
	program := spec.Image
	if strings.HasPrefix(program, ".") {
		if abs, err := filepath.Abs(program); err == nil {
			program = abs
		}
	}
	spec.Image = hostImage
	if len(spec.Command) > 0 {
		return // --entrypoint is what runs
	}
	args := spec.Args
	if old != nil && isHostImage(old.Image) && len(args) > 0 && slices.Equal(args, old.Args) {
		args = args[1:]
	}
	spec.Args = append([]string{program}, args...)
}

func isHostImage(image string) bool {
	ref, err := reference.ParseNormalizedNamed(image)
	return err == nil && reference.FamiliarName(ref) == hostImage
}
