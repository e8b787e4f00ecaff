package via_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/via"
)

// canned is a connection to a proxy that says what it will, in pieces, whatever it is asked.
type canned struct {
	net.Conn
	says  string
	piece int
}

func (c *canned) Read(b []byte) (int, error) {
	if c.says == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.piece)], c.says)
	c.says = c.says[n:]
	return n, nil
}

func (c *canned) Write(b []byte) (int, error) { return len(b), nil }
func (c *canned) Close() error                { return nil }
func (c *canned) SetDeadline(time.Time) error { return nil }

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200\n\n", "HTTP/1.1 407 Auth\r\nA: b\r\n\r\nbody", "SSH-2.0",
		"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x01", "\x05\x02\x01\x00\x05\x00\x00\x03\x01a\x00\x01more", "\x05\xff", "\x05\x00\x05\x02\x00\x01",
	} {
		f.Add(s, byte(1))
		f.Add(s, byte(255))
	}
	http, err := via.Parse("via", "http://u:s3cr3t@p.test")
	if err != nil {
		f.Fatal(err)
	}
	socks, err := via.Parse("via", "socks5://u:s3cr3t@p.test")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, says string, piece byte) {
		for _, p := range []*via.Proxy{http, socks} {
			conn := &canned{says: says, piece: int(piece) + 1}
			c, err := p.Dial(t.Context(), func(context.Context, string, string) (net.Conn, error) { return conn, nil }, "db.test:443")
			used := says[:len(says)-len(conn.says)]
			switch {
			case err != nil:
				if s := err.Error(); strings.ContainsAny(s, "\r\n") || strings.Contains(s, "s3cr3t") && !strings.Contains(says, "s3cr3t") || len(s) > 600 {
					t.Fatalf("%q", s)
				}
			case c != net.Conn(conn):
				t.Fatalf("got %T", c)
			case p == http && !strings.HasSuffix(used, "\n\n") && !strings.HasSuffix(used, "\n\r\n"):
				t.Fatalf("read %q", used)
			case p == socks && len(used) > 2+2+4+1+255+2:
				t.Fatalf("read %d bytes", len(used))
			}
			if len(used) > 16<<10 {
				t.Fatalf("read %d bytes", len(used))
			}
		}
	})
}
