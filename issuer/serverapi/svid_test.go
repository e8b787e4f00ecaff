package serverapi

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func TestBatchNewX509SVID(t *testing.T) {
	r := newRig(t)
	svid := r.join()
	client := svidv1.NewSVIDClient(r.as(svid))
	mine := r.entry(registration.Entry{
		SPIFFEID: spiffeID("/web"), ParentID: svid.ID, DNSNames: []string{"web.example"}, X509SVIDTTL: 10 * time.Minute,
	})
	foreign := r.entry(registration.Entry{SPIFFEID: spiffeID("/db"), ParentID: r.join().ID})
	expired := r.entry(registration.Entry{SPIFFEID: spiffeID("/old"), ParentID: svid.ID, ExpiresAt: time.Unix(1, 0)})
	key := newKey(t)
	// What the CSR asks for, besides its key, has no say.
	csr := csrOf(t, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "root"}, DNSNames: []string{"bank.example"},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "lanyard.test", Path: "/spire/server"}},
	}, key)
	forged := slices.Clone(csr)
	forged[len(forged)-1] ^= 1
	resp, err := client.BatchNewX509SVID(t.Context(), &svidv1.BatchNewX509SVIDRequest{Params: []*svidv1.NewX509SVIDParams{
		{EntryId: mine, Csr: csr},
		{Csr: csr},
		{EntryId: mine},
		{EntryId: foreign, Csr: csr},
		{EntryId: expired, Csr: csr},
		{EntryId: "made-up", Csr: csr},
		{EntryId: mine, Csr: []byte("garbage")},
		{EntryId: mine, Csr: forged},
		{EntryId: mine, Csr: csr},
	}})
	must(t, err)
	var got []string
	for _, result := range resp.Results {
		message, _, _ := strings.Cut(result.Status.GetMessage(), ":")
		got = append(got, codes.Code(result.Status.GetCode()).String()+" "+message)
		if (result.Svid != nil) != (result.Status.GetCode() == 0) {
			t.Errorf("status %v with SVID %v", result.Status, result.Svid)
		}
	}
	if diff := cmp.Diff([]string{
		"OK OK",
		"InvalidArgument missing entry ID",
		"InvalidArgument missing CSR",
		"NotFound entry not found or not authorized",
		"NotFound entry not found or not authorized",
		"NotFound entry not found or not authorized",
		"InvalidArgument malformed CSR",
		"InvalidArgument invalid CSR signature",
		"OK OK",
	}, got); diff != "" {
		t.Fatalf("results (-want +got):\n%s", diff)
	}
	signed, err := svidOf(resp.Results[0].Svid, key)
	must(t, err)
	leaf := signed.Certificates[0]
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://lanyard.test/web" || leaf.Subject.CommonName != "web.example" ||
		!slices.Equal(leaf.DNSNames, []string{"web.example"}) || leaf.NotAfter.Sub(r.now()) > 10*time.Minute {
		t.Errorf("leaf: %v, %v, %v, until %v", leaf.URIs, leaf.Subject, leaf.DNSNames, leaf.NotAfter)
	}
	if resp.Results[0].Svid.ExpiresAt != leaf.NotAfter.Unix() {
		t.Errorf("expires_at = %d", resp.Results[0].Svid.ExpiresAt)
	}

	_, err = client.BatchNewX509SVID(t.Context(), &svidv1.BatchNewX509SVIDRequest{})
	wantStatus(t, err, codes.InvalidArgument, "missing parameters")
	_, err = client.BatchNewX509SVID(t.Context(), &svidv1.BatchNewX509SVIDRequest{
		Params: slices.Repeat([]*svidv1.NewX509SVIDParams{{EntryId: mine, Csr: csr}}, 501),
	})
	wantStatus(t, err, codes.ResourceExhausted, "501 parameters: at most 500 in a call")
}

