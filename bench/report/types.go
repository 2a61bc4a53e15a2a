package report

import "time"

// SchemaV1 is what a report of this version has as its schema.
const SchemaV1 = "ovnd-bench/v1"

// A Report is what one run measured.
type Report struct {
	Schema   string   `json:"schema"` // SchemaV1
	Run      Run      `json:"run"`
	Machine  Machine  `json:"machine"`
	Settings Settings `json:"settings"`
	// Subjects are what was measured, in the order in which tables show them.
	Subjects []Subject `json:"subjects"`
	// Benchmarks are in the order in which tables show them. No two have the
	// same group, name and parameters.
	Benchmarks []Benchmark `json:"benchmarks"`
	// Notes are sentences that a reader has to know: what was left out and why,
	// what was simulated, what disturbed the run.
	Notes []string `json:"notes,omitempty"`
}

// A Run says what was run and when.
type Run struct {
	Version string    `json:"version"` // of ovnd: a release or a revision, with "-dirty" when it had changes
	Command string    `json:"command"` // the command line that repeats the run, as a shell takes it
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"` // how long it took
	// Interrupted is set when the run was ended early: later rounds are missing.
	Interrupted bool `json:"interrupted,omitempty"`
}

// A Machine says where a run was made. [ThisMachine] fills it in.
type Machine struct {
	Kernel         string   `json:"kernel"` // release, as uname -r prints it
	Arch           string   `json:"arch"`   // as Go names it: amd64
	CPU            string   `json:"cpu"`    // model
	CPUFeatures    []string `json:"cpu_features,omitempty"`
	Cores          int      `json:"cores"`        // processors this process may run on
	MemoryBytes    uint64   `json:"memory_bytes"` // in all
	Governor       string   `json:"governor,omitempty"`
	Virtualization string   `json:"virtualization,omitempty"` // hypervisor or container, "none" on bare metal
	Go             string   `json:"go"`
	UID            int      `json:"uid"` // of the user who ran it
	// LoadBefore and LoadAfter are the load averages over one minute at the
	// start and at the end: the start's says whether the machine was idle.
	LoadBefore float64 `json:"load_before"`
	LoadAfter  float64 `json:"load_after"`
}

// Settings say how all of a run was made. What differs between its benchmarks
// (an MTU, a number of workers) is a parameter of theirs instead.
type Settings struct {
	Rounds        int      `json:"rounds"`
	WindowSeconds float64  `json:"window_seconds"` // that is measured in each round
	WarmupSeconds float64  `json:"warmup_seconds,omitempty"`
	MTU           int      `json:"mtu,omitempty"`      // of the underlay
	Underlay      string   `json:"underlay,omitempty"` // "ipv4" or "ipv6"
	Congestion    string   `json:"congestion_control,omitempty"`
	Offloads      []string `json:"offloads,omitempty"` // of the underlay's and the overlay's devices, those that are on: "tso", "gro", "usoxmit"
	Generator     string   `json:"generator,omitempty"`
	// Integrity is set when every byte that arrived was compared with what was
	// sent: figures of such a run are not to be compared with others.
	Integrity bool `json:"integrity,omitempty"`
}

// Kinds of subjects.
const (
	KindOvnd   = "ovnd"   // what this project makes
	KindKernel = "kernel" // never leaves the kernel: an upper bound
	KindPeer   = "peer"   // another program in user space
)

// A Subject is something that is measured beside others.
type Subject struct {
	Name    string `json:"name"`            // without blanks, "/" or "=": "ovnd-chacha20-poly1305", "wireguard-go"
	Title   string `json:"title,omitempty"` // for people; the name when empty
	Kind    string `json:"kind"`            // KindOvnd, KindKernel or KindPeer
	Version string `json:"version,omitempty"`
	MTU     int    `json:"mtu,omitempty"` // inside it
	// Baseline is set for what others are compared with. Ratios are shown of
	// every other subject to each baseline.
	Baseline bool `json:"baseline,omitempty"`
	// Sealed is set when it encrypts and authenticates.
	Sealed bool `json:"sealed,omitempty"`
}

