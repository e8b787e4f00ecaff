package follow

import (
	"errors"
	"fmt"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// attested is a result by which the attestors found their selectors; a nil slice is one that failed.
func attested(unix, docker, k8s []string) workloadattest.Result {
	var r workloadattest.Result
	for _, a := range []struct {
		name  string
		found []string
	}{{"unix", unix}, {"docker", docker}, {"k8s", k8s}} {
		rep := workloadattest.Report{Plugin: a.name}
		if a.found == nil {
			rep.Err = errors.New("away")
		}
		for _, v := range a.found {
			r.Selectors = append(r.Selectors, registration.Selector{Type: a.name, Value: v})
		}
		r.Reports = append(r.Reports, rep)
	}
	r.Selectors = registration.SortSelectors(r.Selectors)
	return r
}

func TestStanding(t *testing.T) {
	one, none := []string{"a"}, []string{}
	two := []string{"a", "b"}
	for name, test := range map[string]struct {
		then       []workloadattest.Result
		want       string
		incomplete bool
	}{
		"complete":                           {[]workloadattest.Result{attested(one, one, none)}, "[docker:a unix:a]", false},
		"docker away":                        {[]workloadattest.Result{attested(one, nil, none)}, "[unix:a]", true},
		"away later":                         {[]workloadattest.Result{attested(one, one, none), attested(one, nil, none)}, "[docker:a unix:a]", false},
		"away, and another program":          {[]workloadattest.Result{attested(one, one, none), attested(two, nil, none)}, "[docker:a unix:a unix:b]", false},
		"back with others":                   {[]workloadattest.Result{attested(one, one, none), attested(one, nil, none), attested(one, two, none)}, "[docker:a docker:b unix:a]", false},
		"back with none":                     {[]workloadattest.Result{attested(one, nil, none), attested(one, none, none)}, "[unix:a]", false},
		"still away":                         {[]workloadattest.Result{attested(one, nil, none), attested(one, nil, none)}, "[unix:a]", true},
		"one back, the other gone":           {[]workloadattest.Result{attested(one, nil, one), attested(one, two, nil)}, "[docker:a docker:b k8s:a unix:a]", false},
		"both away, then one back":           {[]workloadattest.Result{attested(one, nil, nil), attested(one, one, nil)}, "[docker:a unix:a]", true},
		"away twice after it had been there": {[]workloadattest.Result{attested(one, one, none), attested(one, nil, none), attested(one, nil, none)}, "[docker:a unix:a]", false},
	} {
		only := registration.Selector{Type: "lanyard", Value: "socket:x"}
		w := Found(test.then[0], only)
		for _, next := range test.then[1:] {
			w = w.Then(next)
		}
		if got := fmt.Sprint(w.Caller().Selectors); got != test.want || w.Incomplete() != test.incomplete || w.Caller().Only != only {
			t.Errorf("%s: %s, incomplete %v, want %s, %v", name, got, w.Incomplete(), test.want, test.incomplete)
		}
	}
}
