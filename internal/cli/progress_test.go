package cli

import (
	"bytes"
	"testing"
	"time"
)

func TestProgressIsSilentWithoutATerminal(t *testing.T) {
	var b bytes.Buffer
	p := (&Env{Stderr: &b}).Progress("entries", 10, false)
	p.start = p.start.Add(-time.Hour)
	p.Add(5)
	p.End()
	if b.Len() > 0 {
		t.Errorf("%q", b.String())
	}
}

func TestProgressShowsABar(t *testing.T) {
	var b bytes.Buffer
	p := &Progress{w: &b, what: "entries", total: 10, start: time.Now()}
	p.Add(1) // too early to be worth it
	if b.Len() > 0 {
		t.Errorf("%q at the beginning", b.String())
	}
	if got, want := p.line(2*time.Second), "entries [===                           ] 1 of 10, 18s left"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	p.start = p.start.Add(-time.Minute)
	p.Add(9)
	p.End()
	if got, want := b.String(), "\rentries [==============================] 10 of 10\x1b[K\r\x1b[K"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
