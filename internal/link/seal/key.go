package seal

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
)

// NewKey makes the key of one session or of one agent. It is kept in memory
// and never written anywhere.
func NewKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

// PublicKey is the text form of key's public half: 44 characters of standard
// base64, which need no quoting in a pod's specification or in a log line.
func PublicKey(key ed25519.PrivateKey) string {
	return base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
}

// ParsePublicKey reads the text form. There is exactly one text for a key.
func ParsePublicKey(text string) (ed25519.PublicKey, error) {
	if text == "" {
		return nil, fmt.Errorf("public key is empty")
	}
	// Strict: padding bits must be zero, so that no two texts are one key. The
	// decoder ignores line ends; the length tells.
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("public key %.60q is not base64: %w", text, err)
	}
	if len(b) != ed25519.PublicKeySize || len(text) != base64.StdEncoding.EncodedLen(ed25519.PublicKeySize) {
		return nil, fmt.Errorf("public key %.60q holds %d bytes, not %d", text, len(b), ed25519.PublicKeySize)
	}
	return b, nil
}
