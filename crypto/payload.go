package crypto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

const payloadVersion = 1

// errTooLong says that a node's certificate chain does not fit a handshake.
var errTooLong = errors.New("crypto: the certificate chain is too long for a handshake")

// A payload is what the Noise messages of a handshake carry, encrypted:
//
//	version 1 | policy 1 | suites 1 | suite 1 | sender's index 4 | [time 12] |
//	record key 32 | length 2, signature | chain | zeros
//
// The index repeats the header's, which Noise does not protect. The time is in the
// first message only, the chosen suite in the second only (0 in the first). The chain is as [AppendChain] writes it. The rest of the
// statement is not in it: the static key is the one that Noise has authenticated,
// the node id that of the certificate.
type payload struct {
	policy    Policy
	suites    suiteSet // offered by the sender
	suite     Suite    // chosen by the responder
	index     uint32
	time      stamp
	statement Statement
	chain     [][]byte
}

// payloadOf states an identity in a payload. A chain that does not fit goes without
// its intermediates, which those who have the newest root can do without.
func payloadOf(id *Identity, policy Policy, offered suiteSet) payload {
	p := payload{policy: policy, suites: offered, statement: id.state, chain: id.cred.Chain}
	if p.length(first)+initiationOverhead > MaxHandshakeLen {
		p.chain = p.chain[:1]
	}
	return p
}

// length returns the size of p without what it is filled up with.
func (p payload) length(n messageNumber) int {
	return fixedLen(n) + 2 + len(p.statement.Signature) + ChainLen(p.chain)
}

// fixedLen returns the size of the fields before the signature.
func fixedLen(n messageNumber) int {
	if n == first {
		return 8 + len(stamp{}) + 32
	}
	return 8 + 32
}

// fit returns the size of a datagram that p fits in.
func (p payload) fit(n messageNumber) int {
	overhead := initiationOverhead
	if n == second {
		overhead = responseOverhead
	}
	if p.length(n)+overhead <= HandshakeLen {
		return HandshakeLen
	}
	return MaxHandshakeLen
}

// sender verifies who sent a payload, whose static key Noise has authenticated.
func (p payload) sender(id *Identity, static [32]byte, now time.Time) (Statement, error) {
	certs, err := parseCerts(p.chain)
	if err != nil {
		return Statement{}, err
	}
	s := p.statement
	s.Static = static
	s.NodeID = certs[0].Subject.CommonName
	s.Signature = slices.Clone(s.Signature) // aliases the message
	return s, VerifyIdentity(s, p.chain, id.cred.ClusterID, id.cred.Roots, now)
}

// A message number of the Noise handshake.
type messageNumber uint8

const (
	first  messageNumber = 1
	second messageNumber = 2
)

// encode writes p, filled up with zeros to size bytes.
func (p payload) encode(n messageNumber, size int) ([]byte, error) {
	b := make([]byte, 0, size)
	b = append(b, payloadVersion, byte(p.policy), byte(p.suites), byte(p.suite))
	b = binary.BigEndian.AppendUint32(b, p.index)
	if n == first {
		b = append(b, p.time[:]...)
	}
	b = append(b, p.statement.Record[:]...)
	b = appendField(b, p.statement.Signature)
	b, err := AppendChain(b, p.chain)
	if err != nil {
		return nil, err
	}
	if len(b) > size {
		return nil, fmt.Errorf("%w: %d bytes of %d", errTooLong, len(b), size)
	}
	return b[:size], nil // what is behind was never written to: zeros
}

// parsePayload reads what encode wrote, and nothing else. The result aliases b.
func parsePayload(b []byte, n messageNumber) (p payload, ok bool) {
	if len(b) < fixedLen(n) || b[0] != payloadVersion {
		return payload{}, false
	}
	p.policy, p.suites, p.suite = Policy(b[1]), suiteSet(b[2]), Suite(b[3])
	if p.policy >= policies || n == first && p.suite != 0 {
		return payload{}, false
	}
	p.index = binary.BigEndian.Uint32(b[4:])
	b = b[8:]
	if n == first {
		b = b[copy(p.time[:], b):]
	}
	b = b[copy(p.statement.Record[:], b):]
	if p.statement.Signature, b, ok = cutField(b); !ok || len(p.statement.Signature) > MaxSignatureLen {
		return payload{}, false
	}
	if p.chain, b, ok = ParseChain(b); !ok || len(bytes.Trim(b, "\x00")) != 0 {
		return payload{}, false
	}
	return p, true
}
