package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// fetchLimit is how long an entry may take to reach a workload: a real agent asks once in 5 s.
const fetchLimit = 20 * time.Second

// selfPath is this test's own binary, as the agent sees it.
func selfPath(t *testing.T) string {
	t.Helper()
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// fetchGo gets an SVID for this process with go-spiffe, and verifies it with the bundle that came along.
func fetchGo(t *testing.T, d *harness.Domain, want string) {
	t.Helper()
	d.Until(fetchLimit, "an SVID for go-spiffe", func(ctx context.Context) error {
		got, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr(d.WorkloadAPI()))
		if err != nil {
			return err
		}
		svid := got.DefaultSVID()
		if svid.ID.String() != want {
			return fmt.Errorf("got %s, want %s", svid.ID, want)
		}
		bundle, ok := got.Bundles.Get(spiffeid.RequireTrustDomainFromString(d.Name))
		if !ok {
			return errors.New("no bundle of " + d.Name)
		}
		_, _, err = x509svid.Verify(svid.Certificates, bundle)
		return err
	})
}

// pyFetch prints the SPIFFE ID of the SVID it is given, after it verified that the bundle came along.
const pyFetch = `
import sys
from spiffe import WorkloadApiClient, TrustDomain
with WorkloadApiClient(sys.argv[1]) as client:
    context = client.fetch_x509_context(timeout=10)
    svid = context.default_svid
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    assert bundle is not None and bundle.x509_authorities, "no bundle"
    print(svid.spiffe_id)
`

// fetchPython gets an SVID for a Python program with the client of that language.
func fetchPython(t *testing.T, d *harness.Domain, python, want string) {
	t.Helper()
	d.Until(fetchLimit, "an SVID for py-spiffe", func(ctx context.Context) error {
		out, err := harness.Run(ctx, python, "-c", pyFetch, d.WorkloadAPI())
		if got := strings.TrimSpace(out); err == nil && got != want {
			err = fmt.Errorf("got %q, want %s", got, want)
		}
		return err
	})
}

// pythonPath is what a virtual environment's Python really runs.
func pythonPath(t *testing.T, python string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(python)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPythonClientIsServed(t *testing.T) {
	t.Parallel()
	python := pythonBinary(t)
	d := harness.NewDomain(t, bin, harness.Options{})
	d.Start()
	id := d.ID("/snake")
	d.Entry(id, pythonPath(t, python), 0)
	fetchPython(t, d, python, id)
}
