package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
)

// rateTick is how often the rates of the timers are brought up to date.
const rateTick = 5 * time.Second

// graphite pushes the metrics in Graphite's plaintext protocol, a line "NAME VALUE
// SECONDS" each, under the names that ghostunnel's have.
type graphite struct {
	set *Set

	mu    sync.Mutex
	rates map[string]*rate // by the timer's name; guarded by mu
}

func newGraphite(s *Set) *graphite {
	g := &graphite{set: s, rates: map[string]*rate{}}
	for _, t := range s.totals.timers() {
		g.rates[t.name] = &rate{started: time.Now()}
	}
	return g
}

// rate keeps the rates up to date until ctx ends.
func (g *graphite) rate(ctx context.Context) {
	tick := time.NewTicker(rateTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		for name, total := range map[string]int64{"conn.handshake": g.set.totals.handshake.total.Load(), "conn.lifetime": g.set.totals.lifetime.total.Load()} {
			g.rates[name].tick(total)
		}
		g.mu.Unlock()
	}
}

// push sends all metrics over a connection of their own.
func (g *graphite) push(ctx context.Context) error {
	conn, err := g.set.cfg.Push.dial(ctx, "tcp", g.set.cfg.Graphite)
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	if err == nil {
		_, err = conn.Write(g.lines(time.Now()))
	}
	if !stop() { // closed, by ctx
		return errors.Join(err, context.Cause(ctx))
	}
	return errors.Join(err, conn.Close())
}

func (g *graphite) lines(now time.Time) []byte {
	l := graphiteLines{prefix: g.set.cfg.Prefix, now: now.Unix(), seconds: g.set.cfg.Interval.Seconds()}
	for _, c := range g.set.totals.counters() {
		l.add(c.name, "count", strconv.FormatInt(c.value, 10))
		l.float(c.name, "count_ps", float64(c.value)/l.seconds)
	}
	g.mu.Lock()
	for _, t := range g.set.totals.timers() {
		l.float(t.name, "count_ps", float64(t.total)/l.seconds)
		l.timer(t)
		l.rates(t.name, t.total, g.rates[t.name], now)
	}
	g.mu.Unlock()
	gauges, pauses := process()
	l.timer(pauses)
	for _, gauge := range gauges {
		switch v := gauge.value.(type) {
		case float64:
			l.add(gauge.name, "value", strconv.FormatFloat(v, 'f', 6, 64))
		default:
			l.add(gauge.name, "value", fmt.Sprint(v))
		}
	}
	return l.Bytes()
}

// graphiteLines are the lines of one push.
type graphiteLines struct {
	bytes.Buffer
	prefix  string
	now     int64   // seconds since 1970
	seconds float64 // between two pushes
}

func (l *graphiteLines) add(name, what, value string) {
	fmt.Fprintf(l, "%s.%s.%s %s %d\n", l.prefix, name, what, value, l.now)
}

func (l *graphiteLines) float(name, what string, v float64) {
	l.add(name, what, strconv.FormatFloat(v, 'f', 2, 64))
}

func (l *graphiteLines) timer(t timer) {
	l.add(t.name, "count", strconv.FormatInt(t.total, 10))
	l.add(t.name, "min", strconv.FormatInt(t.min(), 10))
	l.add(t.name, "max", strconv.FormatInt(t.max(), 10))
	l.float(t.name, "mean", t.mean())
	l.float(t.name, "std-dev", t.deviation())
	for _, q := range []float64{.5, .75, .95, .99, .999} {
		key := strings.Replace(strconv.FormatFloat(q*100, 'f', -1, 64), ".", "", 1) // 99.9 is 999
		l.float(t.name, key+"-percentile", t.quantile(q))
	}
}

func (l *graphiteLines) rates(name string, total int64, r *rate, now time.Time) {
	l.float(name, "one-minute", r.perSecond[0])
	l.float(name, "five-minute", r.perSecond[1])
	l.float(name, "fifteen-minute", r.perSecond[2])
	l.float(name, "mean-rate", float64(total)/max(now.Sub(r.started).Seconds(), 1))
}

// rate is how many of something there are a second, as exponentially weighted
// averages over a minute, five and fifteen: what load averages are.
type rate struct {
	started   time.Time
	seen      int64
	ticked    bool
	perSecond [3]float64
}

// tick takes in how many there are after another rateTick.
func (r *rate) tick(total int64) {
	now := float64(total-r.seen) / rateTick.Seconds()
	r.seen = total
	for i, minutes := range []float64{1, 5, 15} {
		weight := 1 - math.Exp(-rateTick.Minutes()/minutes)
		if !r.ticked {
			weight = 1 // of nothing, no average is made
		}
		r.perSecond[i] += weight * (now - r.perSecond[i])
	}
	r.ticked = true
}
