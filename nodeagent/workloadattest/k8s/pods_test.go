package k8s

import (
	"strings"
	"testing"
)

func TestListsThatAreNone(t *testing.T) {
	for list, want := range map[string]string{
		"":                               "unexpected EOF",
		"[]":                             "instead of",
		"{}":                             "no items",
		`{"items":{}}`:                   "no array",
		`{"items":[`:                     "unexpected EOF",
		`{"items":[{"metadata":{"uid":1`: "unexpected EOF",
		`{"items":[{"metadata":7}]}`:     "cannot unmarshal",
		`{"items":[],"items":[]}`:        "twice",
		`{"items":[]`:                    "unexpected EOF",
		`<html>`:                         "invalid character",
	} {
		if _, err := newIndex(strings.NewReader(list)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", list, err, want)
		}
	}
	for _, list := range []string{`{"items":null}`, `{"metadata":{"x":[{}]},"items":[{}]}`, `{"items":[{"status":{"containerStatuses":[{"containerID":""}]}}]}`} {
		if x, err := newIndex(strings.NewReader(list)); err != nil || len(x.containers)+len(x.pods) != 0 {
			t.Errorf("%s: %v, %v", list, x, err)
		}
	}
}

// Whatever the kubelet answers: what is indexed hangs together.
func FuzzPods(f *testing.F) {
	f.Add(recorded(f))
	for _, seed := range []string{`{"items":null}`, `{"items":[{"metadata":{"uid":"u"},"status":{"containerStatuses":[{"containerID":"cri-o://1"},{"containerID":"cri-o://1"}]}}]}`, `{"items":[{}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		x, err := newIndex(strings.NewReader(list))
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %v", err)
			}
			return
		}
		for uid, p := range x.pods {
			if p == nil || plain(p.Metadata.UID) != uid {
				t.Errorf("pod %q is %+v", uid, p)
			}
		}
		for id, at := range x.containers {
			if id == "" || at.pod == nil || at.pod.Metadata.UID == "" || at.container != nil && at.container.id() != id {
				t.Errorf("container %q is %+v", id, at)
			}
			if got := selectors(podSelectors(at.pod)); len(got) < 7 {
				t.Errorf("pod %q has selectors %v", at.pod.Metadata.UID, got)
			}
		}
	})
}

func BenchmarkPods(b *testing.B) {
	list := recorded(b)
	start, end := strings.Index(list, "[")+1, strings.LastIndex(list, "]")
	many := `{"items":[` + strings.Repeat(list[start:end]+",", 499) + list[start:end] + "]}"
	b.SetBytes(int64(len(many)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := newIndex(strings.NewReader(many)); err != nil {
			b.Fatal(err)
		}
	}
}
