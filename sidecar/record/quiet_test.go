package record_test

import (
	"slices"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/record"
)

func TestParseQuiet(t *testing.T) {
	for _, tt := range []struct {
		values []string
		want   record.Quiet
		err    string
	}{
		{nil, 0, ""},
		{[]string{""}, 0, ""},
		{[]string{"conns"}, record.QuietConnections, ""},
		{[]string{"conns", "handshake-errs", "conns"}, record.QuietConnections | record.QuietHandshakeErrors, ""},
		{[]string{"conns", "conn-errs", "handshake-errs"}, record.QuietAll, ""},
		{[]string{"all"}, record.QuietAll, ""},
		{[]string{"Conns"}, 0, `"Conns" is none of all, conns, conn-errs, handshake-errs`},
		{[]string{"conns,conn-errs"}, 0, `"conns,conn-errs" is none of all, conns, conn-errs, handshake-errs: repeat it for each`},
	} {
		got, err := record.ParseQuiet(tt.values)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != tt.want || text != tt.err {
			t.Errorf("%q: got %d, %q; want %d, %q", tt.values, got, text, tt.want, tt.err)
		}
	}
}

func TestQuietMutes(t *testing.T) {
	handshake := []record.Cause{record.NoIdentity, record.Expired, record.HandshakeTimeout, record.HandshakeFailed, record.Refused, record.RefusedByPeer}
	good := []record.Cause{record.Closed, record.Reset, record.IdleTimeout, record.MaxAge}
	for _, c := range all() {
		for _, up := range []bool{false, true} {
			r := &record.Record{Cause: c}
			if up {
				r.Connect = time.Second
			}
			conns, connErrs, handshakeErrs := record.QuietConnections, record.QuietConnErrors, record.QuietHandshakeErrors
			needs := conns | connErrs
			switch {
			case slices.Contains(handshake, c):
				needs = handshakeErrs
			case slices.Contains(good, c):
				needs = conns
			case !up:
				needs = connErrs
			}
			for q := record.Quiet(0); q <= record.QuietAll; q++ {
				if want := q&needs == needs; q.Mutes(r) != want {
					t.Errorf("quiet %b mutes %q (up: %v): %v, want %v", q, c, up, !want, want)
				}
			}
		}
	}
}

func FuzzParseQuiet(f *testing.F) {
	for _, s := range []string{"", "all", "conns", "conn-errs", "handshake-errs", "conns,conn-errs", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := record.ParseQuiet([]string{s})
		if q > record.QuietAll || err != nil && q != 0 {
			t.Errorf("%d, %v", q, err)
		}
	})
}
