package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

func template(t testing.TB, path string) registration.Entry {
	t.Helper()
	tmpl, err := registration.ParseTemplate(td, path)
	check(t, err)
	e := entry("unused")
	e.SPIFFEID, e.Template = registration.Entry{}.SPIFFEID, tmpl
	return e
}

// Of a template and IDs below it, created at once by many, never both are there.
func TestTemplateAndIDsBelowItRace(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	for round := range 8 {
		var wg sync.WaitGroup
		for n := range 4 {
			wg.Go(func() {
				_, _, err := s.CreateEntries(t.Context(), []registration.Entry{entry(fmt.Sprintf("r%d/w%d", round, n))})
				if err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				e := template(t, fmt.Sprintf("/r%d/{{unix:user%d}}", round, n%2))
				if _, _, err := s.CreateEntries(t.Context(), []registration.Entry{e}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	all := snapshot(t, s).Entries
	templates := 0
	for i, a := range all {
		if !a.Template.IsZero() {
			templates++
		}
		for _, b := range all[i+1:] {
			if a.Clash(b) {
				t.Errorf("%s and %s are both there", a.Name(), b.Name())
			}
		}
	}
	t.Logf("%d entries, of which %d have templates", len(all), templates)
}

// An update races with creation as a creation does.
func TestRenameRacesWithTemplates(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	for round := range 8 {
		plain := create(t, s, entry(fmt.Sprintf("start%d", round)))[0]
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _, err := s.UpdateEntry(t.Context(), plain.ID, func(e *registration.Entry) error {
				e.SPIFFEID = id("/q%d/x", round)
				return nil
			})
			if err != nil && !errors.Is(err, store.ErrReserved) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			results, _, err := s.CreateEntries(t.Context(), []registration.Entry{template(t, fmt.Sprintf("/q%d/{{unix:user}}", round))})
			if err != nil || results[0].Err != nil && !errors.Is(results[0].Err, store.ErrReserved) {
				t.Error(err, results[0].Err)
			}
		})
		wg.Wait()
	}
	all := snapshot(t, s).Entries
	for i, a := range all {
		for _, b := range all[i+1:] {
			if a.Clash(b) {
				t.Errorf("%s and %s are both there", a.Name(), b.Name())
			}
		}
	}
}

// Entries of several parents may have one template, and its prefix is free when
// the last of them is gone, over a restart too.
func TestTemplateIsSharedAndFreed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	first, second := template(t, "/d/{{docker:label:app}}"), template(t, "/d/{{docker:label:app}}")
	second.ParentID = id("/spire/agent/join_token/b")
	made := create(t, s, first, second)
	check(t, s.Close())
	s = open(t, dir)
	try := func(want error) {
		t.Helper()
		results, _, err := s.CreateEntries(t.Context(), []registration.Entry{entry("d/web")})
		check(t, err)
		wantErr(t, results[0].Err, want)
	}
	for _, e := range made {
		try(store.ErrReserved)
		_, _, err := s.DeleteEntries(t.Context(), []string{e.ID})
		check(t, err)
	}
	try(nil)
}
