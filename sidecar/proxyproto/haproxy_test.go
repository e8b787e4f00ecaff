package proxyproto_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
)

// haproxy runs haproxy with what is listened on as its file descriptor 3, and returns the address of that.
func haproxy(t *testing.T, config string) string {
	t.Helper()
	exe, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("haproxy is not installed: apt-get install haproxy")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	config = "defaults\n  timeout connect 10s\n  timeout client 10s\n  timeout server 10s\n" + config
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(exe, "-db", "-q", "-f", file)
	cmd.ExtraFiles = []*os.File{fd}
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	return l.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// Gap 21, with a real balancer.
func TestGap21HAProxySends(t *testing.T) {
	for name, tt := range map[string]struct{ option, tlv string }{
		"v1":        {"send-proxy", ""},
		"v2":        {"send-proxy-v2", ""},
		"v2 crc32c": {"send-proxy-v2 proxy-v2-options crc32c", "\x03"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			front := haproxy(t, fmt.Sprintf("listen test\n  mode tcp\n  bind fd@3\n  server s %s %s\n", l.Addr(), tt.option))
			client := dial(t, front)
			if _, err := client.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			l.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second))
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			info, err := proxyproto.Read(c)
			if err != nil {
				t.Fatal(err)
			}
			if info.Source.String() != client.LocalAddr().String() || info.Destination.String() != front {
				t.Errorf("%v to %v, want %v to %v", info.Source, info.Destination, client.LocalAddr(), front)
			}
			var types string
			for _, tlv := range info.TLVs {
				types += string(rune(tlv.Type))
			}
			if types != tt.tlv {
				t.Errorf("TLVs %q, want %q", types, tt.tlv)
			}
			got := make([]byte, len("hello"))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
				t.Errorf("behind the header: %q, %v", got, err)
			}
		})
	}
}

func TestHAProxyAccepts(t *testing.T) {
	front := haproxy(t, "frontend test\n  mode http\n  bind fd@3 accept-proxy\n"+
		`  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_authority]"`+"\n")
	state := &tls.ConnectionState{Version: tls.VersionTLS13, ServerName: "db.test", NegotiatedProtocol: "h2"}
	for _, tt := range []struct {
		mode                proxyproto.Mode
		source, destination string
		want                string
	}{
		{proxyproto.Conn, "192.0.2.1:1024", "198.51.100.2:443", "192.0.2.1 1024 198.51.100.2 443 "},
		{proxyproto.TLS, "[2001:db8::1]:1024", "[2001:db8::2]:443", "2001:db8::1 1024 2001:db8::2 443 db.test"},
		{proxyproto.TLSFull, "192.0.2.1:1024", "[2001:db8::2]:443", "::ffff:192.0.2.1 1024 2001:db8::2 443 db.test"},
	} {
		info := proxyproto.Info{Source: tcp(tt.source), Destination: tcp(tt.destination), TLS: state, SPIFFEID: "spiffe://td.test/web"}
		c := dial(t, front)
		if _, err := c.Write(append(header(t, tt.mode, info), "GET / HTTP/1.0\r\n\r\n"...)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || strings.TrimSuffix(string(body), "-") != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.mode, body, err, tt.want)
		}
	}
}
