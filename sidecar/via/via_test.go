package via_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/setting"
	"github.com/lanyard-mtls/lanyard/sidecar/via"
)

func parse(t *testing.T, s string) *via.Proxy {
	t.Helper()
	p, err := via.Parse("via", s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Gaps 12 and 23: the password was logged; the sandbox opened another port than the one dialled.
func TestGap12ProxyPasswordIsNotShown(t *testing.T) {
	for in, want := range map[string]struct{ shown, address string }{
		"http://proxy.test":                           {"http://proxy.test:8080", "proxy.test:8080"},
		"http://proxy.test:3128/":                     {"http://proxy.test:3128", "proxy.test:3128"},
		"http://u:s3cr3t%2F%25@proxy.test":            {"http://u@proxy.test:8080", "proxy.test:8080"},
		"socks5://[::1]":                              {"socks5://[::1]:1080", "[::1]:1080"},
		"socks5h://us%3Aer:s3cr3t%2F%25@proxy.test:9": {"socks5h://us%3Aer@proxy.test:9", "proxy.test:9"},
	} {
		p := parse(t, in)
		if p.String() != want.shown || p.Address() != want.address {
			t.Errorf("%s: %s, %s; want %v", in, p, p.Address(), want)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if s := fmt.Sprintf(verb, p); strings.Contains(s, "s3cr3t") {
				t.Errorf("%s shows the password: %s", verb, s)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "not a proxy: give http://[USER:PASSWORD@]HOST[:PORT]",
		"proxy.test:3128":                "not a proxy",
		"u:s3cr3t@proxy.test:3128":       "not a proxy",
		"http://u:s3cr3t@proxy.test:x":   "not a URL",
		"ftp://u:s3cr3t@proxy.test":      "not a proxy",
		"https://u:s3cr3t@proxy.test":    "via https://proxy.test: TLS to a proxy is not supported: give http://",
		"http://u:s3cr3t@":               "the host is missing",
		"http://u:s3cr3t@proxy.test/x":   "something behind the port",
		"http://u:s3cr3t@proxy.test?x":   "something behind the port",
		"http://:s3cr3t@proxy.test":      "a password without a user",
		"http://a%3Ab:s3cr3t@proxy.test": "colon",
		"http://proxy.test:0":            `"0" is not a port`,
		"http://proxy.test:65536":        `"65536" is not a port`,
		"socks5://u:" + strings.Repeat("s3cr3t", 50) + "@proxy.test": "up to 255 bytes",
		"http://u:s3cr3t@proxy test":                                 "not a URL",
	} {
		p, err := via.Parse("via", in)
		var wrong *setting.Error
		if !errors.As(err, &wrong) || wrong.Key != "via" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, %v; want one line with %q", in, p, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the password is shown: %v", in, err)
		}
	}
}

// exchange is what a proxy is asked, and what it says to that.
type exchange struct{ asked, answer string }

// scripted dials a proxy that goes through the script and then says nothing more.

func scripted(t *testing.T, script ...exchange) via.DialFunc {
	return func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		t.Cleanup(func() { client.Close(); server.Close() })
		go func() {
			defer server.Close()
			for _, e := range script {
				got := make([]byte, len(e.asked))
				if _, err := io.ReadFull(server, got); err != nil || string(got) != e.asked {
					t.Errorf("asked %q, %v; want %q", got, err, e.asked)
					return
				}
				if _, err := io.WriteString(server, e.answer); err != nil {
					return // the client has seen enough
				}
			}
			io.Copy(io.Discard, server)
		}()
		return client, nil
	}
}

const (
	connectReq = "CONNECT db.test:443 HTTP/1.1\r\nHost: db.test:443\r\n\r\n"
	withBasic  = "CONNECT db.test:443 HTTP/1.1\r\nHost: db.test:443\r\nProxy-Authorization: Basic dTpzM2NyM3QvJQ==\r\n\r\n"
	socksReq   = "\x05\x01\x00\x03\x07db.test\x01\xbb"
)

func TestDialAgrees(t *testing.T) {
	for name, tt := range map[string]struct {
		proxy, target string
		script        []exchange
	}{
		"http":          {"http://p.test", "db.test:443", []exchange{{connectReq, "HTTP/1.1 200 OK\r\n\r\n"}}},
		"http 1.0":      {"http://p.test", "db.test:https", []exchange{{connectReq, "HTTP/1.0 299\r\nVia: x\r\n\r\n"}}},
		"http bare lf":  {"http://p.test", "db.test:443", []exchange{{connectReq, "HTTP/1.1 200 OK\nVia: x\n\n"}}},
		"http interim":  {"http://p.test", "db.test:443", []exchange{{connectReq, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"}}},
		"http user":     {"http://u:s3cr3t%2F%25@p.test", "db.test:443", []exchange{{withBasic, "HTTP/1.1 200 OK\r\n\r\n"}}},
		"http ipv6":     {"http://p.test", "[2001:db8::1]:443", []exchange{{"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"}}},
		"socks5":        {"socks5://p.test", "db.test:443", []exchange{{"\x05\x01\x00", "\x05\x00"}, {socksReq, "\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x01"}}},
		"socks5h name":  {"socks5h://p.test", "db.test:443", []exchange{{"\x05\x01\x00", "\x05\x00"}, {socksReq, "\x05\x00\x00\x03\x03abc\x00\x01"}}},
		"socks5 ipv4":   {"socks5://p.test", "192.0.2.1:443", []exchange{{"\x05\x01\x00", "\x05\x00"}, {"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb", "\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x01"}}},
		"socks5 ipv6":   {"socks5://p.test", "[::1]:443", []exchange{{"\x05\x01\x00", "\x05\x00"}, {"\x05\x01\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x01\xbb", "\x05\x00\x00\x04" + strings.Repeat("\x00", 18)}}},
		"socks5 user":   {"socks5://u:s3cr3t%2F%25@p.test", "db.test:443", []exchange{{"\x05\x02\x00\x02", "\x05\x02"}, {"\x01\x01u\x08s3cr3t/%", "\x01\x00"}, {socksReq, "\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x01"}}},
		"socks5 unused": {"socks5://u:s3cr3t%2F%25@p.test", "db.test:443", []exchange{{"\x05\x02\x00\x02", "\x05\x00"}, {socksReq, "\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x01"}}},
	} {
		t.Run(name, func(t *testing.T) {
			script := append(tt.script, exchange{"hello", "and what follows"})
			var dialled net.Conn
			dial := scripted(t, script...)
			c, err := parse(t, tt.proxy).Dial(t.Context(), func(ctx context.Context, network, address string) (net.Conn, error) {
				if network != "tcp" || !strings.HasPrefix(address, "p.test:") {
					t.Errorf("dialled %s %s", network, address)
				}
				var err error
				dialled, err = dial(ctx, network, address)
				return dialled, err
			}, tt.target)
			if err != nil {
				t.Fatal(err)
			}
			if c != dialled {
				t.Errorf("returned a %T, not the connection that was dialled", c)
			}
			if _, err := io.WriteString(c, "hello"); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len("and what follows"))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "and what follows" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestDialRefuses(t *testing.T) {
	const user = "http://u:s3cr3t%2F%25@p.test"
	greeted := exchange{"\x05\x01\x00", "\x05\x00"}
	for name, tt := range map[string]struct {
		proxy, target, want string
		script              []exchange
	}{
		"no password":    {"http://p.test", "db.test:443", "answered 407 Auth for db.test:443: give user and password, http://USER:PASSWORD@", []exchange{{connectReq, "HTTP/1.1 407 Auth\r\nContent-Length: 3\r\n\r\nno!"}}},
		"wrong password": {user, "db.test:443", `it takes another password for user "u"`, []exchange{{withBasic, "HTTP/1.1 407 Auth\r\n\r\n"}}},
		"forbidden":      {"http://p.test", "db.test:443", "answered 403 for db.test:443: let the proxy permit CONNECT", []exchange{{connectReq, "HTTP/1.1 403\r\n\r\n"}}},
		"unreachable":    {"http://p.test", "db.test:443", "answered 503 No?way for db.test:443: the proxy can't reach it", []exchange{{connectReq, "HTTP/1.1 503 No\x1bway\r\n\r\n"}}},
		"moved":          {"http://p.test", "db.test:443", "a web server", []exchange{{connectReq, "HTTP/1.1 301 Moved\r\n\r\n"}}},
		"not found":      {"http://p.test", "db.test:443", "answered 404 Not Found for db.test:443: see the proxy's log", []exchange{{connectReq, "HTTP/1.1 404 Not Found\r\n\r\n"}}},
		"more":           {"http://p.test", "db.test:443", "5 bytes follow its answer", []exchange{{connectReq, "HTTP/1.1 200 OK\r\n\r\nhello"}}},
		"switching":      {"http://p.test", "db.test:443", "switches protocols", []exchange{{connectReq, "HTTP/1.1 101 Switching\r\n\r\n"}}},
		"http 2":         {"http://p.test", "db.test:443", "does not speak HTTP", []exchange{{connectReq, "HTTP/2 200 OK\r\n\r\n"}}},
		"bad code":       {"http://p.test", "db.test:443", "does not speak HTTP", []exchange{{connectReq, "HTTP/1.1 20 OK\r\n\r\n"}}},
		"ssh":            {"http://p.test", "db.test:443", `does not speak HTTP, but says "SSH-2.0-`, []exchange{{connectReq, "SSH-2.0-OpenSSH_9.2\r\n"}}},
		"endless":        {"http://p.test", "db.test:443", "no end within 16384 bytes", []exchange{{connectReq, "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 4000)}}},
		"socks no user":  {"socks5://p.test", "db.test:443", "give socks5://USER:PASSWORD@", []exchange{{"\x05\x01\x00", "\x05\xff"}}},
		"socks refused":  {"socks5://u:s3cr3t%2F%25@p.test", "db.test:443", "neither", []exchange{{"\x05\x02\x00\x02", "\x05\xff"}}},
		"socks password": {"socks5://u:s3cr3t%2F%25@p.test", "db.test:443", `refuses user "u"`, []exchange{{"\x05\x02\x00\x02", "\x05\x02"}, {"\x01\x01u\x08s3cr3t/%", "\x01\x01"}}},
		"socks method":   {"socks5://p.test", "db.test:443", "method 2, which was not offered", []exchange{{"\x05\x01\x00", "\x05\x02"}}},
		"socks 4":        {"socks5://p.test", "db.test:443", "does not speak SOCKS5", []exchange{{"\x05\x01\x00", "\x00\x5b"}}},
		"socks http":     {"socks5://p.test", "db.test:443", `says "HT": is it an HTTP proxy?`, []exchange{{"\x05\x01\x00", "HTTP/1.1 400 Bad Request\r\n\r\n"}}},
		"socks rules":    {"socks5://p.test", "db.test:443", "answered 2 for db.test:443: not allowed by its rules", []exchange{greeted, {socksReq, "\x05\x02\x00\x01"}}},
		"socks closed":   {"socks5://p.test", "db.test:443", "connection refused", []exchange{greeted, {socksReq, "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"}}},
		"socks code":     {"socks5://p.test", "db.test:443", "answered 200", []exchange{greeted, {socksReq, "\x05\xc8\x00\x01"}}},
		"socks type":     {"socks5://p.test", "db.test:443", "address of type 9", []exchange{greeted, {socksReq, "\x05\x00\x00\x09"}}},
		"no port":        {"http://p.test", "db.test", "give HOST:PORT", nil},
		"smuggled":       {"http://p.test", "db.test\r\nX: y:443", "give HOST:PORT", nil},
		"unknown port":   {"http://p.test", "db.test:nosuchport", "give a port", nil},
		"long name":      {"socks5://p.test", strings.Repeat("x", 256) + ":443", "up to 255 bytes", nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parse(t, tt.proxy).Dial(t.Context(), scripted(t, tt.script...), tt.target)
			if err == nil {
				t.Fatalf("got %v", c)
			}
			if s := err.Error(); !strings.Contains(s, tt.want) || strings.ContainsAny(s, "\r\n\x1b") || strings.Contains(s, "s3cr3t") || strings.Contains(s, "dTpz") {
				t.Errorf("%q, want one line with %q and without the password", s, tt.want)
			}
		})
	}
}

// hangUp is a proxy that closes after its answer.
func hangUp(asked, answer string) net.Conn {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		if _, err := io.ReadFull(server, make([]byte, len(asked))); err == nil {
			io.WriteString(server, answer)
		}
	}()
	return client
}

func TestDialHangUp(t *testing.T) {
	for _, tt := range []struct{ proxy, asked, answer string }{
		{"http://p.test", connectReq, ""}, {"http://p.test", connectReq, "HTTP/1.1 20"}, {"http://p.test", connectReq, "HTTP/1.1 100 Continue\r\n\r\n"},
		{"socks5://p.test", "\x05\x01\x00", ""}, {"socks5://p.test", "\x05\x01\x00", "\x05"},
	} {
		_, err := parse(t, tt.proxy).Dial(t.Context(), func(context.Context, string, string) (net.Conn, error) { return hangUp(tt.asked, tt.answer), nil }, "db.test:443")
		if err == nil || !strings.Contains(err.Error(), "it hung up without an answer") {
			t.Errorf("%v: %v", tt, err)
		}
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	for _, proxy := range []string{"http://p.test", "socks5://p.test"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		client, server := net.Pipe()
		go io.Copy(io.Discard, server) // listens, and says nothing
		_, err := parse(t, proxy).Dial(ctx, func(context.Context, string, string) (net.Conn, error) { return client, nil }, "db.test:443")
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer for db.test:443") {
			t.Errorf("%s: %v", proxy, err)
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: the connection is still open: %v", proxy, err)
		}
		server.Close()
	}
	broken := errors.New("no route")
	_, err := parse(t, "http://u:s3cr3t@p.test").Dial(t.Context(), func(context.Context, string, string) (net.Conn, error) { return nil, broken }, "db.test:443")
	if !errors.Is(err, broken) || err.Error() != "proxy http://u@p.test:8080: no route" {
		t.Errorf("%v", err)
	}
}
