package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
)

// MaxCertificates bounds the certificates of one TLS.
const MaxCertificates = 16

// TLS says with what the target serves TLS, so that filters see the requests of its
// connections. All are absolute paths of PEM files (RFC 7468) of the target's, which
// are read there and go nowhere else. It is JSON on the wire as well (Subscribe.TLS).
type TLS struct {
	// Certificates are the server's chains, its own certificate first.
	Certificates []string `json:"certificates"`
	// Keys are those of Certificates, in their order; nil: each is in its certificate's file.
	Keys []string `json:"keys,omitempty"`
	// ClientCA has who signs the certificates of clients. Without it, connections stay
	// encrypted where the server asks its clients for one.
	ClientCA string `json:"client_ca,omitempty"`
	// ClientCertificate, and its key, is what the server is shown in place of a client's
	// that ClientCA vouches for.
	ClientCertificate string `json:"client_certificate,omitempty"`
	ClientKey         string `json:"client_key,omitempty"` // empty: it is in ClientCertificate's file
	// Always decrypts what is meant as a whole connection, too.
	Always bool `json:"always,omitempty"`
}

// TLSDelivery says how the program gets what has come under TLS and was decrypted.
type TLSDelivery struct {
	Plain bool `json:"plain,omitempty"` // in the clear
	// TrustRoots and ServerCert are PEM files of this machine: who vouches for the program's
	// certificate, and that certificate. Neither: it may show any.
	TrustRoots []string `json:"trust_roots,omitempty"`
	ServerCert string   `json:"server_cert,omitempty"`
	ServerName string   `json:"server_name,omitempty"` // that the program is asked for; empty: as its client did
}

// Check says what is wrong with t.
func (t TLS) Check() error {
	switch {
	case len(t.Certificates) == 0:
		return errors.New("no certificate is named")
	case len(t.Certificates) > MaxCertificates:
		return fmt.Errorf("at most %d certificates can be named, not %d", MaxCertificates, len(t.Certificates))
	case len(t.Keys) > 0 && len(t.Keys) != len(t.Certificates):
		return fmt.Errorf("there are %d certificates and %d keys: name one key for each certificate, in the same order, or none where the certificates' files have them", len(t.Certificates), len(t.Keys))
	case (t.ClientCA == "") != (t.ClientCertificate == ""):
		return errors.New("client_ca and client_certificate go together: who is allowed, and what the target is shown in their place")
	case t.ClientKey != "" && t.ClientCertificate == "":
		return errors.New("client_key is of no use without client_certificate")
	}
	for _, name := range t.files() {
		if !path.IsAbs(name) || path.Clean(name) != name {
			return fmt.Errorf("%q is no absolute, clean path of a file in the target", name)
		}
	}
	return nil
}

// files are all that t names.
func (t TLS) files() []string {
	all := append(append([]string(nil), t.Certificates...), t.Keys...)
	for _, name := range []string{t.ClientCA, t.ClientCertificate, t.ClientKey} {
		if name != "" {
			all = append(all, name)
		}
	}
	return all
}

// Text is t as protocol.Subscribe has it.
func (t TLS) Text() (string, error) {
	if err := t.Check(); err != nil {
		return "", err
	}
	b, err := json.Marshal(t)
	return string(b), err
}

// ParseTLS reads what Text has written. Unknown fields are an error: what they mean
// would not be done.
func ParseTLS(text string) (t TLS, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return TLS{}, fmt.Errorf("read what TLS is decrypted with: %w", err)
	}
	return t, t.Check()
}
