package bench

import (
	"context"

	"github.com/ovnd/ovnd/bench/report"
)

// DefaultVIPTests are the tests of services, unless others are asked for.
var DefaultVIPTests = []string{TestTCP, TestTCPMany, TestConnect, TestUDP, TestRTT}

// RunVIP measures the way by a service's VIP beside the direct one between two
// sandboxes of one node, to which it is compared. Subjects of cfg do not count.
// Otherwise it is RunPath.
func RunVIP(ctx context.Context, cfg PathConfig) (*report.Report, error) {
	if len(cfg.Tests) == 0 {
		cfg.Tests = DefaultVIPTests
	}
	cfg.Subjects = []string{OvndVIP}
	cfg.Baselines = append([]string{OvndLocal}, cfg.Baselines...)
	return runPlanes(ctx, "vip", cfg)
}
