package directory

import (
	"fmt"
	"strings"
)

// A Cipher is the AEAD that the nodes of an encrypted network may seal with.
type Cipher uint8

const (
	// Auto has each pair of nodes take AES-256-GCM if both have it in hardware,
	// else ChaCha20-Poly1305.
	Auto Cipher = iota
	// ChaCha20Poly1305 is that of RFC 8439.
	ChaCha20Poly1305
	// AES256GCM is that of NIST SP 800-38D with a key of 256 bits.
	AES256GCM
)

// ciphers are the values of [OptionEncrypted] that name one.
var ciphers = [...]string{ChaCha20Poly1305: "chacha20-poly1305", AES256GCM: "aes-256-gcm"}

// String returns "auto" or what [OptionEncrypted] calls the cipher.
func (c Cipher) String() string {
	switch {
	case c == Auto:
		return "auto"
	case int(c) < len(ciphers):
		return ciphers[c]
	}
	return fmt.Sprintf("cipher %d", uint8(c))
}

// parseCipher reads a value of [OptionEncrypted].
func parseCipher(value string) (Cipher, error) {
	if value == "" || value == "true" {
		return Auto, nil
	}
	for i, name := range ciphers {
		if value == name {
			return Cipher(i), nil
		}
	}
	return 0, fmt.Errorf(`want no value or "true" (the nodes choose), or "%s"; a network that is not to be encrypted goes without the option`,
		strings.Join(ciphers[ChaCha20Poly1305:], `" or "`))
}
