package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Calls counts calls as SPIRE does: for each a counter, and a summary of how many milliseconds it took. They are made when they
// are first needed, 256 at most.
type Calls struct {
	reg   *Registry
	label string

	mu    sync.Mutex
	calls map[string]*call // guarded by mu; by name
}

type call struct {
	count   *prometheus.CounterVec
	elapsed *prometheus.SummaryVec
}

// NewCalls returns Calls whose outcome is told in the label named: SPIRE's "status".
func NewCalls(reg *Registry, label string) *Calls {
	return &Calls{reg: reg, label: label, calls: map[string]*call{}}
}

// Count counts a call by its name, "rpc_entry_v1_entry_list_entries", and by its outcome: the name of a code.
func (c *Calls) Count(name, outcome string, took time.Duration) {
	made := c.of(name)
	if made == nil {
		return
	}
	made.count.WithLabelValues(outcome).Inc()
	made.elapsed.WithLabelValues(outcome).Observe(float64(took) / float64(time.Millisecond))
}

// of returns what counts a call; nil if its name is another's, or there are too many.
func (c *Calls) of(name string) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if made, ok := c.calls[name]; ok {
		return made
	}
	if len(c.calls) >= maxNames {
		return nil
	}
	made := &call{
		count: prometheus.NewCounterVec(prometheus.CounterOpts{Name: c.reg.Prefix + "_" + name, Help: name}, []string{c.label}),
		elapsed: prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: c.reg.Prefix + "_" + name + "_elapsed_time", Help: name + "_elapsed_time",
			Objectives: map[float64]float64{0.5: 0.05, 0.9: 0.01, 0.99: 0.001}, MaxAge: time.Minute}, []string{c.label}),
	}
	if c.reg.Register(made.count) != nil || c.reg.Register(made.elapsed) != nil {
		made = nil
	}
	c.calls[name] = made
	return made
}
