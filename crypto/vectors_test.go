package crypto

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/flynn/noise"
	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

const vectorsFile = "testdata/vectors.json"

// hexBytes are bytes that JSON shows in hexadecimal.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// vectors are what another implementation can be checked against.
type vectors struct {
	Handshake handshakeVector
	Transport []transportVector
	Cookie    cookieVector
}

type handshakeVector struct {
	Protocol           string
	ClusterID          string
	Now                time.Time // when the certificates are valid
	Root               hexBytes  // DER
	Epoch              uint64
	EpochKey           hexBytes
	PSK                hexBytes
	Prologue           hexBytes
	Initiator          partyVector
	Responder          partyVector
	Policy             Policy
	Time               hexBytes
	InitiationPayload  hexBytes // decrypted
	Initiation         hexBytes // with mac1
	ResponsePayload    hexBytes
	Response           hexBytes
	InitiatorToRespKey hexBytes `json:"InitiatorToResponderKey"`
	ResponderToInitKey hexBytes `json:"ResponderToInitiatorKey"`
}

type partyVector struct {
	NodeID            string
	Certificate       hexBytes
	Static, Ephemeral hexBytes // private keys, X25519
	StaticPublic      hexBytes
	RecordSeed        hexBytes // of the Ed25519 key
	Signed            hexBytes // what the statement's signature is over, after its context
	Signature         hexBytes
	Index             uint32
	Suites            uint8
	Suite             uint8 // chosen: the responder's
}

type transportVector struct {
	Suite     string
	Key       hexBytes
	Index     uint32
	Counter   uint64
	Plaintext hexBytes
	Datagram  hexBytes
}

type cookieVector struct {
	Static  hexBytes // public key of the responder
	Mac1Key hexBytes
	Key     hexBytes // of the cookie's encryption
	Mac1    hexBytes // of the initiation that is answered
	Reply   hexBytes
	Cookie  hexBytes
	Message hexBytes // an initiation sent with the cookie: mac2 at the end
}

func pattern(start byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = start + byte(i)
	}
	return b
}

// newParty makes up an end of the handshake.
func newParty(tb testing.TB, ca *testCA, id string, start byte) partyVector {
	p := partyVector{
		NodeID: id, Static: pattern(start, 32), Ephemeral: pattern(start+64, 32), RecordSeed: pattern(start+128, 32),
		Index: uint32(start)<<16 | 0xabcd, Suites: uint8(suites(ChaCha20Poly1305, AES256GCM)),
	}
	keys := p.keys(tb)
	identity, err := keys.Identify(ca.credentials(tb, id, roleWorker))
	if err != nil {
		tb.Fatal(err)
	}
	p.Certificate, p.Signature = identity.cred.Chain[0], identity.state.Signature
	p.Signed = identity.state.signed(testCluster)
	p.StaticPublic = keys.static.Public
	return p
}

// keys returns the keys of a party.
func (p partyVector) keys(tb testing.TB) *Keys {
	static, err := noise.DH25519.GenerateKeypair(bytes.NewReader(p.Static))
	if err != nil {
		tb.Fatal(err)
	}
	return &Keys{static: static, record: ed25519.NewKeyFromSeed(p.RecordSeed)}
}

// identity returns the identity of a party, without signing anew.
func (h *handshakeVector) identity(tb testing.TB, p partyVector) *Identity {
	root, err := x509.ParseCertificate(h.Root)
	if err != nil {
		tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	keys := p.keys(tb)
	return &Identity{
		keys: keys,
		cred: Credentials{NodeID: p.NodeID, ClusterID: h.ClusterID, Chain: [][]byte{p.Certificate}, Roots: roots},
		state: Statement{
			NodeID: p.NodeID, Static: [32]byte(keys.static.Public),
			Record: [32]byte(keys.record.Public().(ed25519.PublicKey)), Signature: p.Signature,
		},
	}
}

// compute fills in what follows from the rest, and checks that both ends agree.
func (h *handshakeVector) compute(t *testing.T) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a, b := h.identity(t, h.Initiator), h.identity(t, h.Responder)
	epoch := Epoch{Tag: h.Epoch, Key: h.EpochKey}
	psk, err := epoch.psk(h.ClusterID)
	must(err)
	h.PSK, h.Prologue = psk, prologue(h.ClusterID, h.Epoch)

	x, err := newHandshake(a, epoch, h.Responder.StaticPublic, bytes.NewReader(h.Initiator.Ephemeral))
	must(err)
	ask := payloadOf(a, h.Policy, suiteSet(h.Initiator.Suites))
	copy(ask.time[:], h.Time)
	m1, err := x.writeInitiation(h.Initiator.Index, ask, HandshakeLen)
	must(err)
	h.Initiation = remac(b.state.Static, m1)
	ask.index = h.Initiator.Index
	h.InitiationPayload, err = ask.encode(first, HandshakeLen-initiationOverhead)
	must(err)

	y, err := newHandshake(b, epoch, nil, bytes.NewReader(h.Responder.Ephemeral))
	must(err)
	asked, err := y.readInitiation(m1)
	must(err)
	who, err := asked.sender(b, y.remote(), h.Now)
	must(err)
	if who.NodeID != h.Initiator.NodeID || who.Record != a.state.Record {
		t.Errorf("the initiator is %q", who.NodeID)
	}
	answer := payloadOf(b, h.Policy, suiteSet(h.Responder.Suites))
	answer.suite = Suite(h.Responder.Suite)
	m2, keys, err := y.writeResponse(h.Responder.Index, m1.sender(), answer, HandshakeLen)
	must(err)
	h.Response = remac(a.state.Static, m2)
	answer.index = h.Responder.Index
	h.ResponsePayload, err = answer.encode(second, HandshakeLen-responseOverhead)
	must(err)

	answered, ours, err := x.readResponse(m2)
	must(err)
	who, err = answered.sender(a, x.remote(), h.Now)
	must(err)
	if who.NodeID != h.Responder.NodeID || ours.send != keys.receive || ours.receive != keys.send {
		t.Error("the ends do not agree")
	}
	h.InitiatorToRespKey, h.ResponderToInitKey = ours.send[:], ours.receive[:]
}

