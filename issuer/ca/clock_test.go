package ca_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// A clock that is set back a day loses nothing: what was there before signs
// again when it is right again.
func TestClockSetBackADay(t *testing.T) {
	s := newSite(t)
	var log bytes.Buffer
	a := s.with(func(cfg *ca.Config) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	first := hexOf(sign(t, a).AuthorityKeyId)
	s.clock.Set(13 * time.Hour)
	s.advance(a)
	before, err := a.X509State()
	if err != nil || before.Prepared == nil {
		t.Fatalf("%+v, %v", before, err)
	}

	s.clock.Set(-11 * time.Hour)
	s.advance(a)
	if !strings.Contains(log.String(), "the clock was set back") || !strings.Contains(log.String(), "by=24h0m0s") {
		t.Errorf("no clear warning:\n%s", &log)
	}
	leaf := sign(t, a)
	if now := s.clock.Now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		t.Errorf("an SVID from %s to %s at %s", leaf.NotBefore, leaf.NotAfter, now)
	}
	if signer := s.bundle()[string(leaf.AuthorityKeyId)]; signer == nil || s.clock.Now().Before(signer.NotBefore) {
		t.Error("the signer is not valid by this clock, or not published")
	}
	own, err := a.SVID()
	if err != nil || s.clock.Now().Before(own.Certificates[0].NotBefore) {
		t.Errorf("the issuer's own SVID begins in the future: %v, %v", own, err)
	}
	if s.bundle()[keyOf(t, first)] == nil || s.bundle()[keyOf(t, before.Prepared.ID)] == nil {
		t.Fatal("an authority was lost from the bundle")
	}
	// Restarted meanwhile, and set right again.
	a = s.start()
	s.clock.Set(13*time.Hour + time.Minute)
	s.advance(a)
	if got := hexOf(sign(t, a).AuthorityKeyId); got != first {
		t.Errorf("%s signs when the clock is right again, want %s", got, first)
	}
	if leaf := sign(t, s.start()); leaf.NotAfter.Sub(s.clock.Now()) < time.Hour-time.Minute {
		t.Errorf("cut short to %s", leaf.NotAfter)
	}
}

// NTP takes a clock back by seconds every day.
func TestClockSetBackALittle(t *testing.T) {
	s := newSite(t)
	var log bytes.Buffer
	a := s.with(func(cfg *ca.Config) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	first := hexOf(sign(t, a).AuthorityKeyId)
	s.clock.Set(-30 * time.Second)
	s.advance(a)
	if got := hexOf(sign(t, a).AuthorityKeyId); got != first || strings.Contains(log.String(), "WARN") {
		t.Errorf("%s signs, and it says:\n%s", got, &log)
	}
}

// An issuer that was ahead made its authority for the future; set right, it must
// not leave everyone without for a day.
func TestClockWasAhead(t *testing.T) {
	s := newSite(t)
	s.clock.Set(24 * time.Hour)
	s.start()
	s.clock.Set(0)
	leaf := sign(t, s.start())
	if root := s.bundle()[string(leaf.AuthorityKeyId)]; root.NotBefore.After(s.clock.Now()) {
		t.Error("the authority that signs begins tomorrow")
	}
}

func keyOf(t *testing.T, id string) string {
	t.Helper()
	return string(unhex(t, id))
}
