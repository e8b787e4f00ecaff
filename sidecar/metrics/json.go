package metrics

import (
	"encoding/json"
	"os"
	"time"
)

// point is a metric as ghostunnel tells it in JSON.
type point struct {
	Timestamp int64  `json:"timestamp"` // seconds since 1970
	Metric    string `json:"metric"`
	Value     any    `json:"value"` // durations in nanoseconds
	Hostname  string `json:"hostname"`
}

// points are all metrics under ghostunnel's names.
func (s *Set) points(now time.Time) []point {
	host, _ := os.Hostname() // ghostunnel ends itself if there is none
	var list []point
	add := func(name string, value any) {
		list = append(list, point{now.Unix(), s.cfg.Prefix + "." + name, value, host})
	}
	for _, c := range s.totals.counters() {
		add(c.name, c.value)
	}
	gauges, pauses := process()
	for _, t := range append(s.totals.timers(), pauses) {
		add(t.name+".count", t.total)
		add(t.name+".min", t.min())
		add(t.name+".max", t.max())
		add(t.name+".mean", t.mean())
		add(t.name+".50-percentile", t.quantile(.5))
		add(t.name+".75-percentile", t.quantile(.75))
		add(t.name+".95-percentile", t.quantile(.95))
		add(t.name+".99-percentile", t.quantile(.99))
	}
	for _, g := range gauges {
		add(g.name, g.value)
	}
	return list
}

// JSON is all metrics in ghostunnel's form.
func (s *Set) JSON() ([]byte, error) { return json.Marshal(s.points(time.Now())) }
