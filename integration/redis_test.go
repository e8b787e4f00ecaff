package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// startRedis starts a redis-server that keeps nothing, and returns its address.
func startRedis(t *testing.T, s *harness.Stage) string {
	t.Helper()
	addr := s.Addr()
	host, port, _ := strings.Cut(addr, ":")
	s.Start("redis", program(t, "redis-server"), "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", s.Dir)
	s.Until(fetchLimit, "redis", func(ctx context.Context) error {
		_, err := harness.Run(ctx, program(t, "redis-cli"), "-h", host, "-p", port, "ping")
		return err
	})
	return addr
}

func TestSidecarRedis(t *testing.T) {
	t.Parallel()
	cli, benchmark := program(t, "redis-cli"), program(t, "redis-benchmark")
	d := newDomain(t)
	p := newPair(t, d, startRedis(t, d.Stage), rotatingLife)
	host, port, _ := strings.Cut(p.client.Listen, ":")
	redis := func(t *testing.T, args ...string) string {
		t.Helper()
		return strings.TrimSpace(run(t, cli, append([]string{"-h", host, "-p", port, "--raw"}, args...)...))
	}
	t.Run("pipelining", func(t *testing.T) {
		out := run(t, benchmark, "-h", host, "-p", port, "-n", "20000", "-c", "20", "-P", "16", "-r", "1000", "-t", "set,get,lpush", "--csv")
		if strings.Count(out, "\n") != 4 {
			t.Errorf("no figures of three commands:\n%s", out)
		}
		if got := redis(t, "llen", "mylist"); got != "20000" {
			t.Errorf("%s pushes of 20000 arrived", got)
		}
	})
	t.Run("publish and subscribe over a rotation", func(t *testing.T) {
		subscriber := p.Stage.Start("subscriber", cli, "-h", host, "-p", port, "--raw", "subscribe", "news")
		if _, err := subscriber.WaitFor(t.Context(), "subscribe"); err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			message := fmt.Sprintf("message %d", n)
			if got := redis(t, "publish", "news", message); got != "1" {
				t.Fatalf("%s: %q subscribers", message, got)
			}
			if _, err := subscriber.WaitFor(t.Context(), message); err != nil {
				t.Fatal(err)
			}
			if n < 2 {
				p.rotated()
			}
		}
		subscriber.Kill()
	})
	t.Run("values of 32 MB", func(t *testing.T) {
		value := random(32 << 20)
		set := exec.CommandContext(t.Context(), cli, "-h", host, "-p", port, "-x", "set", "big")
		set.Stdin = bytes.NewReader(value)
		if out, err := set.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "OK" {
			t.Fatalf("set: %q, %v", out, err)
		}
		get := exec.CommandContext(t.Context(), cli, "-h", host, "-p", port, "--raw", "get", "big")
		out, err := get.Output()
		if err != nil {
			t.Fatal(err)
		}
		if sha256.Sum256(bytes.TrimSuffix(out, []byte("\n"))) != sha256.Sum256(value) {
			t.Errorf("%d bytes came back of %d, or others", len(out)-1, len(value))
		}
	})
}

// random is n bytes that no compression or repetition explains, the same in each run.
func random(n int) []byte {
	bytes := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(bytes) // never fails
	return bytes
}
