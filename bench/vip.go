package bench

import (
	"context"

	"github.com/ovnd/ovnd/bench/report"
)

// DefaultVIPTests are the tests of services, unless others are asked for.
var DefaultVIPTests = []string{TestTCP, TestTCPMany, TestConnect, TestUDP, TestRTT}

// VIPSubjects are the ways by a VIP.
var VIPSubjects = []string{OvndVIP, OvndVIPVia}

// RunVIP measures both ways by a service's VIP, direct and by the proxy, beside
// the one between two sandboxes of one node without a VIP, to which they are
// compared. Subjects of cfg do not count.
// Otherwise it is RunPath.
func RunVIP(ctx context.Context, cfg PathConfig) (*report.Report, error) {
	if len(cfg.Tests) == 0 {
		cfg.Tests = DefaultVIPTests
	}
	cfg.Subjects = VIPSubjects
	cfg.Baselines = append([]string{OvndLocal}, cfg.Baselines...)
	return runPlanes(ctx, "vip", cfg)
}
