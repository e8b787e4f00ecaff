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

// spent has the load carry out an order, and returns the CPU time that the pair used meanwhile.
func (t *turn) spent(order load.Order) (load.Answer, time.Duration, error) {
	before, err := proc.CPU(t.pids)
	if err != nil {
		return load.Answer{}, 0, err
	}
	answer, err := t.load.Do(order)
	if err != nil {
		return load.Answer{}, 0, err
	}
	after, err := proc.CPU(t.pids)
	return answer, after - before, err
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
	t.report.Add(report.Row{Section: section, Name: name, Unit: unit}, t.peer.Name, value)
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
		var moved, cpu, took float64
		for _, upload := range []bool{true, false} {
			warm, err := t.load.Do(load.Order{Do: "bulk", Bytes: 32 << 20, Upload: upload})
			if err != nil {
				return err
			}
			bytes := float64(warm.Bytes) * t.set.sizes.bulkFor.Seconds() / warm.Took.Seconds()
			answer, spent, err := t.spent(load.Order{Do: "bulk", Bytes: int64(min(bytes, 8e9)), Upload: upload})
			if err != nil {
				return err
			}
			moved, cpu, took = moved+float64(answer.Bytes)/1e9, cpu+spent.Seconds(), took+answer.Took.Seconds()
		}
		t.add("bulk, half of it each way", connections(conns), "CPU s/GB", cpu/moved)
		t.report.Add(report.Row{Section: "throughput, a side figure", Name: connections(conns), Unit: "GB/s"}, t.peer.Name, moved/took)
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
		answer, spent, err := t.spent(load.Order{Do: "roundtrips", For: t.set.sizes.rtFor})
		if err != nil {
			return err
		}
		const section = "round trips of 64 bytes, the next when one is back"
		t.add(section, connections(conns), "CPU us each", micros(spent)/float64(answer.Ops))
		t.add(section, connections(conns)+", p50", "us", micros(answer.P50))
		t.add(section, connections(conns)+", p99", "us", micros(answer.P99))
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
	answer, spent, err := t.spent(order)
	if err != nil {
		return err
	}
	const section = "new connections, with one round trip each, four at a time"
	name := map[pair.Variant]string{
		{Full: true}: "full handshakes", {}: "as they come", {Defaults: true}: "key exchange too as it comes",
	}[t.task.variant]
	t.add(section, name, "CPU us each", micros(spent)/float64(answer.Ops))
	t.add(section, name+", p50", "us", micros(answer.P50))
	t.add(section, name+", p99", "us", micros(answer.P99))
	return nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
