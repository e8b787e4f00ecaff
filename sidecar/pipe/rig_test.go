package pipe

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
	"github.com/lanyard-mtls/lanyard/sidecar/poll"
)

// rig is a pipe between two far ends: near <-> [a, b] <-> far. The link between
// near and a is a's kind, the one between b and far is b's.
type rig struct {
	near, far net.Conn
	buffers   *Buffers
	pipe      *Pipe
	result    chan Result
}

func newRig(t testing.TB, a, b kind) *rig {
	t.Helper()
	return newRigWith(t, a, b, Options{}, func(*nearEnd) {})
}

// nearEnd is a near end that speaks TLS, before its handshake.
type nearEnd struct {
	conn           net.Conn // what its TLS is made over
	client, server *tls.Config
	serves         bool // the near end is the TLS server, and the pipe's the client
}

// newRigWith is newRig with limits, and the near end changed.
func newRigWith(t testing.TB, a, b kind, opt Options, change func(*nearEnd)) *rig {
	t.Helper()
	return newProcess(t, 0).rig(t, a, b, opt, change)
}

// process is what the pipes of one share.
type process struct {
	poller  *poll.Poller
	buffers *Buffers
}

// newProcess has that many event loops, or as many as there are by default.
func newProcess(t testing.TB, loops int) process {
	t.Helper()
	p, err := poll.New(poll.Config{Loops: loops})
	check(t, err)
	t.Cleanup(func() { check(t, p.Close()) })
	return process{p, new(Buffers)}
}

func (p process) rig(t testing.TB, a, b kind, opt Options, change func(*nearEnd)) *rig {
	t.Helper()
	r := &rig{buffers: p.buffers, result: make(chan Result, 1)}
	var aEnd, bEnd *End
	r.near, aEnd = p.link(t, a, change)
	r.far, bEnd = p.link(t, b, func(*nearEnd) {})
	done := make(chan struct{})
	r.pipe = Start(aEnd, bEnd, opt, func(res Result) {
		r.result <- res
		close(done)
	})
	t.Cleanup(func() {
		r.pipe.Abort(nil)
		r.near.Close()
		r.far.Close()
		<-done
	})
	deadline := time.Now().Add(time.Minute)
	r.near.SetDeadline(deadline)
	r.far.SetDeadline(deadline)
	return r
}

// link connects a far end to an End of a pipe.
func (p process) link(t testing.TB, k kind, change func(*nearEnd)) (net.Conn, *End) {
	t.Helper()
	network, address := "tcp", "127.0.0.1:0"
	if k == uds {
		dir, err := os.MkdirTemp("", "ly")
		check(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		network, address = "unix", filepath.Join(dir, "s")
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	listener, err := lc.Listen(t.Context(), network, address)
	check(t, err)
	l, err := p.poller.Listener(listener)
	check(t, err)
	defer l.Close()
	outer, err := net.Dial(network, l.Addr().String())
	check(t, err)
	inner, err := l.Accept()
	check(t, err)
	sock, err := NewSocket(inner, p.buffers)
	check(t, err)
	if k == tcp || k == uds {
		return outer, Plain(sock)
	}
	n := nearEnd{conn: outer}
	n.client, n.server = configs(t, k)
	change(&n)
	near, end := tls.Client(n.conn, n.client), tls.Server(sock, n.server)
	if n.serves {
		near, end = tls.Server(n.conn, n.server), tls.Client(sock, n.client)
	}
	shaken := make(chan error, 1)
	go func() { shaken <- near.Handshake() }()
	check(t, end.Handshake())
	check(t, <-shaken)
	return near, TLS(sock, end)
}

func configs(t testing.TB, k kind) (client, server *tls.Config) {
	t.Helper()
	svid := testca.New(t, "one.test").SVID(t, "spiffe://one.test/a")
	version := uint16(tls.VersionTLS13)
	if k == tls12 {
		version = tls.VersionTLS12
	}
	server = &tls.Config{MaxVersion: version, Certificates: []tls.Certificate{{
		Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}}}
	return &tls.Config{InsecureSkipVerify: true}, server
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func closeWrite(t testing.TB, c net.Conn) {
	t.Helper()
	check(t, c.(interface{ CloseWrite() error }).CloseWrite())
}

func (r *rig) wait(t testing.TB) Result {
	t.Helper()
	select {
	case res := <-r.result:
		return res
	case <-time.After(time.Minute):
		buf := make([]byte, 1<<20)
		t.Fatalf("the pipe did not end\n%s", buf[:runtime.Stack(buf, true)])
		panic("unreachable")
	}
}

var pairs = [][2]kind{{tls13, tcp}, {tcp, tls13}, {tls12, tcp}, {tcp, tls12}, {tls13, uds}, {uds, tls13}, {tcp, tcp}}

func eachPair(t *testing.T, f func(t *testing.T, a, b kind)) {
	for _, p := range pairs {
		t.Run(string(p[0])+"-"+string(p[1]), func(t *testing.T) { f(t, p[0], p[1]) })
	}
}

func mustWrite(t testing.TB, c net.Conn, s string) {
	t.Helper()
	_, err := io.WriteString(c, s)
	check(t, err)
}

func raw(c net.Conn) *net.TCPConn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn().(*net.TCPConn)
	}
	return c.(*net.TCPConn)
}

// eventually waits for what there is no event for.
func eventually(t testing.TB, otherwise string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}

func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// trickler sends byte by byte, so that the reader wakes within headers and
// records.
type trickler struct{ net.Conn }

func (c trickler) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
		runtime.Gosched()
	}
	return len(b), nil
}
