package crypto_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"hash"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

// What follows is written from PROTOCOL.md and the specifications that it names, with
// primitives alone and nothing of package crypto: it reads the published vectors as
// another implementation would.

type hexText []byte

func (h *hexText) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

type published struct {
	Handshake struct {
		Protocol, ClusterID                              string
		Now                                              time.Time
		Root, EpochKey, PSK, Prologue, Time              hexText
		Epoch                                            uint64
		Initiator, Responder                             party
		Policy                                           byte
		InitiationPayload, Initiation                    hexText
		ResponsePayload, Response                        hexText
		InitiatorToResponderKey, ResponderToInitiatorKey hexText
	}
	Transport []struct {
		Suite                    string
		Key, Plaintext, Datagram hexText
		Index                    uint32
		Counter                  uint64
	}
	Cookie struct {
		Static, Mac1Key, Key, Mac1, Reply, Cookie, Message hexText
	}
}

type party struct {
	NodeID                                                   string
	Certificate, Static, Ephemeral, StaticPublic, RecordSeed hexText
	Signed, Signature                                        hexText
	Index                                                    uint32
	Suites, Suite                                            byte
}

// A spec fails the test at the first thing that is not as it is written.
type spec struct{ *testing.T }

func (s spec) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s spec) equal(what string, got, want []byte) {
	s.Helper()
	if !bytes.Equal(got, want) {
		s.Fatalf("%s is %x, want %x", what, got, want)
	}
}

func (s spec) index(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }

// join is "fields, each after its length (4)", behind a domain and a zero (section 3).
func join(domain string, fields ...[]byte) []byte {
	b := append([]byte(domain), 0)
	for _, f := range fields {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
	}
	return b
}

// noise is the state of Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (The Noise Protocol
// Framework, revision 34, section 5).
type noise struct {
	spec
	ck, h, k []byte
	n        uint64
}

func newNoise(s spec, prologue, responder []byte) *noise {
	name := "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
	h := blake2s.Sum256([]byte(name)) // longer than a hash
	x := &noise{spec: s, ck: bytes.Clone(h[:]), h: h[:]}
	x.mixHash(prologue)
	x.mixHash(responder)
	return x
}

func (x *noise) mixHash(b []byte) {
	h := blake2s.Sum256(append(bytes.Clone(x.h), b...))
	x.h = h[:]
}

// hkdf is HKDF of section 4.3, three outputs.
func (x *noise) hkdf(b []byte) (out [3][]byte) {
	mac := func(key []byte, parts ...[]byte) []byte {
		m := hmac.New(func() hash.Hash { h, err := blake2s.New256(nil); x.ok(err); return h }, key)
		for _, p := range parts {
			m.Write(p)
		}
		return m.Sum(nil)
	}
	temp := mac(x.ck, b)
	out[0] = mac(temp, []byte{1})
	out[1] = mac(temp, out[0], []byte{2})
	out[2] = mac(temp, out[1], []byte{3})
	return out
}

func (x *noise) mixKey(b []byte) {
	out := x.hkdf(b)
	x.ck, x.k, x.n = out[0], out[1], 0
}

func (x *noise) mixKeyAndHash(b []byte) {
	out := x.hkdf(b)
	x.ck = out[0]
	x.mixHash(out[1])
	x.k, x.n = out[2], 0
}

func (x *noise) dh(private, public []byte) {
	x.Helper()
	p, err := ecdh.X25519().NewPrivateKey(private)
	x.ok(err)
	q, err := ecdh.X25519().NewPublicKey(public)
	x.ok(err)
	secret, err := p.ECDH(q)
	x.ok(err)
	x.mixKey(secret)
}

// ephemeral takes the next ephemeral key: with a psk it is mixed into both.
func (x *noise) ephemeral(public []byte) {
	x.mixHash(public)
	x.mixKey(public)
}

func (x *noise) decrypt(b []byte) []byte {
	x.Helper()
	aead, err := chacha20poly1305.New(x.k)
	x.ok(err)
	nonce := binary.LittleEndian.AppendUint64(make([]byte, 4), x.n)
	text, err := aead.Open(nil, nonce, b, x.h)
	x.ok(err)
	x.n++
	x.mixHash(b)
	return text
}

