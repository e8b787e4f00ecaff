package sidecar_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/sidecar/proxyproto"
)

// told is a target that reads a PROXY header, then echoes.
func told(t *testing.T) (string, <-chan proxyproto.Info) {
	infos := make(chan proxyproto.Info, 4)
	return backend(t, func(c *net.TCPConn) {
		info, err := proxyproto.Read(c)
		if err != nil {
			t.Error(err)
			return
		}
		infos <- info
		echo(c)
	}), infos
}

func values(info proxyproto.Info) map[byte]string {
	all := map[byte]string{}
	for _, tlv := range info.TLVs {
		all[tlv.Type] = string(tlv.Value)
	}
	return all
}

// Gaps 7 and 20: a target is told who its client is, and the protocol agreed on.
func TestGap07And20TargetIsToldOfItsClient(t *testing.T) {
	target, infos := told(t)
	p := newPair(t, target, func(client, server *spec) {
		server.ProxyProtocol, server.ALPN, client.ALPN, client.ServerName = proxyproto.TLSFull, []string{"h2"}, []string{"h2"}, "db.test"
	})
	c := dial(t, p.client.addr)
	exchange(t, c, "behind the header")
	info := <-infos
	if info.Destination.String() != p.server.addr || info.Source.(*net.TCPAddr).IP.String() != "127.0.0.1" {
		t.Errorf("%v", info)
	}
	got := values(info)
	if !strings.Contains(got[proxyproto.TypeSSL], "TLS 1.3") {
		t.Errorf("%q", got[proxyproto.TypeSSL])
	}
	delete(got, proxyproto.TypeSSL)
	if diff := cmp.Diff(map[byte]string{proxyproto.TypeALPN: "h2", proxyproto.TypeAuthority: "db.test", proxyproto.TypeSPIFFEID: webID}, got); diff != "" {
		t.Error(diff)
	}
	check(t, c.CloseWrite())
	if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	p.server.log.want(map[string]any{"cause": "closed", "forwarded": len("behind the header"), "returned": len("behind the header"), "alpn": "h2"})
}

// Gap 21: whom a balancer connects for is told on, recorded, and what rules see.
func TestGap21ClientBehindABalancer(t *testing.T) {
	target, infos := told(t)
	p := newPair(t, target, func(_, server *spec) {
		server.ProxyProtocol, server.AcceptProxyProtocol = proxyproto.Conn, []string{"127.0.0.0/8"}
	})
	p.server.log.await("identity received", 1)
	balancer := dial(t, p.server.addr)
	_, err := io.WriteString(balancer, "PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n")
	check(t, err)
	svid := p.ca.SVID(t, webID)
	c := tls.Client(balancer, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}}})
	exchange(t, c, "x")
	if info := <-infos; info.Source.String() != "192.0.2.7:1234" || info.Destination.String() != "192.0.2.8:443" {
		t.Errorf("%v", info)
	}
	c.Close()
	p.server.log.want(map[string]any{"client": "192.0.2.7:1234", "peer_spiffe_id": webID, "cause": "closed"})
	// The client of the pair has no balancer in front, and looks like one.
	if got, err := roundTrip(t, p.client.addr, "x"); isCleanEnd(err) {
		t.Errorf("answered %q", got)
	}
	if rec := p.server.log.connections(2)[1]; rec["cause"] != "bad PROXY header" || !strings.Contains(rec["error"].(string), "no PROXY header, but a TLS handshake") {
		t.Errorf("%v", rec)
	}
}

// connectProxy is an HTTP proxy that knows one name.
func connectProxy(t *testing.T, name, address, password string) (string, <-chan string) {
	asked := make(chan string, 4)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		if want := "Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+password)); r.Header.Get("Proxy-Authorization") != want {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		if r.Host != name {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		to, err := net.Dial("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		defer to.Close()
		from, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer from.Close()
		io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			io.Copy(from, to)
			from.(*net.TCPConn).CloseWrite()
		}()
		io.Copy(to, buffered)
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String(), asked
}

// Gap 23: a client reaches its target through a proxy, which is told the name and the password.
func TestGap23PairThroughAProxy(t *testing.T) {
	p := newPair(t, backend(t, echo))
	proxy, asked := connectProxy(t, "db.invalid:8443", p.server.addr, "s3cr3t")
	through := spec{WorkloadAPIAddr: p.webAgent.Addr()}
	through.Mode, through.Target, through.Via = "client", "db.invalid:8443", "http://u:s3cr3t@"+proxy
	r := start(t, through)
	if got, err := roundTrip(t, r.addr, "hello"); got != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got := <-asked; got != "CONNECT db.invalid:8443" {
		t.Error(got)
	}
	r.log.want(map[string]any{"cause": "closed", "target": "db.invalid:8443", "server_name": "db.invalid", "peer_spiffe_id": dbID})
	through.Via = "http://u:wrong@" + proxy
	r = start(t, through)
	if got, err := roundTrip(t, r.addr, "hello"); isCleanEnd(err) {
		t.Errorf("answered %q", got)
	}
	rec := r.log.want(map[string]any{"cause": "dial failed", "error": "~407"})
	if strings.Contains(rec["error"].(string), "wrong") {
		t.Errorf("%v", rec)
	}
}

// Gap 20: the ends of a pair agree on a protocol, or on none.
func TestGap20PairNegotiatesALPN(t *testing.T) {
	for name, tt := range map[string]struct {
		client, server []string
		want           any // nil: none; empty: refused
	}{
		"both prefer":     {[]string{"h2", "http/1.1"}, []string{"h2", "http/1.1"}, "h2"},
		"one in common":   {[]string{"h2", "http/1.1"}, []string{"http/1.1"}, "http/1.1"},
		"server has none": {[]string{"h2"}, nil, nil},
		"client has none": {nil, []string{"h2"}, nil},
		"none in common":  {[]string{"h2"}, []string{"http/1.1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, backend(t, echo), func(client, server *spec) { client.ALPN, server.ALPN = tt.client, tt.server })
			got, err := roundTrip(t, p.client.addr, "x")
			if tt.want == "" {
				if isCleanEnd(err) {
					t.Errorf("answered %q", got)
				}
				p.server.log.want(map[string]any{"cause": "handshake failed", "error": "~unsupported application protocols"})
				return
			}
			if got != "x" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			p.client.log.want(map[string]any{"cause": "closed", "alpn": tt.want})
			p.server.log.want(map[string]any{"cause": "closed", "alpn": tt.want})
		})
	}
}

// A stock TLS client that speaks HTTP/1.1 needs a protocol named by the server: gap 20.
func TestGap20StockClientThroughTheServer(t *testing.T) {
	p := newPair(t, backend(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}), func(_, server *spec) { server.ALPN = []string{"http/1.1"} })
	p.server.log.await("identity received", 1)
	svid := p.ca.SVID(t, webID)
	pool := x509.NewCertPool()
	pool.AddCert(p.ca.Cert)
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}},
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool})
			return err
		}}
	client := http.Client{Timeout: limit, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	resp, err := client.Get("https://" + p.server.addr)
	check(t, err)
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "ok" || err != nil || resp.TLS.NegotiatedProtocol != "http/1.1" {
		t.Errorf("%q, %v, %q", body, err, resp.TLS.NegotiatedProtocol)
	}
}
