package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

const (
	// foreignDomains is with how many trust domains the stream's entry federates: a bundle has one change under way.
	foreignDomains = 20
	// maxAuthorities keeps the own bundle from becoming what no bundle is.
	maxAuthorities = 40
)

// bundles does the same with bundles: federated ones that are replaced, and the own one that grows, less often.
func (m *measurement) bundles(ctx context.Context) error {
	domains, err := m.federate(ctx)
	if err != nil {
		return err
	}
	replaced := make([]time.Duration, m.samples())
	err = m.each(ctx, len(replaced), func(ctx context.Context, i int) (err error) {
		one := &domains[i%len(domains)]
		one.Lock()
		defer one.Unlock()
		replaced[i], err = m.bundleIsReplaced(ctx, one.name, int64(i))
		return err
	})
	if err != nil {
		return err
	}
	m.times(secChanges, "federated bundle replaced", replaced)
	appended := make([]time.Duration, min(m.samples(), maxAuthorities))
	err = m.each(ctx, len(appended), func(ctx context.Context, i int) (err error) {
		appended[i], err = m.bundleGrows(ctx, int64(i))
		return err
	})
	if err != nil {
		return err
	}
	m.times(secChanges, "authority appended to the bundle", appended)
	return nil
}

// foreign is a trust domain, locked while its bundle changes.
type foreign struct {
	sync.Mutex
	name string
}

// federate sets the bundles of the foreign trust domains, and registers this process for them.
func (m *measurement) federate(ctx context.Context) ([]foreign, error) {
	domains := make([]foreign, foreignDomains)
	e := entry("/federated", os.Getuid())
	for i := range domains {
		domains[i].name = fmt.Sprintf("foreign-%d.test", i)
		e.FederatesWith = append(e.FederatesWith, domains[i].name)
		if err := m.setBundle(ctx, domains[i].name, nil); err != nil {
			return nil, err
		}
	}
	come := m.watcher.expect(func(t told) bool { return t.has("/federated") })
	if _, err := m.programs.create(ctx, e); err != nil {
		return nil, err
	}
	_, err := m.watcher.wait(ctx, come)
	return domains, err
}

// setBundle makes the authority, or a new one if there is none, all that a federated bundle has.
func (m *measurement) setBundle(ctx context.Context, domain string, der []byte) (err error) {
	if der == nil {
		if der, err = authority(domain, 0); err != nil {
			return err
		}
	}
	resp, err := bundlev1.NewBundleClient(m.programs.admin).BatchSetFederatedBundle(ctx, &bundlev1.BatchSetFederatedBundleRequest{
		Bundle: []*types.Bundle{{TrustDomain: domain, X509Authorities: []*types.X509Certificate{{Asn1: der}}}}, OutputMask: &types.BundleMask{}})
	if err != nil {
		return err
	}
	if result := resp.GetResults()[0].GetStatus(); result.GetCode() != 0 {
		return errors.New(result.GetMessage())
	}
	return nil
}

func (m *measurement) bundleIsReplaced(ctx context.Context, domain string, serial int64) (time.Duration, error) {
	der, err := authority(domain, serial)
	if err != nil {
		return 0, err
	}
	come := m.watcher.expect(func(t told) bool { return bytes.Equal(t.federated["spiffe://"+domain], der) })
	begin := time.Now()
	if err := m.setBundle(ctx, domain, der); err != nil {
		return 0, err
	}
	at, err := m.watcher.wait(ctx, come)
	return at.Sub(begin), err
}

func (m *measurement) bundleGrows(ctx context.Context, serial int64) (time.Duration, error) {
	der, err := authority(trustDomain, serial)
	if err != nil {
		return 0, err
	}
	come := m.watcher.expect(func(t told) bool { return t.trusts(der) })
	begin := time.Now()
	_, err = bundlev1.NewBundleClient(m.programs.admin).AppendBundle(ctx, &bundlev1.AppendBundleRequest{
		X509Authorities: []*types.X509Certificate{{Asn1: der}}, OutputMask: &types.BundleMask{}})
	if err != nil {
		return 0, err
	}
	at, err := m.watcher.wait(ctx, come)
	return at.Sub(begin), err
}

// authority is the certificate of a CA that nobody has the key of any more.
func authority(domain string, serial int64) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1000 + serial), Subject: pkix.Name{CommonName: fmt.Sprintf("authority %d", serial)},
		URIs: []*url.URL{{Scheme: "spiffe", Host: domain}}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}