func (s spec) public(private []byte) []byte {
	s.Helper()
	p, err := ecdh.X25519().NewPrivateKey(private)
	s.ok(err)
	return p.PublicKey().Bytes()
}

// mac checks MAC(K, m) of section 1.5; noise is where the Noise message begins.
func (s spec) mac(what string, key, m, tag []byte, noise int) {
	s.Helper()
	aead, err := chacha20poly1305.New(key)
	s.ok(err)
	s.equal(what, tag, aead.Seal(nil, m[noise:noise+12], nil, m))
}

func labelled(label string, static []byte) []byte {
	h := blake2s.Sum256(append([]byte(label), static...))
	return h[:]
}

// TestVectorsBySpecification reads each message of the vectors.
func TestVectorsBySpecification(t *testing.T) {
	s := spec{t}
	b, err := os.ReadFile("testdata/vectors.json")
	s.ok(err)
	var v published
	s.ok(json.Unmarshal(b, &v))
	s.handshake(&v)
	s.transport(&v)
	s.cookie(&v)
}

func (s spec) handshake(v *published) {
	s.Helper()
	h := &v.Handshake
	a, b := &h.Initiator, &h.Responder
	epoch := binary.BigEndian.AppendUint64(nil, h.Epoch)
	s.equal("the prologue", h.Prologue, append([]byte("ovnd sealed v1"+h.ClusterID), epoch...))
	psk, err := hkdf.Key(sha256.New, h.EpochKey, []byte(h.ClusterID), "ovnd psk v1"+string(epoch), 32)
	s.ok(err)
	s.equal("the psk", h.PSK, psk)
	for _, p := range []*party{a, b} {
		s.equal("a static key", p.StaticPublic, s.public(p.Static))
	}

	// Message 1, as the responder reads it: e, es, s, ss.
	m := h.Initiation
	if len(m) != 1232 || m[0] != 1 || s.index(m[1:]) != a.Index || binary.BigEndian.Uint64(m[4:]) != h.Epoch {
		s.Fatalf("the initiation has %d bytes and begins %x", len(m), m[:12])
	}
	s.mac("mac1", labelled("mac1----", b.StaticPublic), m[:len(m)-32], m[len(m)-32:len(m)-16], 12)
	s.equal("mac2 without a cookie", m[len(m)-16:], make([]byte, 16))
	x := newNoise(s, h.Prologue, b.StaticPublic)
	e1 := m[12:44]
	s.equal("the initiator's ephemeral key", e1, s.public(a.Ephemeral))
	x.ephemeral(e1)
	x.dh(b.Static, e1)
	static := x.decrypt(m[44:92])
	s.equal("the initiator's static key", static, a.StaticPublic)
	x.dh(b.Static, static)
	text := x.decrypt(m[92 : len(m)-32])
	s.equal("the payload of message 1", text, h.InitiationPayload)
	s.payload(v, text, a, static, h.Time, 0)

	// Message 2, as the initiator reads it: e, ee, se, psk.
	m = h.Response
	if len(m) != 1232 || m[0] != 2 || s.index(m[1:]) != b.Index || s.index(m[4:]) != a.Index || m[7] != 0 {
		s.Fatalf("the response has %d bytes and begins %x", len(m), m[:8])
	}
	s.mac("mac1 of the response", labelled("mac1----", a.StaticPublic), m[:len(m)-32], m[len(m)-32:len(m)-16], 8)
	s.equal("mac2 of the response", m[len(m)-16:], make([]byte, 16))
	e2 := m[8:40]
	x.ephemeral(e2)
	x.dh(a.Ephemeral, e2)
	x.dh(a.Static, e2)
	x.mixKeyAndHash(psk)
	text = x.decrypt(m[40 : len(m)-32])
	s.equal("the payload of message 2", text, h.ResponsePayload)
	s.payload(v, text, b, b.StaticPublic, nil, b.Suite)

	out := x.hkdf(nil) // Split
	s.equal("the initiator's key", h.InitiatorToResponderKey, out[0])
	s.equal("the responder's key", h.ResponderToInitiatorKey, out[1])
}

