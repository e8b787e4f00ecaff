package svidcache

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// template is an entry with an ID template, for callers of user 1.
func template(t *testing.T, id, path string, change ...func(*registration.Entry)) registration.Entry {
	t.Helper()
	tmpl, err := registration.ParseTemplate(spiffeid.RequireTrustDomainFromString("example.org"), path)
	if err != nil {
		t.Fatal(err)
	}
	return entry(id, append(change, func(e *registration.Entry) {
		e.SPIFFEID, e.Template, e.Selectors = spiffeid.ID{}, tmpl, selectors("unix:uid:1")
	})...)
}

// giveInstances gives the entries, and lets the issuer sign the paths for the template.
func (w *world) giveInstances(tmpl registration.Entry, paths ...string) {
	w.t.Helper()
	w.give(tmpl)
	w.issuer.set(func(s *issuer) {
		for _, path := range paths {
			e := tmpl
			e.SPIFFEID = spiffeid.RequireFromPath(tmpl.Template.TrustDomain(), path)
			s.entries[instanceID(tmpl.ID, path)] = e
		}
	})
}

func TestTemplateGivesEachCallerItsOwn(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.giveInstances(template(t, "t", "/app/{{docker:label:app}}"), "/app/web", "/app/db")
		web := w.Subscribe(caller("unix:uid:1", "docker:label:app:web"))
		defer web.Close()
		db := w.Subscribe(caller("unix:uid:1", "docker:label:app:db", "docker:label:tier:1"))
		defer db.Close()
		again := w.Subscribe(caller("unix:uid:1", "docker:label:app:web", "docker:label:tier:2"))
		defer again.Close()
		for sub, want := range map[*Subscription]string{web: "/app/web", db: "/app/db", again: "/app/web"} {
			svids := answer(t, sub).X509Context().SVIDs
			if len(svids) != 1 || svids[0].ID.Path() != want {
				t.Errorf("got %v, want %s", svids, want)
			}
		}
		if n := w.issuer.signed("t~/app/web"); n != 1 {
			t.Errorf("signed %d times for two callers of one instance", n)
		}
		if n := w.issuer.signed("t"); n != 0 {
			t.Errorf("the template itself was signed %d times", n)
		}
	})
}

func TestTemplateRefusesWhatCannotFillIt(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.giveInstances(template(t, "t", "/app/{{docker:label:app}}"))
		for name, sel := range map[string][]registration.Selector{
			"no value":    selectors("unix:uid:1"),
			"two values":  selectors("unix:uid:1", "docker:label:app:web", "docker:label:app:db"),
			"a path":      selectors("unix:uid:1", "docker:label:app:web/admin"),
			"dots":        selectors("unix:uid:1", "docker:label:app:.."),
			"not its own": selectors("unix:uid:2", "docker:label:app:web"),
		} {
			sub := w.Subscribe(Caller{Selectors: sel})
			if _, err := sub.Answer(t.Context()); !errors.Is(err, ErrNoIdentity) {
				t.Errorf("%s: %v", name, err)
			}
			sub.Close()
		}
	})
}

// TestTemplateForgetsInstances lets callers come and go: nothing is left of an instance nobody has, and it is not renewed.
func TestTemplateForgetsInstances(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.giveInstances(template(t, "t", "/app/{{docker:label:app}}"), "/app/a", "/app/b")
		for _, label := range []string{"a", "b"} {
			sub := w.Subscribe(caller("unix:uid:1", "docker:label:app:"+label))
			answer(t, sub)
			sub.Close()
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := w.issuer.signed("t~/app/a"); n != 1 {
			t.Errorf("signed %d times, and nobody has it", n)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if r := w.records["t"]; r.live != nil || w.figures.active != 0 {
			t.Errorf("%+v and %d active records are left", r.live, w.figures.active)
		}
	})
}

func TestTemplateChangesAndGoes(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		w.giveInstances(template(t, "t", "/app/{{docker:label:app}}"), "/app/web")
		sub := w.Subscribe(caller("unix:uid:1", "docker:label:app:web"))
		defer sub.Close()
		answer(t, sub)
		w.giveInstances(template(t, "t", "/apps/{{docker:label:app}}"), "/apps/web")
		if got := answer(t, sub).X509Context().SVIDs[0].ID.Path(); got != "/apps/web" {
			t.Errorf("after the change: %s", got)
		}
		time.Sleep(24 * time.Hour) // renewed as any other
		synctest.Wait()
		if n := w.issuer.signed("t~/apps/web"); n < 24 {
			t.Errorf("signed %d times in a day with SVIDs of an hour", n)
		}
		w.give()
		for {
			_, err := sub.Answer(t.Context())
			if errors.Is(err, ErrNoIdentity) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}
