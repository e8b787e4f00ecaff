package load

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain lets the test binary serve as the processes it starts.
func TestMain(m *testing.M) {
	var err error
	switch os.Getenv("LANYARD_BENCH_ROLE") {
	case "":
		os.Exit(m.Run())
	case "backend":
		err = ServeBackend(os.Stdin, os.Stdout)
	case "load":
		err = Generate(os.Stdin, os.Stdout)
	}
	if err != nil {
		panic(err)
	}
}

func start(t *testing.T, role string) *Process {
	t.Helper()
	t.Setenv("LANYARD_BENCH_ROLE", role)
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(context.Background(), path) // the test's own ends before its cleanup
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	})
	return p
}

func backendAddr(t *testing.T) string {
	t.Helper()
	addr, err := start(t, "backend").Addr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func TestOrders(t *testing.T) {
	addr, generator := backendAddr(t), start(t, "load")
	do := func(order Order) Answer {
		t.Helper()
		answer, err := generator.Do(order)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	for range 2 {
		if got := do(Order{Do: "open", Addr: addr, Conns: 100}); got.Ops != 100 {
			t.Errorf("open: %+v, want 100 connections", got)
		}
		for _, upload := range []bool{true, false} {
			if got := do(Order{Do: "bulk", Conns: 7, Bytes: 8_000_000, Upload: upload}); got.Bytes != 8_000_000 {
				t.Errorf("bulk, upload %v: %+v, want 8 MB", upload, got)
			}
			do(Order{Do: "bulk", Bytes: 1000, Upload: upload})
			got := do(Order{Do: "roundtrips", For: 10 * time.Millisecond})
			if got.Ops < 100 || got.P50 == 0 || got.P99 < got.P50 || got.Took < 10*time.Millisecond {
				t.Errorf("round trips: %+v", got)
			}
		}
		do(Order{Do: "close"})
		if got := do(Order{Do: "connect", Addr: addr, Conns: 4, For: 10 * time.Millisecond}); got.Ops < 4 || got.P50 == 0 {
			t.Errorf("connect: %+v", got)
		}
	}
}

func TestOrdersThatFail(t *testing.T) {
	generator := start(t, "load")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	defer l.Close()
	for _, order := range []Order{
		{Do: "open", Addr: l.Addr().String(), Conns: 2},
		{Do: "connect", Addr: l.Addr().String(), Conns: 1, For: time.Second},
		{Do: "bulk", Bytes: 1},
		{Do: "dance"},
	} {
		if got, err := generator.Do(order); err == nil {
			t.Errorf("%+v went well: %+v", order, got)
		}
		if _, err := generator.Do(Order{Do: "close"}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEchoIsExact sends messages in pieces of any size, more than fits the socket, and wants each byte back.
func TestEchoIsExact(t *testing.T) {
	conn, err := net.Dial("tcp", backendAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	random := rand.New(rand.NewPCG(1, 2))
	var sent []byte
	for _, size := range []int{10, 64, 5 << 20, 100} {
		message := Echo(size)
		for i := headerSize; i < size; i++ {
			message[i] = byte(random.Uint32())
		}
		sent = append(sent, message...)
	}
	go func() {
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(100_000))
			if _, err := conn.Write(rest[:n]); err != nil {
				return // the reader will miss it
			}
			rest = rest[n:]
		}
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sent, got) {
		t.Error("other bytes came back")
	}
}

func TestBackendEndsWhatItDoesNotUnderstand(t *testing.T) {
	addr := backendAddr(t)
	for _, wire := range []string{"GET / HTTP/1.1\r\n\r\n", "e\x00\x00\x00\x00\x00\x00\x00\x03", "u\xff\xff\xff\xff\xff\xff\xff\xff"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, wire); err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(conn) // it may end in a reset
		if len(got) != 0 {
			t.Errorf("%q answered with %q", wire, got)
		}
		conn.Close()
	}
}

func TestSamples(t *testing.T) {
	var s samples
	for i := range 200 {
		s = append(s, time.Duration(200-i))
	}
	if diff := cmp.Diff(Answer{Ops: 200, P50: 101, P99: 199}, s.answer()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Answer{}, samples{}.answer()); diff != "" {
		t.Error(diff)
	}
}