// payload reads what section 2.2 describes, and checks the identity of section 3.
func (s spec) payload(v *published, b []byte, p *party, static, at []byte, suite byte) {
	s.Helper()
	take := func(n int) (f []byte) { f, b = b[:n], b[n:]; return f }
	field := func() []byte { return take(int(binary.BigEndian.Uint16(take(2)))) }
	s.equal("version, policy, suites, suite", take(4), []byte{1, v.Handshake.Policy, p.Suites, suite})
	s.equal("the index", take(4), binary.BigEndian.AppendUint32(nil, p.Index))
	s.equal("the time", take(len(at)), at)
	record := take(32)
	s.equal("the record key", record, ed25519.NewKeyFromSeed(p.RecordSeed).Public().(ed25519.PublicKey))
	signature := field()
	if n := take(1)[0]; n != 1 {
		s.Fatalf("%d certificates", n)
	}
	certificate := field()
	s.equal("the certificate", certificate, p.Certificate)
	if rest := bytes.Trim(b, "\x00"); len(rest) > 0 {
		s.Fatalf("padding %x", rest)
	}
	leaf, err := x509.ParseCertificate(certificate)
	s.ok(err)
	root, err := x509.ParseCertificate(v.Handshake.Root)
	s.ok(err)
	roots := x509.NewCertPool()
	roots.AddCert(root)
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: v.Handshake.Now, KeyUsages: []x509.ExtKeyUsage{usage}})
		s.ok(err)
	}
	subject := leaf.Subject
	if subject.Organization[0] != v.Handshake.ClusterID || subject.OrganizationalUnit[0] != "swarm-worker" || subject.CommonName != p.NodeID {
		s.Fatalf("the certificate is of %v", subject)
	}
	signed := join("ovnd identity v1", []byte(v.Handshake.ClusterID), []byte(subject.CommonName), static, record)
	s.equal("what is signed", signed, p.Signed)
	digest := sha256.Sum256(append([]byte(strings.Repeat(" ", 64)), signed...))
	if !ecdsa.VerifyASN1(leaf.PublicKey.(*ecdsa.PublicKey), digest[:], signature) {
		s.Fatal("the statement's signature is wrong")
	}
}

func (s spec) transport(v *published) {
	s.Helper()
	for _, d := range v.Transport {
		var aead cipher.AEAD
		switch d.Suite {
		case "chacha20-poly1305":
			var err error
			aead, err = chacha20poly1305.New(d.Key)
			s.ok(err)
		case "aes-256-gcm":
			block, err := aes.NewCipher(d.Key)
			s.ok(err)
			aead, err = cipher.NewGCM(block)
			s.ok(err)
		}
		b := d.Datagram
		if b[0] != 4 || s.index(b[1:]) != d.Index || binary.BigEndian.Uint64(b[4:]) != d.Counter {
			s.Fatalf("the header is %x", b[:12])
		}
		text, err := aead.Open(nil, b[:12], b[12:], b[:12])
		s.ok(err)
		s.equal("the plaintext", text, d.Plaintext)
	}
}

func (s spec) cookie(v *published) {
	s.Helper()
	c, asked := &v.Cookie, v.Handshake.Initiation
	s.equal("the key of mac1", c.Mac1Key, labelled("mac1----", c.Static))
	s.equal("the key of cookie replies", c.Key, labelled("cookie--", c.Static))
	s.equal("mac1", c.Mac1, asked[len(asked)-32:len(asked)-16])
	b := c.Reply
	if len(b) != 76 || b[0] != 3 || s.index(b[1:]) != s.index(asked[1:]) {
		s.Fatalf("the cookie reply is %x", []byte(b))
	}
	aead, err := chacha20poly1305.NewX(c.Key)
	s.ok(err)
	cookie, err := aead.Open(nil, b[4:28], b[28:], c.Mac1)
	s.ok(err)
	s.equal("the cookie", cookie, c.Cookie)
	m := c.Message
	s.equal("the initiation with a cookie", m[:len(m)-16], asked[:len(asked)-16])
	s.mac("mac2", cookie, m[:len(m)-16], m[len(m)-16:], 12)
}
