// Package pair starts pairs of proxies, plain TCP into a client, mutual TLS to a server, plain TCP out, of each program
// that is measured: all with the same certificates and, but for their defaults, the same TLS. It proves that a pair does
// what it is measured for before it is. It makes no load and reads no clocks.
package pair

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lanyard-mtls/lanyard/bench/load"
	"github.com/lanyard-mtls/lanyard/bench/proc"
	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// Variant says what is asked of the TLS between two proxies of a pair.
type Variant struct {
	Defaults bool // key exchange and cipher suite as the program has them; otherwise X25519 and AES-128-GCM
	Full     bool // no session is resumed; otherwise as the program does
}

func (v Variant) String() string {
	switch {
	case v.Defaults:
		return "its defaults"
	case v.Full:
		return "X25519, full handshakes"
	default:
		return "X25519"
	}
}

// Side is one of the two proxies: what it has to do.
type Side struct {
	Server  bool
	Listen  string // host:port
	Target  string // host:port
	Cert    Cert
	PeerID  string // the SPIFFE ID of the other side
	Dir     string // for its files; made and empty
	MaxOpen int    // files it may open
	Variant
}

// Peer is a program that is measured.
type Peer struct {
	Name    string
	Version string

	// command makes the command that runs one side, in the foreground and saying nothing of connections.
	command func(Side) (*exec.Cmd, error)
}

const (
	startLimit = 20 * time.Second
	stopGrace  = 5 * time.Second
)

// Bed is where pairs run.
type Bed struct {
	Dir     string // each pair's files are in a directory below
	Backend string // host:port of the program behind all pairs: see load.ServeBackend
	Certs   Certs
	MaxOpen int // files each process may open
}

// Pair is a running pair.
type Pair struct {
	Addr   string // where plain connections go in
	server *harness.Process
	client *harness.Process
	dir    string
}

// Start starts a pair and waits until bytes go through it and back.
func (b *Bed) Start(ctx context.Context, peer *Peer, variant Variant) (*Pair, error) {
	dir, err := os.MkdirTemp(b.Dir, peer.Name)
	if err != nil {
		return nil, err
	}
	p := &Pair{dir: dir}
	if err := b.start(ctx, p, peer, variant); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (b *Bed) start(ctx context.Context, p *Pair, peer *Peer, variant Variant) error {
	var server string
	var err error
	if p.server, server, err = b.side(peer, p.dir, Side{Server: true, Target: b.Backend, Variant: variant}); err != nil {
		return err
	}
	if p.client, p.Addr, err = b.side(peer, p.dir, Side{Target: server, Variant: variant}); err != nil {
		return err
	}
	return p.ready(ctx)
}

// side starts one proxy; it may not listen yet.
func (b *Bed) side(peer *Peer, dir string, s Side) (*harness.Process, string, error) {
	role := "client"
	s.Cert, s.PeerID, s.MaxOpen = b.Certs.Client, ServerID, b.MaxOpen
	if s.Server {
		role, s.Cert, s.PeerID = "server", b.Certs.Server, ClientID
	}
	var err error
	if s.Listen, err = harness.FreeAddr(); err != nil {
		return nil, "", err
	}
	if s.Dir, err = os.MkdirTemp(dir, role); err != nil {
		return nil, "", err
	}
	cmd, err := peer.command(s)
	if err != nil {
		return nil, "", err
	}
	// The environment of whoever runs this, GOGC, GOMAXPROCS or SPIFFE_ENDPOINT_SOCKET, is not to matter.
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir}, cmd.Env...)
	cmd.Dir = s.Dir
	p, err := harness.Start(peer.Name+" "+role, cmd)
	return p, s.Listen, err
}

// ready waits until a message goes through and back.
func (p *Pair) ready(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, proxy := range []*harness.Process{p.server, p.client} {
		go func() {
			select {
			case <-proxy.Done():
				cancel(fmt.Errorf("%s ended; it said:\n%s", proxy.Name, proxy.Log.Tail(5)))
			case <-ctx.Done():
			}
		}()
	}
	err := harness.Until(ctx, startLimit, "a pair that forwards", func(context.Context) error { return echo(p.Addr, 64) })
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	if err != nil {
		return fmt.Errorf("%w; it said:\n%s\n%s", err, p.server.Log.Tail(5), p.client.Log.Tail(5))
	}
	return nil
}

// echo sends a message of so many bytes on a connection of its own, and wants just that back.
func echo(addr string, size int) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	return echoOn(conn, size)
}

func echoOn(conn net.Conn, size int) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	message, got := load.Echo(size), make([]byte, size)
	for i := 9; i < size; i++ {
		message[i] = byte(i * i >> 3)
	}
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(message)
		written <- err
	}()
	_, readErr := io.ReadFull(conn, got)
	if readErr != nil {
		conn.Close() // ends the writing
	}
	if err := errors.Join(readErr, <-written); err != nil {
		return err
	}
	if string(got) != string(message) {
		return errors.New("other bytes came back than were sent")
	}
	return nil
}

// PIDs are the processes of both proxies, workers included.
func (p *Pair) PIDs() (server, client []int, err error) {
	if server, err = proc.Tree(p.server.PID()); err == nil {
		client, err = proc.Tree(p.client.PID())
	}
	return server, client, err
}

// Stop ends the pair and removes its files. Programs that take their time to end are killed: nothing is measured then.
func (p *Pair) Stop() error {
	for _, proxy := range []*harness.Process{p.client, p.server} {
		if proxy != nil && proxy.Running() {
			_ = proxy.Stop(stopGrace)
		}
	}
	return os.RemoveAll(p.dir)
}

// write makes a file in the side's directory and returns its path.
func (s Side) write(name, text string) (string, error) {
	path := filepath.Join(s.Dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}
