package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lanyard-mtls/lanyard/bench/load"
	"github.com/lanyard-mtls/lanyard/bench/pair"
	"github.com/lanyard-mtls/lanyard/bench/proc"
	"github.com/lanyard-mtls/lanyard/bench/report"
)

// The sections of the report, in their order.
const (
	bulkSection       = "bulk, half of it each way"
	roundTripSection  = "round trips of 64 bytes, the next when one is back"
	connectSection    = "new connections, with one round trip each, four at a time"
	idleSection       = "memory of an idle connection, both sides together, less what they had at start"
	startSection      = "memory of a process"
	throughputSection = "on the side: throughput in bulk"
	kernelSection     = "on the side: the kernel's share of the CPU time"
)

func sections() []string {
	return []string{bulkSection, roundTripSection, connectSection, idleSection, startSection, throughputSection, kernelSection}
}

// task is what is measured on one new pair, in each round of each peer.
type task struct {
	part    string
	what    string
	variant pair.Variant
	run     func(*turn) error
}

var tasks = []task{
	{"bulk", "bulk", pair.Variant{}, (*turn).bulk},
	{"rt", "round trips", pair.Variant{}, (*turn).roundTrips},
	{"connect", "new connections, full handshakes", pair.Variant{Full: true}, (*turn).connect},
	{"connect", "new connections, as they come", pair.Variant{}, (*turn).connect},
	{"connect", "new connections, key exchange too as they come", pair.Variant{Defaults: true}, (*turn).connect},
}

// turn is a task on a peer's pair.
type turn struct {
	*bench
	task task
	peer *pair.Peer
	addr string
	pids []int
}

// round gives each peer its turn, another one first each time.
func (b *bench) round(ctx context.Context, round int, task task) error {
	for i := range b.peers {
		peer := b.peers[(i+round)%len(b.peers)]
		if b.unable[peer][task.variant] {
			continue
		}
		err := b.turn(ctx, task, peer)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.note("%s, %s, round %d: %v", peer.Name, task.what, round+1, err)
		}
	}
	return nil
}

func (b *bench) turn(ctx context.Context, task task, peer *pair.Peer) error {
	p, err := b.bed.Start(ctx, peer, task.variant)
	if err != nil {
		return err
	}
	server, client, err := p.PIDs()
	if err == nil {
		err = task.run(&turn{b, task, peer, p.Addr, append(server, client...)})
	}
	_, closeErr := b.load.Do(load.Order{Do: "close"})
	return errors.Join(err, closeErr, p.Stop())
}

// use is what a pair used while the load carried out an order.
type use struct {
	load.Answer
	cpu           time.Duration
	before, after proc.Ticks
}

func (t *turn) use(order load.Order) (use, error) {
	var u use
	start, err := proc.CPU(t.pids)
	if err != nil {
		return u, err
	}
	if u.before, err = proc.CPUTicks(t.pids); err != nil {
		return u, err
	}
	if u.Answer, err = t.load.Do(order); err != nil {
		return u, err
	}
	end, err := proc.CPU(t.pids)
	if err != nil {
		return u, err
	}
	u.cpu = end - start
	u.after, err = proc.CPUTicks(t.pids)
	return u, err
}

// open leaves so many connections open, and no others.
func (t *turn) open(conns int) error {
	if _, err := t.load.Do(load.Order{Do: "close"}); err != nil {
		return err
	}
	_, err := t.load.Do(load.Order{Do: "open", Addr: t.addr, Conns: conns})
	return err
}

func (t *turn) add(section, name, unit string, value float64) {
	row := report.Row{Section: section, Name: name, Unit: unit, Bare: section == kernelSection}
	t.report.Add(row, t.peer.Name, value)
}

func connections(n int) string {
	switch {
	case n == 1:
		return "1 connection"
	case n >= 1000:
		return fmt.Sprintf("%d,%03d connections", n/1000, n%1000)
	default:
		return fmt.Sprintf("%d connections", n)
	}
}

// bulk moves bytes to the backend, then as many from it.
func (t *turn) bulk() error {
	for _, conns := range t.set.sizes.bulk {
		if err := t.open(conns); err != nil {
			return err
		}
		var moved, cpu, took, share float64
		for _, upload := range []bool{true, false} {
			warm, err := t.load.Do(load.Order{Do: "bulk", Bytes: 32 << 20, Upload: upload})
			if err != nil {
				return err
			}
			bytes := float64(warm.Bytes) * t.set.sizes.bulkFor.Seconds() / warm.Took.Seconds()
			used, err := t.use(load.Order{Do: "bulk", Bytes: int64(min(bytes, 8e9)), Upload: upload})
			if err != nil {
				return err
			}
			moved, cpu, took = moved+float64(used.Bytes)/1e9, cpu+used.cpu.Seconds(), took+used.Took.Seconds()
			share += used.after.Share(used.before) / 2
		}
		t.add(bulkSection, connections(conns), "CPU s/GB", cpu/moved)
		t.add(throughputSection, connections(conns), "GB/s", moved/took)
		t.add(kernelSection, "bulk, "+connections(conns), "%", share)
	}
	return nil
}

// roundTrips sends a message to and fro on each connection, without a pause.
func (t *turn) roundTrips() error {
	for _, conns := range t.set.sizes.roundTrips {
		if err := t.open(conns); err != nil {
			return err
		}
		if _, err := t.load.Do(load.Order{Do: "roundtrips", For: t.set.sizes.warm}); err != nil {
			return err
		}
		used, err := t.use(load.Order{Do: "roundtrips", For: t.set.sizes.rtFor})
		if err != nil {
			return err
		}
		t.addEach(roundTripSection, connections(conns), used)
		t.add(kernelSection, "round trips, "+connections(conns), "%", used.after.Share(used.before))
	}
	return nil
}

// connect opens connections for one round trip each.
func (t *turn) connect() error {
	order := load.Order{Do: "connect", Addr: t.addr, Conns: t.set.sizes.dialling, For: t.set.sizes.warm}
	if _, err := t.load.Do(order); err != nil {
		return err
	}
	order.For = t.set.sizes.connFor
	used, err := t.use(order)
	if err != nil {
		return err
	}
	name := map[pair.Variant]string{
		{Full: true}: "full handshakes", {}: "as they come", {Defaults: true}: "key exchange too as it comes",
	}[t.task.variant]
	t.addEach(connectSection, name, used)
	t.add(kernelSection, "new connections, "+name, "%", used.after.Share(used.before))
	return nil
}

// addEach adds what one of many operations took.
func (t *turn) addEach(section, name string, used use) {
	t.add(section, name, "CPU us each", micros(used.cpu)/float64(used.Ops))
	t.add(section, name+", p50", "us", micros(used.P50))
	t.add(section, name+", p99", "us", micros(used.P99))
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
