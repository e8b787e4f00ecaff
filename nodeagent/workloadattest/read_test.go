package workloadattest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
)

// onReady is what gRPC looks for.
type onReady interface {
	ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error)
}

// tally counts the buffers that are out.
type tally struct {
	out   int
	taken chan struct{} // of each that is taken
}

func (p *tally) Get(size int) *[]byte {
	p.out++
	p.taken <- struct{}{}
	b := make([]byte, size)
	return &b
}

func (p *tally) Put(*[]byte) { p.out-- }

func TestReadsIntoBuffersOnlyWhatIsThere(t *testing.T) {
	l, path := listen(t)
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, _, err := accept(t, l, testCredentials())
	if err != nil {
		t.Fatal(err)
	}
	pool := &tally{taken: make(chan struct{}, 10)}
	read := func(size int) (string, error) {
		t.Helper()
		buf, n, err := conn.(onReady).ReadOnReady(size, pool)
		if err != nil {
			if buf != nil || n != 0 {
				t.Errorf("%d bytes with the error %v", n, err)
			}
			return "", err
		}
		defer pool.Put(buf)
		return string((*buf)[:n]), nil
	}
	go func() {
		<-pool.taken // the first attempt finds nothing
		client.Write([]byte("hello"))
	}()
	for _, want := range []string{"hel", "lo"} {
		if got, err := read(3); err != nil || got != want {
			t.Fatalf("read %q, %v; want %q", got, err, want)
		}
	}
	if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	var late net.Error
	if _, err := read(3); !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("after its deadline: %v", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if _, err := read(3); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	conn.Close()
	if _, err := read(3); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if pool.out != 0 {
		t.Errorf("%d buffers were not returned", pool.out)
	}
}

// counting are credentials that count gRPC's reads.
type counting struct {
	*Credentials
	reads atomic.Int32
}

type countedConn struct {
	net.Conn
	reads *atomic.Int32
}

func (c countedConn) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	c.reads.Add(1)
	return c.Conn.(onReady).ReadOnReady(size, pool)
}

func (c *counting) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.Credentials.ServerHandshake(raw)
	return countedConn{conn, &c.reads}, info, err
}

func (c *counting) Clone() credentials.TransportCredentials { return c }

// A gRPC that reads otherwise holds a buffer for each connection again.
func TestGRPCReadsOnReady(t *testing.T) {
	l, path := listen(t)
	creds := &counting{Credentials: testCredentials()}
	server := grpc.NewServer(grpc.Creds(creds))
	healthpb.RegisterHealthServer(server, health.NewServer())
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	long := &healthpb.HealthCheckRequest{Service: string(bytes.Repeat([]byte("x"), 100_000))}
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), long); err == nil {
		t.Error("there is a service of that name")
	}
	conn.Close()
	server.Stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if creds.reads.Load() == 0 {
		t.Error("gRPC has not called ReadOnReady")
	}
}
