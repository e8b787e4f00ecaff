// Package bench measures Lanyard beside its peers in one run, by the CPU time of what runs. It judges nothing: its figures
// are for people, and mean something as ratios only.
package bench

import (
	"cmp"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// pair is two proxies with mutual TLS between them, in front of an echo server.
type pair struct {
	addr  string // where plain connections go in
	procs []*harness.Process
}

// proxies are the binaries measured: ours, and the peers that are there. They take the same flags.
func proxies(b *testing.B) map[string]string {
	bin, err := filepath.Abs(cmp.Or(os.Getenv("LANYARD_BIN"), "../bin"))
	if err != nil {
		b.Fatal(err)
	}
	found := map[string]string{"lanyard": filepath.Join(bin, "lanyard-sidecar")}
	if _, err := os.Stat(found["lanyard"]); err != nil {
		b.Skipf("no binaries: run make bench (%v)", err)
	}
	if path := harness.Peer("ghostunnel"); path != "" {
		found["ghostunnel"] = path
	} else {
		b.Log("no ghostunnel in $LANYARD_PEERS: no ratio to it")
	}
	return found
}

// eachPair runs a benchmark on a pair of each proxy.
func eachPair(b *testing.B, run func(b *testing.B, p pair)) {
	found := proxies(b)
	d := harness.NewDomain(b, filepath.Dir(found["lanyard"]), harness.Options{})
	d.Start()
	for name, binary := range found {
		p := newPair(d, name, binary, echo(b))
		b.Run(name, func(b *testing.B) { run(b, p) })
	}
}

func newPair(d *harness.Domain, proxy, binary, target string) pair {
	serverID, clientID := d.ID("/server"), d.ID("/client")
	start := func(name, id, mode, target string, rule ...string) *harness.Sidecar {
		path := d.Copy(binary, proxy+"-"+name)
		d.Entry(id, path, 0)
		return d.Sidecar(harness.SidecarSpec{
			Name: name, Binary: path, Mode: mode, Target: target, WorkloadAPI: d.WorkloadAPI(), Args: rule,
		})
	}
	server := start("server", serverID, "server", target, "--allow-uri", clientID)
	client := start("client", clientID, "client", server.Listen, "--verify-uri", serverID)
	return pair{client.Listen, []*harness.Process{server.Process, client.Process}}
}

// echo is a server that sends back what it gets.
func echo(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // ends with the connection
			}()
		}
	}()
	return l.Addr().String()
}

// tick is a clock tick of /proc/PID/stat: USER_HZ, 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// cpu is the CPU time both proxies have used so far.
func (p pair) cpu(b *testing.B) time.Duration {
	var sum time.Duration
	for _, proc := range p.procs {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(proc.PID()) + "/stat")
		if err != nil {
			b.Fatal(err)
		}
		// After the name, which may hold anything but ends in the last parenthesis, fields 14 and 15 are utime and stime.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(field)
			if err != nil {
				b.Fatal(err)
			}
			sum += time.Duration(ticks) * tick
		}
	}
	return sum
}

// resident is the memory of both proxies, in MiB.
func (p pair) resident(b *testing.B) float64 {
	pages := 0
	for _, proc := range p.procs {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(proc.PID()) + "/statm")
		if err != nil {
			b.Fatal(err)
		}
		n, err := strconv.Atoi(strings.Fields(string(text))[1])
		if err != nil {
			b.Fatal(err)
		}
		pages += n
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

// measure reports what the proxies use while run goes on for b.N operations.
func (p pair) measure(b *testing.B, run func()) {
	before := p.cpu(b)
	b.ResetTimer()
	run()
	b.StopTimer()
	b.ReportMetric(float64((p.cpu(b)-before).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
	b.ReportMetric(p.resident(b), "MiB")
}