func TestMintX509SVID(t *testing.T) {
	r := newRig(t)
	admin := svidv1.NewSVIDClient(r.local())
	key := newKey(t)
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		must(t, err)
		return u
	}
	web := uri("spiffe://lanyard.test/web")
	mint := func(template *x509.CertificateRequest, ttl int32) (*types.X509SVID, error) {
		resp, err := admin.MintX509SVID(t.Context(), &svidv1.MintX509SVIDRequest{Csr: csrOf(t, template, key), Ttl: ttl})
		return resp.GetSvid(), err
	}
	p, err := mint(&x509.CertificateRequest{
		Subject: pkix.Name{Organization: []string{"Example"}}, URIs: []*url.URL{web}, DNSNames: []string{"a.example", "*.b.example"},
	}, 120)
	must(t, err)
	svid, err := svidOf(p, key)
	must(t, err)
	leaf := svid.Certificates[0]
	if leaf.Subject.String() != "CN=a.example,O=Example" || leaf.URIs[0].String() != web.String() || leaf.NotAfter.Sub(r.now()) > 2*time.Minute {
		t.Errorf("leaf: %v, %v, until %v", leaf.Subject, leaf.URIs, leaf.NotAfter)
	}
	p, err = mint(&x509.CertificateRequest{URIs: []*url.URL{web}}, 0)
	must(t, err)
	if svid, err = svidOf(p, key); err != nil || svid.Certificates[0].Subject.String() != "O=SPIRE,C=US" {
		t.Errorf("subject = %v, %v", svid.Certificates[0].Subject, err)
	}

	for _, tt := range []struct {
		name     string
		template *x509.CertificateRequest
		ttl      int32
		want     string
	}{
		{"no URI", &x509.CertificateRequest{}, 0, "CSR URI SAN is required"},
		{"two URIs", &x509.CertificateRequest{URIs: []*url.URL{web, web}}, 0, "only one URI SAN is expected"},
		{"no SPIFFE ID", &x509.CertificateRequest{URIs: []*url.URL{uri("https://lanyard.test/web")}}, 0, "CSR URI SAN is invalid"},
		{"foreign", &x509.CertificateRequest{URIs: []*url.URL{uri("spiffe://other.test/web")}}, 0, "CSR URI SAN is invalid"},
		{"trust domain", &x509.CertificateRequest{URIs: []*url.URL{uri("spiffe://lanyard.test")}}, 0, "CSR URI SAN is invalid"},
		{"reserved", &x509.CertificateRequest{URIs: []*url.URL{uri("spiffe://lanyard.test/spire/server")}}, 0, "CSR URI SAN is invalid"},
		{"DNS name", &x509.CertificateRequest{URIs: []*url.URL{web}, DNSNames: []string{"a b"}}, 0, "CSR DNS name is invalid"},
		{"negative ttl", &x509.CertificateRequest{URIs: []*url.URL{web}}, -1, "ttl must not be negative"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := mint(tt.template, tt.ttl)
			message, _, _ := strings.Cut(status.Convert(err).Message(), ":")
			if status.Code(err) != codes.InvalidArgument || message != tt.want {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
		})
	}
	_, err = admin.MintX509SVID(t.Context(), &svidv1.MintX509SVIDRequest{})
	wantStatus(t, err, codes.InvalidArgument, "missing CSR")
}

func TestUnimplementedSaysWhat(t *testing.T) {
	r := newRig(t)
	_, err := svidv1.NewSVIDClient(r.local()).MintWITSVID(t.Context(), &svidv1.MintWITSVIDRequest{})
	wantStatus(t, err, codes.Unimplemented, "WIT functionality is disabled")
}

func TestBundle(t *testing.T) {
	r := newRig(t)
	client := bundlev1.NewBundleClient(r.as(nil))
	bundle, err := client.GetBundle(t.Context(), &bundlev1.GetBundleRequest{})
	must(t, err)
	if bundle.TrustDomain != "lanyard.test" || len(bundle.X509Authorities) != 1 || bundle.SequenceNumber == 0 {
		t.Errorf("bundle = %v", bundle)
	}
	bundle, err = client.GetBundle(t.Context(), &bundlev1.GetBundleRequest{OutputMask: &types.BundleMask{SequenceNumber: true}})
	must(t, err)
	if bundle.TrustDomain != "lanyard.test" || len(bundle.X509Authorities) != 0 || bundle.SequenceNumber == 0 {
		t.Errorf("masked bundle = %v", bundle)
	}
	admin := bundlev1.NewBundleClient(r.local())
	count, err := admin.CountBundles(t.Context(), &bundlev1.CountBundlesRequest{})
	if err != nil || count.Count != 1 {
		t.Errorf("CountBundles = %v, %v", count, err)
	}
	_, err = admin.GetFederatedBundle(t.Context(), &bundlev1.GetFederatedBundleRequest{TrustDomain: "other.test"})
	wantStatus(t, err, codes.NotFound, "bundle not found")
	_, err = admin.GetFederatedBundle(t.Context(), &bundlev1.GetFederatedBundleRequest{TrustDomain: "lanyard.test"})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("own trust domain: %v", err)
	}
	_, err = admin.GetFederatedBundle(t.Context(), &bundlev1.GetFederatedBundleRequest{TrustDomain: "Not One"})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("malformed trust domain: %v", err)
	}
}
