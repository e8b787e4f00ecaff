package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Call counts one kind of call as SPIRE does: a counter, and a summary of how many milliseconds each took.
type Call struct {
	count   *prometheus.CounterVec
	elapsed *prometheus.SummaryVec
}

// NewCall registers a Call under a name without the prefix: "rpc_health_check". It panics if that is taken.
func NewCall(reg *Registry, name string, labels ...string) *Call {
	c, err := newCall(reg, name, labels...)
	if err != nil {
		panic(err)
	}
	return c
}

func newCall(reg *Registry, name string, labels ...string) (*Call, error) {
	c := &Call{
		count: prometheus.NewCounterVec(prometheus.CounterOpts{Name: reg.Prefix + "_" + name, Help: name}, labels),
		elapsed: prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: reg.Prefix + "_" + name + "_elapsed_time", Help: name + "_elapsed_time",
			Objectives: map[float64]float64{0.5: 0.05, 0.9: 0.01, 0.99: 0.001}, MaxAge: time.Minute}, labels),
	}
	if err := reg.Register(c.count); err != nil {
		return nil, err
	}
	return c, reg.Register(c.elapsed)
}

// Count counts a call, with the values of its labels. Below 0, took is not known.
func (c *Call) Count(took time.Duration, values ...string) {
	c.count.WithLabelValues(values...).Inc()
	if took >= 0 {
		c.elapsed.WithLabelValues(values...).Observe(float64(took) / float64(time.Millisecond))
	}
}

// Calls counts calls of any name, each with its outcome in SPIRE's label "status". They are registered when they are first
// made, 256 at most.
type Calls struct {
	reg *Registry

	mu    sync.Mutex
	calls map[string]*Call // guarded by mu; by name
}

// NewCalls returns Calls that has counted none.
func NewCalls(reg *Registry) *Calls { return &Calls{reg: reg, calls: map[string]*Call{}} }

// Count counts a call by its name, "rpc_entry_v1_entry_list_entries", and by its outcome: the name of a code.
func (c *Calls) Count(name, outcome string, took time.Duration) {
	if made := c.of(name); made != nil {
		made.Count(took, outcome)
	}
}

// of returns what counts a call; nil if its name is another's, or there are too many.
func (c *Calls) of(name string) *Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if made, ok := c.calls[name]; ok {
		return made
	}
	if len(c.calls) >= maxNames {
		return nil
	}
	made, err := newCall(c.reg, name, "status")
	if err != nil {
		made = nil
	}
	c.calls[name] = made
	return made
}
