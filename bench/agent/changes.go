package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// changes measures the time from asking the issuer for a change until a stream that waits is given its outcome. Changes
// begin at random moments, whatever became of those before: where an agent polls, many are under way at once.
func (m *measurement) changes(ctx context.Context) error {
	created := make([]time.Duration, m.samples())
	removed := make([]time.Duration, m.samples())
	err := m.each(ctx, func(ctx context.Context, i int) (err error) {
		created[i], removed[i], err = m.entryComesAndGoes(ctx, fmt.Sprintf("/change/%d", i))
		return err
	})
	if err != nil {
		return err
	}
	m.times(secChanges, "entry created", created)
	m.times(secChanges, "entry removed", removed)
	certs := make([][]byte, m.samples())
	for i := range certs {
		if certs[i], err = authority(int64(i)); err != nil {
			return err
		}
	}
	appended := make([]time.Duration, m.samples())
	err = m.each(ctx, func(ctx context.Context, i int) (err error) {
		appended[i], err = m.bundleGrows(ctx, certs[i])
		return err
	})
	if err != nil {
		return err
	}
	m.times(secChanges, "authority appended to the bundle", appended)
	return nil
}

func (m *measurement) samples() int {
	if m.polls {
		return m.set.polled
	}
	return m.set.changes
}

// gap is a random time around which changes follow one another.
func (m *measurement) gap() time.Duration {
	around := 30 * time.Millisecond
	if m.polls {
		around = 400 * time.Millisecond
	}
	return around/2 + time.Duration(mathrand.Int64N(int64(around)))
}

// each takes every sample.
func (m *measurement) each(ctx context.Context, sample func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for i := range m.samples() {
		if pause(ctx, m.gap()) != nil {
			break
		}
		running.Go(func() {
			if err := sample(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

func (m *measurement) entryComesAndGoes(ctx context.Context, path string) (created, removed time.Duration, err error) {
	come := m.watcher.expect(func(t told) bool { return t.has(path) })
	begin := time.Now()
	ids, err := m.programs.create(ctx, entry(path, os.Getuid()))
	if err != nil {
		return 0, 0, err
	}
	at, err := m.watcher.wait(ctx, come)
	if err != nil {
		return 0, 0, fmt.Errorf("created: %w", err)
	}
	created = at.Sub(begin)
	wait := m.gap()
	if m.polls {
		wait *= time.Duration(1 + mathrand.IntN(12)) // any moment between two polls
	}
	if err := pause(ctx, wait); err != nil {
		return 0, 0, err
	}
	gone := m.watcher.expect(func(t told) bool { return !t.has(path) })
	begin = time.Now()
	if err := m.programs.delete(ctx, ids[0]); err != nil {
		return 0, 0, err
	}
	if at, err = m.watcher.wait(ctx, gone); err != nil {
		return 0, 0, fmt.Errorf("removed: %w", err)
	}
	return created, at.Sub(begin), nil
}

func (m *measurement) bundleGrows(ctx context.Context, der []byte) (time.Duration, error) {
	come := m.watcher.expect(func(t told) bool { return t.trusts(der) })
	begin := time.Now()
	_, err := bundlev1.NewBundleClient(m.programs.admin).AppendBundle(ctx, &bundlev1.AppendBundleRequest{
		X509Authorities: []*types.X509Certificate{{Asn1: der}}, OutputMask: &types.BundleMask{}})
	if err != nil {
		return 0, err
	}
	at, err := m.watcher.wait(ctx, come)
	return at.Sub(begin), err
}

// authority is the certificate of a CA that nobody has the key of any more.
func authority(serial int64) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1000 + serial), Subject: pkix.Name{CommonName: fmt.Sprintf("authority %d", serial)},
		URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain}}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}
