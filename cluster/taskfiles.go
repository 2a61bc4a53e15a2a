package cluster

import (
	"fmt"
	"io/fs"
	"path"

	"github.com/moby/swarmkit/v2/agent/configs"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/agent/secrets"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/template"
)

// secretsDir is where secrets lie that name no folder.
const secretsDir = "/run/secrets"

// Secrets implements exec.SecretsProvider: the agent puts there what the tasks
// of this node need.
func (e *executor) Secrets() exec.SecretsManager { return e.c.secrets }

// Configs implements exec.ConfigsProvider.
func (e *executor) Configs() exec.ConfigsManager { return e.c.configs }

// taskDeps are the secrets and configs that one task may see.
type taskDeps struct {
	secrets exec.SecretGetter
	configs exec.ConfigGetter
}

// Secrets implements exec.DependencyGetter.
func (d taskDeps) Secrets() exec.SecretGetter { return d.secrets }

// Configs implements exec.DependencyGetter.
func (d taskDeps) Configs() exec.ConfigGetter { return d.configs }

// Volumes implements exec.DependencyGetter; checkTaskSpec refuses volumes.
func (d taskDeps) Volumes() exec.VolumeGetter { return nil }

// taskFiles are a task's secrets and configs, with their templates expanded.
// One that has not arrived is a temporary error: after a restart of the node
// they come with the first message of a manager.
func (e *executor) taskFiles(t *swarmapi.Task) ([]TaskFile, error) {
	spec := t.Spec.GetContainer()
	deps := taskDeps{secrets.Restrict(e.c.secrets, t), configs.Restrict(e.c.configs, t)}
	files := make([]TaskFile, 0, len(spec.Secrets)+len(spec.Configs))
	for _, ref := range spec.Secrets {
		s, err := deps.secrets.Get(ref.SecretID)
		if err != nil {
			return nil, exec.MakeTemporary(err)
		}
		expanded, err := template.ExpandSecretSpec(s, e.nodeDescription(), t, deps)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", ref.SecretName, err)
		}
		files = append(files, taskFile(secretsDir, ref.GetFile(), expanded.Data))
	}
	for _, ref := range spec.Configs {
		c, err := deps.configs.Get(ref.ConfigID)
		if err != nil {
			return nil, exec.MakeTemporary(err)
		}
		expanded, _, err := template.ExpandConfigSpec(c, e.nodeDescription(), t, deps)
		if err != nil {
			return nil, fmt.Errorf("config %s: %w", ref.ConfigName, err)
		}
		files = append(files, taskFile("/", ref.GetFile(), expanded.Data))
	}
	return files, nil
}

func taskFile(dir string, f *swarmapi.FileTarget, data []byte) TaskFile {
	target := f.Name
	if !path.IsAbs(target) {
		target = path.Join(dir, target)
	}
	mode := f.Mode & fs.ModePerm
	if mode == 0 {
		mode = 0o444 // as Docker's command line has it
	}
	return TaskFile{Target: path.Clean(target), Data: data, Mode: mode}
}
