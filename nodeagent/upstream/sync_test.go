package upstream_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

func TestSyncInPages(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.PageSize, sw.NoChanges = 10, true })
	var want []string
	for i := range 35 {
		e := entry(s, "tok", fmt.Sprintf("e%02d", i))
		e.CreatedAt = time.Unix(1000, 0)
		s.Put(e)
		want = append(want, e.ID)
	}
	a := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour)))
	if got := entryIDs(a.synced()); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	changed := entry(s, "tok", "e07")
	changed.CreatedAt, changed.Revision, changed.Hint = time.Unix(1000, 0), 1, "new"
	anew := entry(s, "tok", "e08")
	anew.CreatedAt, anew.Hint = time.Unix(2000, 0), "anew"
	s.Put(changed, anew)
	s.Delete("e00")
	state := a.await("the change", func(state upstream.Update) bool { return len(state.Entries) == 34 })
	if got := state.Entries[6].Hint + state.Entries[7].Hint; got != "newanew" {
		t.Errorf("hints %q", got)
	}
	// Down to one page: the list comes whole.
	for _, id := range want[5:] {
		s.Delete(id)
	}
	a.await("the short list", func(state upstream.Update) bool { return slices.Equal(entryIDs(state), want[1:5]) })
}

func TestSyncWithoutTheMethod(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.NoSync, sw.NoChanges = true, true })
	s.Put(entry(s, "tok", "a"))
	a := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour)))
	for range 3 {
		if got := entryIDs(a.synced()); !slices.Equal(got, []string{"a"}) {
			t.Errorf("got %v", got)
		}
	}
	if n := s.Calls("SyncAuthorizedEntries"); n != 1 {
		t.Errorf("asked %d times for what is not there", n)
	}
}

func TestSignsInBatches(t *testing.T) {
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.MaxBatch = 7 })
	a := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour)))
	a.synced()
	a.drain()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	var reqs []upstream.CSR
	for i := range 30 {
		e := entry(s, "tok", fmt.Sprintf("e%02d", i))
		if i != 13 {
			s.Put(e)
		}
		reqs = append(reqs, upstream.CSR{EntryID: e.ID, DER: csr})
	}
	answers, err := a.SignX509SVIDs(t.Context(), reqs)
	if err != nil || len(answers) != len(reqs) {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	for i, answer := range answers {
		switch {
		case i == 13:
			if status.Code(answer.Err) != codes.NotFound {
				t.Errorf("entry that is not there: %v", answer.Err)
			}
		case answer.Err != nil:
			t.Errorf("%d: %v", i, answer.Err)
		case answer.Chain[0].URIs[0].Path != "/"+reqs[i].EntryID:
			t.Errorf("answer %d is for %s", i, answer.Chain[0].URIs[0])
		}
	}
	if sizes := s.Batches(); slices.Max(sizes) > 7 || slices.Max(sizes) < 3 {
		t.Errorf("batches of %v", sizes)
	}
}
