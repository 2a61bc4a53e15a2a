package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/bench/report"
)

// Names of the metrics of a cross-check.
const (
	byIPerf3 = "iperf3"
	byOurs   = "own"
	share    = "own_to_iperf3"
)

// iperf3 has one TCP flow measured by iperf3, right after our own generator has.
func iperf3() test {
	return test{
		name: testCrossName, title: "TCP, one flow, by iperf3 and by ovnd's own generator",
		metrics: []report.Metric{
			{Name: byIPerf3, Title: "iperf3", Unit: "Gbit/s", Better: report.HigherIsBetter},
			{Name: byOurs, Title: "own", Unit: "Gbit/s", Better: report.HigherIsBetter},
			{Name: share, Title: "own ÷ iperf3", Unit: "ratio", Better: report.Informative},
		},
		measure: func(ctx context.Context, m *measurement) (report.Round, error) { return m.iperf3(ctx) },
		skip: func(p *plane) string {
			if p.setup.verify {
				return "iperf3's bytes cannot be verified"
			}
			return ""
		},
	}
}

func (m *measurement) iperf3(ctx context.Context) (round report.Round, err error) {
	own, err := m.bulk(ctx, 1, 0)
	if err != nil {
		return round, err
	}
	theirs, err := m.runIPerf3(ctx)
	if err != nil {
		return round, fmt.Errorf("iperf3: %w", err)
	}
	round.Values = map[string]float64{byIPerf3: theirs, byOurs: own.Values[throughput], share: own.Values[throughput] / theirs}
	return round, nil
}

// runIPerf3 returns the Gbit/s that iperf3's receiver saw in about the window.
func (m *measurement) runIPerf3(ctx context.Context) (float64, error) {
	p := m.plane
	listen := p.ends[1].bind.Addr()
	server := exec.Command("iperf3", "--server", "--one-off", "--bind", listen.String(), "--port", strconv.Itoa(iperf3Port))
	var said tail
	server.Stdout, server.Stderr = &said, &said
	s, err := p.ends[1].host.Launch(server)
	if err != nil {
		return 0, err
	}
	defer s.Kill()
	if err := m.listening(ctx, s); err != nil {
		return 0, fmt.Errorf("server: %w%s", err, &said)
	}
	seconds := int(max(math.Round(m.window.Seconds()), 1))
	client := exec.Command("iperf3", "--client", p.ends[1].addr.Addr().String(), "--port", strconv.Itoa(iperf3Port),
		"--omit", "1", "--time", strconv.Itoa(seconds), "--congestion", p.setup.congestion, "--json")
	var out bytes.Buffer
	client.Stdout = &out
	c, err := p.ends[0].host.Launch(client)
	if err != nil {
		return 0, err
	}
	defer c.Kill()
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(seconds+1)*time.Second+childPatience, errors.New("does not end"))
	defer cancel()
	select {
	case <-c.Done():
	case <-p.lost.Done():
		return 0, p.cause(ctx)
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	var result struct {
		Error string
		End   struct {
			SumReceived struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		return 0, err
	}
	if result.Error != "" || result.End.SumReceived.BitsPerSecond == 0 {
		return 0, errors.New("no result: " + result.Error)
	}
	return result.End.SumReceived.BitsPerSecond / 1e9, nil
}

// listening waits until a process listens: connecting to find out would be the
// one client that iperf3 serves.
func (m *measurement) listening(ctx context.Context, p *lab.Process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, childPatience, errors.New("does not listen"))
	defer cancel()
	for !listens(p, iperf3Port) {
		if err := m.wait(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// listens reports whether a process's network namespace has a TCP socket that
// listens at a port, by proc_pid_net(5).
func listens(p *lab.Process, port uint16) bool {
	const listen = "0A" // TCP_LISTEN
	for _, family := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.Pid(), family))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) > 3 && fields[3] == listen && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				return true
			}
		}
	}
	return false
}
