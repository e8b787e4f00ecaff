package traffic_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/traffic"
)

const limit = 20 * time.Second // of a conversation

func start(t *testing.T) *traffic.Traffic {
	t.Helper()
	return startFor(t, limit)
}

func startFor(t *testing.T, limit time.Duration) *traffic.Traffic {
	t.Helper()
	tr, err := traffic.New(traffic.Options{Every: time.Millisecond, Limit: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Finish)
	return tr
}

func open(t *testing.T, tr *traffic.Traffic, addr string, n int) []*traffic.Talk {
	t.Helper()
	talks, err := tr.Open(t.Context(), addr, n)
	if err != nil {
		t.Fatal(err)
	}
	return talks
}

func TestConversationsComeThroughWhole(t *testing.T) {
	tr := start(t)
	open(t, tr, tr.Target(), 20)
	<-time.After(50 * time.Millisecond) // a length of the conversations; any will do
	tr.Finish()
	if r := tr.Check(); len(r.Faults) > 0 || r.Whole != 20 || r.Bytes == 0 {
		t.Errorf("%+v", r)
	}
}

func TestABackendThatResetsExcusesItsConversations(t *testing.T) {
	tr := start(t)
	open(t, tr, tr.Target(), 10)
	<-time.After(50 * time.Millisecond)
	tr.Down(func(talk *traffic.Talk) bool { return talk.ID%2 == 0 })
	if err := tr.Up(); err != nil {
		t.Fatal(err)
	}
	open(t, tr, tr.Target(), 5)
	<-time.After(50 * time.Millisecond)
	tr.Finish()
	if r := tr.Check(); len(r.Faults) > 0 || r.Whole != 10 || r.Excused != 5 {
		t.Errorf("%+v", r)
	}
}

// What a middleman does wrong is found.
func TestFaultsAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		to, from func(int64, []byte) ([]byte, bool) // what becomes of the bytes at a place, and whether to go on
		limit    time.Duration
		want     string
	}{
		"a byte changed": {func(at int64, b []byte) ([]byte, bool) {
			if at <= 10 && at+int64(len(b)) > 10 {
				b[10-at] ^= 1
			}
			return b, true
		}, nil, limit, "byte 2 is"},
		"bytes lost before a regular end": {nil, func(at int64, b []byte) ([]byte, bool) { return b[:min(len(b), 1)], false }, limit, "told a regular end after"},
		"nothing sent on":                 {func(int64, []byte) ([]byte, bool) { return nil, true }, nil, 300 * time.Millisecond, "never reached"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := startFor(t, c.limit)
			open(t, tr, middleman(t, tr.Target(), c.to, c.from), 1)
			<-time.After(100 * time.Millisecond)
			tr.Finish()
			r := tr.Check()
			if len(r.Faults) != 1 || !strings.Contains(r.Faults[0].Error(), c.want) {
				t.Errorf("%+v, want one fault %q", r, c.want)
			}
		})
	}
}

// middleman forwards connections and changes what they carry. Its address is returned.
func middleman(t *testing.T, target string, to, from func(int64, []byte) ([]byte, bool)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				near.Close()
				continue
			}
			all.Go(func() { forward(far, near, to) })
			all.Go(func() { forward(near, far, from) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// forward half-closes at the end, or where change says to stop; then it reads on to the end.
func forward(to, from net.Conn, change func(int64, []byte) ([]byte, bool)) {
	buf := make([]byte, 512)
	for at, going := int64(0), true; ; {
		n, err := from.Read(buf)
		if out := buf[:n]; going {
			if change != nil {
				out, going = change(at, out)
			}
			_, _ = to.Write(out)
			if !going || err != nil {
				_ = to.(*net.TCPConn).CloseWrite()
			}
		}
		if at += int64(n); err != nil {
			if err != io.EOF {
				to.Close()
			}
			return
		}
	}
}

func TestHostileClients(t *testing.T) {
	hello := traffic.Hello()
	if len(hello) < 100 || hello[0] != 22 || len(hello) != 5+int(hello[3])<<8+int(hello[4]) {
		t.Errorf("no ClientHello: % x", hello)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { // as a server with a short patience does
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(50 * time.Millisecond))
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	if err := traffic.Flood(t.Context(), l.Addr().String(), 60); err != nil {
		t.Error(err)
	}
	if lasted, err := traffic.Loris(t.Context(), l.Addr().String(), 5, 10*time.Millisecond); err != nil || lasted < 50*time.Millisecond {
		t.Errorf("lasted %v, %v", lasted, err)
	}
	l.Close()
	all.Wait()
}
