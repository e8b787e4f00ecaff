package metrics

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// filtered is what of a registry the configuration has told.
type filtered struct {
	from prometheus.Gatherer
	Filter
}

// Gather implements prometheus.Gatherer.
func (f filtered) Gather() ([]*dto.MetricFamily, error) {
	families, err := f.from.Gather()
	families = slices.DeleteFunc(families, func(family *dto.MetricFamily) bool { return !f.allows(family.GetName()) })
	if len(f.AllowedLabels)+len(f.BlockedLabels) > 0 {
		for _, family := range families {
			f.unlabel(family)
		}
	}
	return families, err
}

func (f Filter) allows(name string) bool {
	longest, allowed := -1, true
	for _, list := range []struct {
		prefixes []string
		allowed  bool
	}{{f.BlockedPrefixes, false}, {f.AllowedPrefixes, true}} {
		for _, prefix := range list.prefixes {
			if prefix = Sanitize(prefix); strings.HasPrefix(name, prefix) && len(prefix) >= longest {
				longest, allowed = len(prefix), list.allowed
			}
		}
	}
	return allowed
}

// unlabel takes labels away. Of series that are the same then, only the first stays if they are gauges or summaries; counters
// and histograms are added up.
func (f Filter) unlabel(family *dto.MetricFamily) {
	var kept []*dto.Metric
	byLabels := map[string]*dto.Metric{}
	for _, m := range family.Metric {
		m.Label = slices.DeleteFunc(m.Label, func(l *dto.LabelPair) bool {
			return len(f.AllowedLabels) > 0 && !slices.Contains(f.AllowedLabels, l.GetName()) || slices.Contains(f.BlockedLabels, l.GetName())
		})
		var key strings.Builder
		for _, l := range m.Label {
			key.WriteString(l.GetName() + "\x00" + l.GetValue() + "\x00")
		}
		if same := byLabels[key.String()]; same != nil {
			add(same, m)
			continue
		}
		byLabels[key.String()] = m
		kept = append(kept, m)
	}
	family.Metric = kept
}

func add(to, m *dto.Metric) {
	if to.Counter != nil && m.Counter != nil {
		*to.Counter.Value += m.Counter.GetValue()
	}
	if h := to.Histogram; h != nil && m.Histogram != nil {
		*h.SampleCount += m.Histogram.GetSampleCount()
		*h.SampleSum += m.Histogram.GetSampleSum()
		for i, b := range m.Histogram.Bucket {
			*h.Bucket[i].CumulativeCount += b.GetCumulativeCount()
		}
	}
}
