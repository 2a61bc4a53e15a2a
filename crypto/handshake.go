package crypto

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/flynn/noise"
)

// noiseSuite and the pattern IKpsk2 make Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s
// (The Noise Protocol Framework, revision 34).
var noiseSuite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s)

// prologueLabel starts what both ends must agree on before a handshake.
const prologueLabel = "ovnd sealed v1"

// Bytes of a handshake datagram that are not its payload: header, ephemeral key,
// static key and its tag, the payload's tag, macs.
const (
	initiationOverhead = initiationHeaderLen + 32 + (32 + TagLen) + TagLen + macsLen
	responseOverhead   = responseHeaderLen + 32 + TagLen + macsLen
)

// errPayload says that a peer that has the keys sent a payload that is none.
var errPayload = errors.New("crypto: malformed handshake payload")

// A handshake is one end of a Noise handshake under one epoch.
type handshake struct {
	state *noise.HandshakeState
	epoch uint64
}

// newHandshake prepares an end of a handshake. remote is the responder's static
// key, nil at the responder. random is where the ephemeral key comes from; nil is
// the system's source.
func newHandshake(id *Identity, e Epoch, remote []byte, random io.Reader) (*handshake, error) {
	psk, err := e.psk(id.cred.ClusterID)
	if err != nil {
		return nil, err
	}
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite:           noiseSuite,
		Random:                random,
		Pattern:               noise.HandshakeIK,
		Initiator:             remote != nil,
		Prologue:              prologue(id.cred.ClusterID, e.Tag),
		PresharedKey:          psk,
		PresharedKeyPlacement: 2,
		StaticKeypair:         id.keys.static,
		PeerStatic:            remote,
	})
	if err != nil {
		return nil, err
	}
	return &handshake{state: state, epoch: e.Tag}, nil
}

// prologue is the label, the cluster id and the epoch's tag.
func prologue(clusterID string, epoch uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(prologueLabel+clusterID), epoch)
}

// writeInitiation returns the initiation of size bytes, but for its macs.
func (h *handshake) writeInitiation(sender uint32, p payload, size int) (initiation, error) {
	p.index = sender
	text, err := p.encode(first, size-initiationOverhead)
	if err != nil {
		return nil, err
	}
	datagram := make([]byte, initiationHeaderLen, size)
	putInitiationHeader(datagram, sender, h.epoch)
	datagram, _, _, err = h.state.WriteMessage(datagram, text)
	if err != nil {
		return nil, err
	}
	return datagram[:size], nil
}

// remote is the peer's static key, once known.
func (h *handshake) remote() [32]byte { return [32]byte(h.state.PeerStatic()) }

// readInitiation reads the message of an initiator, whose static key is known
// from then on. What the payload says is unverified.
func (h *handshake) readInitiation(m initiation) (payload, error) {
	text, _, _, err := h.state.ReadMessage(nil, m.noise())
	if err != nil {
		return payload{}, err
	}
	p, ok := parsePayload(text, first)
	if !ok || p.index != m.sender() {
		return payload{}, errPayload
	}
	return p, nil
}

// writeResponse returns the response of size bytes, but for its macs, and the
// keys of the session.
func (h *handshake) writeResponse(sender, receiver uint32, p payload, size int) (response, transportKeys, error) {
	p.index = sender
	text, err := p.encode(second, size-responseOverhead)
	if err != nil {
		return nil, transportKeys{}, err
	}
	datagram := make([]byte, responseHeaderLen, size)
	putResponseHeader(datagram, sender, receiver)
	datagram, initiator, responder, err := h.state.WriteMessage(datagram, text)
	if err != nil {
		return nil, transportKeys{}, err
	}
	return datagram[:size], transportKeys{send: responder.UnsafeKey(), receive: initiator.UnsafeKey()}, nil
}

// readResponse reads the message of the responder and returns the keys of the
// session. A message that does not authenticate leaves the handshake as it was.
func (h *handshake) readResponse(m response) (payload, transportKeys, error) {
	text, initiator, responder, err := h.state.ReadMessage(nil, m.noise())
	if err != nil {
		return payload{}, transportKeys{}, err
	}
	p, ok := parsePayload(text, second)
	if !ok || p.index != m.sender() {
		return payload{}, transportKeys{}, errPayload
	}
	return p, transportKeys{send: initiator.UnsafeKey(), receive: responder.UnsafeKey()}, nil
}
