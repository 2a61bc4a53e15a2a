package cluster

import (
	"context"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/v2/daemon/cluster/convert"
	"github.com/moby/moby/v2/daemon/server/swarmbackend"
	swarmapi "github.com/moby/swarmkit/v2/api"
)

// Secrets and configs go straight through the control API: managers keep them
// for the nodes of the swarm that run services.

// GetSecrets lists secrets, without their data.
func (c *Cluster) GetSecrets(opts swarmbackend.SecretListOptions) ([]swarm.Secret, error) {
	accepted := map[string]bool{"names": true, "name": true, "id": true, "label": true}
	if err := opts.Filters.Validate(accepted); err != nil {
		return nil, err
	}
	f := &swarmapi.ListSecretsRequest_Filters{
		Names:        opts.Filters.Get("names"),
		NamePrefixes: opts.Filters.Get("name"),
		IDPrefixes:   opts.Filters.Get("id"),
		Labels:       labelFilters(opts.Filters.Get("label")),
	}
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) ([]swarm.Secret, error) {
		resp, err := ctl.ListSecrets(ctx, &swarmapi.ListSecretsRequest{Filters: f})
		if err != nil {
			return nil, err
		}
		out := make([]swarm.Secret, 0, len(resp.Secrets))
		for _, s := range resp.Secrets {
			out = append(out, convert.SecretFromGRPC(s))
		}
		return out, nil
	})
}

// CreateSecret stores a secret and returns its ID.
func (c *Cluster) CreateSecret(spec swarm.SecretSpec) (string, error) {
	s := convert.SecretSpecToGRPC(spec)
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (string, error) {
		resp, err := ctl.CreateSecret(ctx, &swarmapi.CreateSecretRequest{Spec: &s})
		if err != nil {
			return "", err
		}
		return resp.Secret.ID, nil
	})
}

// RemoveSecret removes the secret with this ID, name or unique ID prefix.
func (c *Cluster) RemoveSecret(input string) error {
	_, err := onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.RemoveSecretResponse, error) {
		s, err := findSecret(ctx, ctl, input)
		if err != nil {
			return nil, err
		}
		return ctl.RemoveSecret(ctx, &swarmapi.RemoveSecretRequest{SecretID: s.ID})
	})
	return err
}

// GetSecret returns a secret, without its data.
func (c *Cluster) GetSecret(input string) (swarm.Secret, error) {
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (swarm.Secret, error) {
		s, err := findSecret(ctx, ctl, input)
		if err != nil {
			return swarm.Secret{}, err
		}
		return convert.SecretFromGRPC(s), nil
	})
}

// UpdateSecret changes a secret's labels, all that may change.
func (c *Cluster) UpdateSecret(input string, version uint64, spec swarm.SecretSpec) error {
	sp := convert.SecretSpecToGRPC(spec)
	_, err := onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.UpdateSecretResponse, error) {
		s, err := findSecret(ctx, ctl, input)
		if err != nil {
			return nil, err
		}
		return ctl.UpdateSecret(ctx, &swarmapi.UpdateSecretRequest{
			SecretID:      s.ID,
			SecretVersion: &swarmapi.Version{Index: version},
			Spec:          &sp,
		})
	})
	return err
}

// GetConfigs lists configs.
func (c *Cluster) GetConfigs(opts swarmbackend.ConfigListOptions) ([]swarm.Config, error) {
	accepted := map[string]bool{"name": true, "id": true, "label": true}
	if err := opts.Filters.Validate(accepted); err != nil {
		return nil, err
	}
	f := &swarmapi.ListConfigsRequest_Filters{
		NamePrefixes: opts.Filters.Get("name"),
		IDPrefixes:   opts.Filters.Get("id"),
		Labels:       labelFilters(opts.Filters.Get("label")),
	}
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) ([]swarm.Config, error) {
		resp, err := ctl.ListConfigs(ctx, &swarmapi.ListConfigsRequest{Filters: f})
		if err != nil {
			return nil, err
		}
		out := make([]swarm.Config, 0, len(resp.Configs))
		for _, s := range resp.Configs {
			out = append(out, convert.ConfigFromGRPC(s))
		}
		return out, nil
	})
}

// CreateConfig stores a config and returns its ID.
func (c *Cluster) CreateConfig(spec swarm.ConfigSpec) (string, error) {
	s := convert.ConfigSpecToGRPC(spec)
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (string, error) {
		resp, err := ctl.CreateConfig(ctx, &swarmapi.CreateConfigRequest{Spec: &s})
		if err != nil {
			return "", err
		}
		return resp.Config.ID, nil
	})
}

// RemoveConfig removes the config with this ID, name or unique ID prefix.
func (c *Cluster) RemoveConfig(input string) error {
	_, err := onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.RemoveConfigResponse, error) {
		s, err := findConfig(ctx, ctl, input)
		if err != nil {
			return nil, err
		}
		return ctl.RemoveConfig(ctx, &swarmapi.RemoveConfigRequest{ConfigID: s.ID})
	})
	return err
}

// GetConfig returns a config.
func (c *Cluster) GetConfig(input string) (swarm.Config, error) {
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (swarm.Config, error) {
		s, err := findConfig(ctx, ctl, input)
		if err != nil {
			return swarm.Config{}, err
		}
		return convert.ConfigFromGRPC(s), nil
	})
}

// UpdateConfig changes a config's labels, all that may change.
func (c *Cluster) UpdateConfig(input string, version uint64, spec swarm.ConfigSpec) error {
	sp := convert.ConfigSpecToGRPC(spec)
	_, err := onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.UpdateConfigResponse, error) {
		s, err := findConfig(ctx, ctl, input)
		if err != nil {
			return nil, err
		}
		return ctl.UpdateConfig(ctx, &swarmapi.UpdateConfigRequest{
			ConfigID:      s.ID,
			ConfigVersion: &swarmapi.Version{Index: version},
			Spec:          &sp,
		})
	})
	return err
}
