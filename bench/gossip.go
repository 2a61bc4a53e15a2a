package bench

import (
	"math"
	"math/rand/v2"

	"google.golang.org/protobuf/proto"

	"github.com/ovnd/ovnd/bench/report"
	"github.com/ovnd/ovnd/discovery/records"
)

// A model of NetworkDB's gossip on one network, after libnetwork's
// networkdb/cluster.go and memberlist's queue.go:
//
//   - Every gossipInterval each node takes from its queue what fits one packet,
//     what was sent least often first, and sends it to gossipFanout nodes chosen at
//     random.
//   - Something stays in the queue until it was sent in retransmitMult ×
//     ⌈log10(nodes + 1)⌉ intervals.
//   - Who hears of something for the first time queues it too.
//   - Every syncInterval each node sends all it knows to one node chosen at random,
//     and gets all that knows.
//
// No packet is lost, and the nodes' intervals begin together; real ones do not,
// which makes the spread smoother and not slower. Sizes are those of real records
// in their envelopes.
const (
	gossipInterval = 0.2 // seconds
	gossipFanout   = 3
	retransmitMult = 4
	syncInterval   = 30.0 // seconds

	// Bytes around a message: of the compound it is in, and of one UDP packet:
	// IPv4 and UDP headers, memberlist's type and encryption (version, nonce, tag).
	compoundEach  = 4
	packetHeaders = 28 + 1 + 29 + 5
)

func gossipBenchmark() report.Benchmark {
	return report.Benchmark{
		Name: "gossip", Title: "gossip: one endpoint comes; and the regular exchange of all that is known",
		Simulated: "all of it: a model of NetworkDB's gossip with the sizes of real records; no packet is sent",
		Metrics: []report.Metric{
			{Name: "spread", Title: "s until all know", Unit: "s", Better: report.LowerIsBetter},
			{Name: "event", Title: "B/node for it", Unit: "B", Better: report.LowerIsBetter},
			{Name: "sync", Title: "sync kB/s/node", Unit: "kB/s", Better: report.LowerIsBetter},
		},
	}
}

// simulateGossip returns the metrics of a network of that size.
func simulateGossip(endpoints, nodes int) map[string]float64 {
	event := endpointEvents()
	const runs = 5
	var spread, sent float64
	for run := range runs {
		seconds, packets := spreadEvent(nodes, rand.New(rand.NewPCG(uint64(nodes), uint64(run))))
		spread += seconds / runs
		sent += float64(packets) * (packetHeaders + event) / float64(nodes) / runs
	}
	// One exchange begun, and on average one answered, in each interval.
	sync := 2 * event * float64(endpoints) / syncInterval
	return map[string]float64{"spread": spread, "event": sent, "sync": sync / 1e3}
}

// endpointEvents returns the bytes of what is said about one endpoint: its name and
// service, and its place.
func endpointEvents() float64 {
	naming := &records.EndpointRecord{
		Name: "service-123456.7." + scaleID(1, 25), ServiceName: "service-123456", ServiceId: scaleID(1, 25),
		VirtualIp: "10.128.200.200", EndpointIp: "10.100.200.200", TaskAliases: []string{scaleID(1, 12)},
	}
	place := &records.PeerRecord{
		EndpointIp: "10.100.200.200/8", EndpointMac: "02:42:0a:64:c8:c8", TunnelEndpointIp: "198.18.200.200",
	}
	return tableEvent("endpoint_table", naming) + tableEvent("overlay_peer_table", place)
}

// tableEvent returns the bytes of a NetworkDB TableEvent (networkdb.proto) that
// carries a record, in its envelope and with its share of a compound. Each of its
// fields has a tag and a length of one byte; lengths from 128 on take one more.
func tableEvent(table string, record proto.Message) float64 {
	const (
		kind, time              = 2, 5 // varints with their tags
		node, network, key      = 2 + 12, 2 + 25, 2 + 64
		value, envelope, length = 3, 2 + 3, 1
	)
	return float64(kind+time+node+network+2+len(table)+key+value+proto.Size(record)+envelope+length) + compoundEach
}

// spreadEvent lets one node tell something. It returns how long it takes until all
// know, and how many packets have been sent when nobody tells any more.
func spreadEvent(nodes int, random *rand.Rand) (seconds float64, packets int) {
	limit := retransmitMult * int(math.Ceil(math.Log10(float64(nodes+1))))
	left := make([]int, nodes) // how often each will still send it
	known := make([]bool, nodes)
	known[0], left[0] = true, limit
	knowing, telling := 1, 1
	for interval := 1; telling > 0; interval++ {
		var heard []int
		for node := range nodes {
			if left[node] == 0 {
				continue
			}
			if left[node]--; left[node] == 0 {
				telling--
			}
			for range min(gossipFanout, nodes-1) {
				packets++
				to := random.IntN(nodes - 1)
				if to >= node {
					to++
				}
				if !known[to] {
					known[to] = true
					heard = append(heard, to)
				}
			}
		}
		for _, node := range heard {
			left[node] = limit
			knowing++
			telling++
		}
		if knowing == nodes && seconds == 0 {
			seconds = float64(interval) * gossipInterval
		}
	}
	return seconds, packets
}
