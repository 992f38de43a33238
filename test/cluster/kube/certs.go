package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// makeCerts writes everything that proves who is who in a cluster:
//
//	ca, front-proxy-ca            the two authorities
//	apiserver                     what the API server shows to its clients
//	apiserver-kubelet, front-proxy what it shows to kubelets and to aggregated APIs
//	node-N                        one per node, both as server and as client
//	sa.key, sa.pub                service-account token keys
//	NAME.kubeconfig               self-contained credentials of each client
//
// Files that exist are kept, so a cluster can grow by calling it again.
func makeCerts(args []string) error {
	fs := flag.NewFlagSet("certs", flag.ExitOnError)
	dir := fs.String("dir", ".", "where the files go")
	network := fs.String("network", "10.97.0", "first three numbers of the node network; node N is .N")
	network6 := fs.String("network6", "fd00:97:", "the IPv6 node network up to its last colons; node N is :N")
	nodes := fs.Int("nodes", 1, "number of nodes")
	service := fs.String("service-ip", "10.96.0.1", "address of the kubernetes Service")
	_ = fs.Parse(args)
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}

	p := pki{dir: *dir, server: "https://" + *network + ".1:6443"}
	ca := p.authority("ca")
	front := p.authority("front-proxy-ca")

	p.issue(ca, "apiserver", "kube-apiserver", "", *network+".1", *network6+":1", *service, "127.0.0.1", "::1",
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	p.issue(ca, "apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters")
	p.issue(front, "front-proxy", "front-proxy-client", "")
	p.serviceAccountKeys()

	p.kubeconfig(ca, "admin", "kubernetes-admin", "system:masters")
	for _, name := range []string{"kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns"} {
		p.kubeconfig(ca, name, "system:"+name, "")
	}
	for n := 1; n <= *nodes; n++ {
		name := fmt.Sprintf("node-%d", n)
		p.kubeconfig(ca, name, "system:node:"+name, "system:nodes", name,
			fmt.Sprintf("%s.%d", *network, n), fmt.Sprintf("%s:%d", *network6, n))
	}
	return p.err
}

// pki keeps the first error, so that the list above reads as a list.
type pki struct {
	dir, server string
	err         error
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (p *pki) authority(name string) *authority {
	if !p.has(name + ".crt") {
		key := p.newKey()
		template := template(name, "")
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
		p.save(name, template, template, key, key)
	}
	certPEM, keyPEM := p.read(name+".crt"), p.read(name+".key")
	if p.err != nil {
		return nil
	}
	certDER, _ := pem.Decode(certPEM)
	keyDER, _ := pem.Decode(keyPEM)
	a := &authority{}
	if a.cert, p.err = x509.ParseCertificate(certDER.Bytes); p.err != nil {
		return nil
	}
	a.key, p.err = x509.ParseECPrivateKey(keyDER.Bytes)
	return a
}

func (p *pki) issue(ca *authority, file, user, group string, hosts ...string) {
	if p.err != nil || p.has(file+".crt") {
		return
	}
	cert := template(user, group)
	cert.KeyUsage = x509.KeyUsageDigitalSignature
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(hosts) > 0 {
		cert.ExtKeyUsage = append(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, h)
		}
	}
	p.save(file, cert, ca.cert, p.newKey(), ca.key)
}

func (p *pki) kubeconfig(ca *authority, file, user, group string, hosts ...string) {
	p.issue(ca, file, user, group, hosts...)
	if p.err != nil || p.has(file+".kubeconfig") {
		return
	}
	c := clientcmdapi.NewConfig()
	c.Clusters["cluster"] = &clientcmdapi.Cluster{Server: p.server, CertificateAuthorityData: p.read("ca.crt")}
	c.AuthInfos[file] = &clientcmdapi.AuthInfo{
		ClientCertificateData: p.read(file + ".crt"), ClientKeyData: p.read(file + ".key")}
	c.Contexts["cluster"] = &clientcmdapi.Context{Cluster: "cluster", AuthInfo: file}
	c.CurrentContext = "cluster"
	if p.err == nil {
		p.err = clientcmd.WriteToFile(*c, filepath.Join(p.dir, file+".kubeconfig"))
	}
}

func (p *pki) serviceAccountKeys() {
	if p.has("sa.key") {
		return
	}
	key := p.newKey()
	if p.err != nil {
		return
	}
	private, _ := x509.MarshalECPrivateKey(key)
	public, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
	p.write("sa.key", "EC PRIVATE KEY", private)
	p.write("sa.pub", "PUBLIC KEY", public)
}

func template(user, group string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	c := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: user},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
	}
	if group != "" {
		c.Subject.Organization = []string{group}
	}
	return c
}

func (p *pki) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p.keep(err)
	return key
}

func (p *pki) save(name string, cert, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) {
	if p.err != nil {
		return
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, signer)
	p.keep(err)
	private, err := x509.MarshalECPrivateKey(key)
	p.keep(err)
	p.write(name+".key", "EC PRIVATE KEY", private)
	p.write(name+".crt", "CERTIFICATE", der)
}

func (p *pki) write(name, kind string, der []byte) {
	if p.err == nil {
		p.err = os.WriteFile(filepath.Join(p.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
}

func (p *pki) read(name string) []byte {
	b, err := os.ReadFile(filepath.Join(p.dir, name))
	p.keep(err)
	return b
}

func (p *pki) has(name string) bool {
	_, err := os.Stat(filepath.Join(p.dir, name))
	return err == nil
}

func (p *pki) keep(err error) {
	if p.err == nil {
		p.err = err
	}
}