// compute seals, and opens again.
func (v *transportVector) compute(t *testing.T) {
	t.Helper()
	suite := map[string]Suite{"chacha20-poly1305": ChaCha20Poly1305, "aes-256-gcm": AES256GCM}[v.Suite]
	key := [keyLen]byte(v.Key)
	s, err := newSession(&Peer{}, agreed{suite: suite, keys: transportKeys{key, key}, remote: v.Index}, time.Now, Suite.aead)
	if err != nil {
		t.Fatal(err)
	}
	v.Datagram = make([]byte, Overhead+len(v.Plaintext))
	copy(v.Datagram[HeaderLen:], v.Plaintext)
	s.Seal(v.Datagram, v.Counter)
	text, counter, ok := s.Open(bytes.Clone(v.Datagram))
	if !ok || counter != v.Counter || !bytes.Equal(text, v.Plaintext) {
		t.Error("does not open")
	}
	// The same by the primitive: nonce and associated data are the header.
	header := []byte{byte(Transport), byte(v.Index >> 16), byte(v.Index >> 8), byte(v.Index)}
	header = binary.BigEndian.AppendUint64(header, v.Counter)
	aead, err := suite.aead(key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(v.Datagram, append(header, aead.Seal(nil, header, v.Plaintext, header)...)) {
		t.Error("not the AEAD over the plaintext")
	}
}

// compute makes a cookie reply by the primitives, takes it, and sends with it.
func (v *cookieVector) compute(t *testing.T, h handshakeVector) {
	t.Helper()
	v.Static = h.Responder.StaticPublic
	mac1 := blake2s.Sum256(append([]byte("mac1----"), v.Static...))
	key := blake2s.Sum256(append([]byte("cookie--"), v.Static...))
	v.Mac1Key, v.Key = mac1[:], key[:]
	v.Mac1 = h.Initiation[len(h.Initiation)-macsLen : len(h.Initiation)-macLen]
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		t.Fatal(err)
	}
	nonce := pattern(7, cookieNonceLen)
	reply := append([]byte{byte(CookieReply), 0, 0, 0}, nonce...)
	putIndex(reply[1:], h.Initiator.Index)
	v.Reply = aead.Seal(reply, nonce, v.Cookie, v.Mac1)

	marker, now := newMarker([32]byte(v.Static)), time.Now()
	marker.mark(bytes.Clone(h.Initiation), now)
	if !marker.take(cookieReply(v.Reply), now) {
		t.Error("the cookie is not taken")
	}
	v.Message = bytes.Clone(h.Initiation)
	marker.mark(v.Message, now)
}

// newVectors makes up what the vectors start from.
func newVectors(t *testing.T) (v vectors) {
	ca := newTestCA(t)
	v.Handshake = handshakeVector{
		Protocol: "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s", ClusterID: testCluster,
		Now: time.Now().UTC().Truncate(time.Second), Root: ca.cert.Raw,
		Epoch: 42, EpochKey: pattern(0x10, 16), Policy: Auto, Time: pattern(0, 12),
		Initiator: newParty(t, ca, "initiatornode000000000000", 1),
		Responder: newParty(t, ca, "respondernode000000000000", 33),
	}
	v.Handshake.Responder.Suite = uint8(AES256GCM)
	v.Cookie.Cookie = pattern(0xc0, 32)
	for _, suite := range bothSuites {
		for _, c := range []struct {
			counter uint64
			text    []byte
		}{{0, nil}, {1, append([]byte{0, 0x10, 0x01, 0}, pattern(0, 60)...)}, {0x7fffff, []byte{0, 0x10, 0x01, 1}}} {
			v.Transport = append(v.Transport, transportVector{
				Suite: suite.String(), Key: pattern(0x40, 32), Index: 0xabcdef, Counter: c.counter, Plaintext: c.text,
			})
		}
	}
	return v
}

// TestVectors computes the published vectors anew from their inputs.
func TestVectors(t *testing.T) {
	var v vectors
	published, err := os.ReadFile(vectorsFile)
	if *update {
		v = newVectors(t)
	} else if err != nil {
		t.Fatal(err)
	} else if err := json.Unmarshal(published, &v); err != nil {
		t.Fatal(err)
	}
	v.Handshake.compute(t)
	for i := range v.Transport {
		v.Transport[i].compute(t)
	}
	v.Cookie.compute(t, v.Handshake)
	computed, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	computed = append(computed, '\n')
	if *update {
		if err := os.WriteFile(vectorsFile, computed, 0o600); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(computed, published) {
		t.Errorf("%s is not what this code computes", vectorsFile)
	}
}