// A Benchmark is one kind of load, put on several subjects.
type Benchmark struct {
	Group string `json:"group"` // "path", "encap", "vip", "dns", "scale"
	Name  string `json:"name"`  // without blanks, "/" or "=": "tcp1"
	Title string `json:"title"` // for people: "TCP, one flow"
	// Params are what the load depends on, by name: "size": "64", "workers":
	// "2". Neither names nor values have blanks, "/" or "=".
	Params map[string]string `json:"params,omitempty"`
	// Varies names the parameter that a plot has as its x axis. Benchmarks of
	// one group and name that differ in it alone make one plot.
	Varies  string   `json:"varies,omitempty"`
	Metrics []Metric `json:"metrics"` // the first one is what ratios are made of
	// Simulated says what of it was not real; empty when everything was.
	Simulated string   `json:"simulated,omitempty"`
	Results   []Result `json:"results"`
}

// Directions of metrics.
const (
	HigherIsBetter = "higher"
	LowerIsBetter  = "lower"
	Informative    = "none" // shown, not judged: what was offered
)

// A Metric is what a benchmark measures.
type Metric struct {
	Name   string `json:"name"`            // unique in its benchmark, without blanks, "/" or "=": "throughput"
	Title  string `json:"title,omitempty"` // the head of its column; the unit when empty
	Unit   string `json:"unit"`            // without blanks: "Gbit/s", "s/GB", "µs"
	Better string `json:"better"`          // HigherIsBetter, LowerIsBetter or Informative
	// Exact metrics (allocations, bytes on the wire) have no noise: any
	// difference is one.
	Exact bool `json:"exact,omitempty"`
}

// A Result is what one benchmark gave on one subject.
type Result struct {
	Subject string  `json:"subject"` // a subject's name
	Rounds  []Round `json:"rounds"`  // ascending
	// Summary and Ratios are there for programs that read the JSON. [Report.Write]
	// computes them and [Read] forgets them. Summary has the metrics that were
	// measured, Ratios the baselines, but for the subject itself.
	Summary map[string]Spread `json:"summary,omitempty"`
	Ratios  map[string]Ratio  `json:"ratios,omitempty"`
}

// A Round is one measurement.
type Round struct {
	// Round counts from 0. Results of one benchmark with the same round were
	// made one after the other and are a pair.
	Round int `json:"round"`
	// Values are finite, by the name of their metric. A metric may be missing.
	Values    map[string]float64 `json:"values,omitempty"`
	Latency   *Latency           `json:"latency,omitempty"`
	Intervals []Intervals        `json:"intervals,omitempty"`
	// Failed says why there are no values.
	Failed string `json:"failed,omitempty"`
}

// Latency is a distribution of times, in microseconds, from a histogram of high
// dynamic range. [NewLatency] makes one.
type Latency struct {
	Count  int64   `json:"count"` // of samples, those made by the correction included
	Min    float64 `json:"min"`
	Mean   float64 `json:"mean"`
	Max    float64 `json:"max"`
	StdDev float64 `json:"stddev"`
	// Percentiles ascend in both fields, from the median to 100.
	Percentiles []Percentile `json:"percentiles"`
	// ExpectedInterval is the time between two requests, in microseconds, that
	// the distribution was corrected with for coordinated omission: a request
	// that waited behind a late one counts from when it was due. 0: not
	// corrected, because requests never wait for answers.
	ExpectedInterval float64 `json:"expected_interval,omitempty"`
	// Lost is how many requests had no answer. They are not in the distribution.
	Lost int64 `json:"lost,omitempty"`
}

// A Percentile says that a share of all times was no longer than Value.
type Percentile struct {
	Percent float64 `json:"percent"` // 50 is the median
	Value   float64 `json:"value"`   // microseconds
}

// Intervals are what a metric was in equal parts of the window, one after the
// other.
type Intervals struct {
	Metric  string    `json:"metric"`  // its name
	Seconds float64   `json:"seconds"` // length of each interval
	Values  []float64 `json:"values"`
}
