package discovery

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/gogo/protobuf/proto"
	"github.com/moby/moby/v2/daemon/libnetwork/networkdb"
	protov2 "google.golang.org/protobuf/proto"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/discovery/records"
	"github.com/ovnd/ovnd/encap"
)

// maxMessage is what NetworkDB puts into one datagram, less the header of a
// message of several.
const maxMessage = 1400 - 5 - 2

// messageSize is the size of the message that NetworkDB makes of an entry, with
// IDs as long as Docker's and SwarmKit's are.
func messageSize(t *testing.T, table, key string, value []byte) int {
	t.Helper()
	event, err := proto.Marshal(&networkdb.TableEvent{
		Type: networkdb.TableEventTypeDelete, LTime: 1<<64 - 1, NodeName: strings.Repeat("f", 12),
		NetworkID: strings.Repeat("n", 25), TableName: table, Key: key, Value: value, ResidualReapTime: 1800,
	})
	if err != nil {
		t.Fatal(err)
	}
	message, err := proto.Marshal(&networkdb.GossipMessage{Type: networkdb.MessageTypeTableEvent, Data: event})
	if err != nil {
		t.Fatal(err)
	}
	return len(message)
}

// The largest records go into one datagram of gossip.
func TestRecordsFitGossip(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	const v6 = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
	place, err := putClaim(crypto.EndpointClaim{
		EndpointIP: v6 + "/128", MAC: "02:42:0a:0a:00:09", VTEP: v6, Owner: long(crypto.MaxIDLen), Released: true, Sequence: 1<<64 - 1,
	}, make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	identity, err := putIdentity(long(maxID), &directory.Identity{
		NodeID: long(crypto.MaxIDLen), Signature: make([]byte, crypto.MaxSignatureLen), VTEP: netip.MustParseAddr(v6), Name: long(maxID),
	}, func(crypto.EndpointClaim) []byte { return make([]byte, 64) })
	if err != nil {
		t.Fatal(err)
	}
	// A manager's chain while the root is being rotated has 947 bytes.
	r := newTestSwarm(t).revocation(strings.Repeat("m", 25), strings.Repeat("r", 25))
	revocation, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	rotating := make([]byte, len(revocation)-crypto.ChainLen(r.Chain)+947)
	for _, m := range []struct {
		what, table, key string
		value            []byte
	}{
		{"endpoint", peerTable, long(maxID), place},
		{"identity", identityTable, long(maxID), identity},
		{"revocation", revocationTable, long(25 + 1 + 25), revocation},
		{"revocation while the root is rotated", revocationTable, long(25 + 1 + 25), rotating},
	} {
		size := messageSize(t, m.table, m.key, m.value)
		t.Logf("%s: %d bytes", m.what, size)
		if size >= maxMessage {
			t.Errorf("%s: a message of %d bytes, want less than %d", m.what, size, maxMessage)
		}
	}
}

func TestBadIdentityRecords(t *testing.T) {
	m := newTestSwarm(t).member("node", "bbbbbbbbbbbb", "192.0.2.11")
	for what, change := range map[string]func(*records.IdentityRecord){
		"no node":              func(r *records.IdentityRecord) { r.NodeId = "" },
		"long node":            func(r *records.IdentityRecord) { r.NodeId = strings.Repeat("x", crypto.MaxIDLen+1) },
		"odd node":             func(r *records.IdentityRecord) { r.NodeId = "a/b" },
		"another node":         func(r *records.IdentityRecord) { r.NodeId = "other" },
		"short static key":     func(r *records.IdentityRecord) { r.StaticKey = r.StaticKey[1:] },
		"long record key":      func(r *records.IdentityRecord) { r.RecordKey = append(r.RecordKey, 0) },
		"no statement":         func(r *records.IdentityRecord) { r.StatementSignature = nil },
		"long statement":       func(r *records.IdentityRecord) { r.StatementSignature = make([]byte, crypto.MaxSignatureLen+1) },
		"no VTEP":              func(r *records.IdentityRecord) { r.Vtep = "" },
		"multicast VTEP":       func(r *records.IdentityRecord) { r.Vtep = "239.1.1.1" },
		"another VTEP":         func(r *records.IdentityRecord) { r.Vtep = "192.0.2.12" },
		"no signature":         func(r *records.IdentityRecord) { r.Signature = nil },
		"another record key":   func(r *records.IdentityRecord) { r.RecordKey = bytes.Repeat([]byte{1}, 32) },
		"too long as a record": func(r *records.IdentityRecord) { r.Signature = make([]byte, maxRecord) },
	} {
		r := new(records.IdentityRecord)
		if err := protov2.Unmarshal(m.entry("net"), r); err != nil {
			t.Fatal(err)
		}
		change(r)
		b, err := protov2.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if i, err := parseIdentity("net", m.name, b); err == nil {
			t.Errorf("%s: accepted as %+v", what, i.Identity)
		}
	}
	if i, err := parseIdentity("net", m.name, m.entry("net")); err != nil || i.Static != m.identity().Static || i.VTEP != m.vtep {
		t.Errorf("a good one: %+v, %v", i, err)
	}
}

// FuzzSignedRecord checks that the peer record of an encrypted network is valid
// only if its owner signed it as it is.
func FuzzSignedRecord(f *testing.F) {
	m := newTestSwarm(f).member("owner", "bbbbbbbbbbbb", "192.0.2.11")
	said := map[string]bool{}
	for _, b := range [][]byte{m.claim("ep", ownedIP), m.claim("ep", "10.10.0.10", released)} {
		r, err := unmarshalPeer(b)
		if err != nil {
			f.Fatal(err)
		}
		said[r.String()] = true
		f.Add(b)
	}
	f.Add([]byte(goldenPeer))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := newNetwork(sealedNet(0), self{name: "aaaaaaaaaaaa", vtep: ownVTEP, trust: &trust{}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := n.parsePlace("ep", b)
		if err != nil || p == nil {
			return
		}
		if p.claim.Owner == "" {
			if n.owners().judge(p) == right {
				t.Fatal("a record without an owner is valid")
			}
			return
		}
		if !isHost(p.addr) || !isHost(p.vtep) || checkNodeID(p.claim.Owner) != nil || p.mac == (encap.MAC{}) {
			t.Fatalf("accepted %+v", p)
		}
		r, err := unmarshalPeer(b)
		if err != nil {
			t.Fatal(err)
		}
		r.ProtoReflect().SetUnknown(nil)
		if p.claim.signedBy(m.identity().Record) && !said[r.String()] {
			t.Fatalf("a signature for what was never signed: %v", r)
		}
		again, err := putClaim(p.claim.EndpointClaim, p.claim.signature)
		if err != nil {
			t.Fatal(err)
		}
		q, err := n.parsePlace("ep", again)
		if err != nil || q.claim.EndpointClaim != p.claim.EndpointClaim || q.addr != p.addr || q.mac != p.mac || q.vtep != p.vtep {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	})
}

// FuzzIdentityRecord checks that what is accepted is the same after having been
// encoded again.
func FuzzIdentityRecord(f *testing.F) {
	m := newTestSwarm(f).member("node", "bbbbbbbbbbbb", "192.0.2.11")
	f.Add(m.entry("net"))
	f.Add([]byte("\n\x04node"))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := parseIdentity("net", m.name, b)
		if err != nil {
			return
		}
		if checkNodeID(i.NodeID) != nil || !isHost(i.VTEP) || len(i.Signature) == 0 || i.Name != m.name {
			t.Fatalf("accepted %+v", i.Identity)
		}
		r := new(records.IdentityRecord)
		if err := protov2.Unmarshal(b, r); err != nil {
			t.Fatal(err)
		}
		if i.Record == m.identity().Record && !bytes.Equal(r.Signature, m.id.SignEndpoint(entryClaim("net", m.name, i.NodeID, r.Vtep))) {
			t.Fatalf("a signature for what was never signed: %+v", i.Identity)
		}
	})
}
