package metrics_test

import (
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/sidecar/metrics"
)

func TestConfigSaysWhatIsWrongWithIt(t *testing.T) {
	for want, cfg := range map[string]metrics.Config{
		"": {Prefix: "edge-1.web", Graphite: "127.0.0.1:2003", URL: "https://u:p@json.test/x", Interval: time.Second},
		"metrics_prefix a b: holds a space or what can't be printed: give letters, digits, dots and dashes": {Prefix: "a b"},
		"metrics_graphite carbon: not an address: give HOST:PORT":                                           {Graphite: "carbon"},
		"metrics_url ftp://x: has to start with http:// or https://":                                        {URL: "ftp://u:secret@x"},
		"metrics_url nowhere: has to start with http:// or https://":                                        {URL: "nowhere"},
		"metrics_url: not a URL: give http://HOST:PORT/PATH":                                                {URL: "http://u:secret%@x"},
		"metrics_url http://: names no host: give http://HOST:PORT/PATH":                                    {URL: "http:///x"},
		"metrics_interval -1s: must be more than 0":                                                         {Interval: -time.Second},
	} {
		got := ""
		if err := cfg.Validate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Whatever the password is, encoded well or not, it is never shown.
func FuzzURLSecretsAreNotShown(f *testing.F) {
	for _, s := range []string{"secret", "8080/secret", "a@b", "%zz", "p?q#r", "\x00", "[::1]", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, secret string) {
		const host = "json.test"
		if len(secret) < 2 || strings.Contains("metrics_url http://"+host+": not a URL: give http://HOST:PORT/PATH names no host", secret) {
			return
		}
		for _, u := range []string{"http://u:" + secret + "@" + host, "http://" + host + "/in?token=" + secret} {
			err := metrics.Config{URL: u}.Validate()
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%q: %v", u, err)
			}
			if shown := metrics.Redacted(u); strings.Contains(shown, secret) {
				t.Errorf("%q is shown as %q", u, shown)
			}
		}
	})
}
