package listen_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/sidecar/listen"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in              string
		network, addr   string
		local, dialable bool
		serverName      string
	}{
		{"127.0.0.1:8443", listen.TCP, "127.0.0.1:8443", true, true, ""},
		{"[::1]:8443", listen.TCP, "[::1]:8443", true, true, ""},
		{"localhost:https", listen.TCP, "localhost:https", true, true, "localhost"},
		{"LOCALHOST:1", listen.TCP, "LOCALHOST:1", false, true, "LOCALHOST"},
		{"127.0.0.2:1", listen.TCP, "127.0.0.2:1", false, true, ""},
		{":0", listen.TCP, ":0", false, true, ""},
		{"[fe80::1%eth0]:1", listen.TCP, "[fe80::1%eth0]:1", false, true, ""},
		{"db.example.org:5432", listen.TCP, "db.example.org:5432", false, true, "db.example.org"},
		{"unix:/run/db.sock", listen.UNIX, "/run/db.sock", true, true, ""},
		{"unix:@db", listen.UNIX, "@db", true, true, ""},
		{"systemd:web", listen.Systemd, "web", true, false, ""},
	} {
		a, err := listen.Parse("listen", tt.in)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		if a != (listen.Address{Network: tt.network, Address: tt.addr}) || a.IsLocal() != tt.local || a.IsDialable() != tt.dialable || a.ServerName() != tt.serverName {
			t.Errorf("%s: %+v, local %v, dialable %v, server name %q", tt.in, a, a.IsLocal(), a.IsDialable(), a.ServerName())
		}
		if a.String() != tt.in {
			t.Errorf("%s is printed as %s", tt.in, a)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "is missing: give HOST:PORT",
		"8443":                              "not an address: give HOST:PORT",
		"::1:8443":                          "not an address",
		"127.0.0.1:":                        "the port is missing",
		"127.0.0.1:65536":                   `"65536" is not a port: give a number up to 65535`,
		"127.0.0.1:-1":                      `"-1" is not a port`,
		"127.0.0.1:+1":                      `"+1" is not a port`,
		"127.0.0.1:080":                     `"080" is not a port`,
		"unix:":                             "the path is missing",
		"unix:/" + strings.Repeat("x", 107): "choose a shorter one",
		"unix:/a\x00b":                      "zero byte",
		"systemd:":                          "the name is missing",
		"launchd:web":                       "launchd is macOS only: give HOST:PORT, unix:PATH or systemd:NAME",
	} {
		a, err := listen.Parse("listen", in)
		var wrong *setting.Error
		if !errors.As(err, &wrong) {
			t.Errorf("%q: %v, %v; want a *setting.Error", in, a, err)
			continue
		}
		if wrong.Key != "listen" || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%q: %q, want one line with %q", in, err, want)
		}
	}
}

func TestParseStatus(t *testing.T) {
	for in, want := range map[string]listen.StatusAddress{
		"127.0.0.1:1":         {Address: listen.Address{Network: listen.TCP, Address: "127.0.0.1:1"}},
		"http://127.0.0.1:1":  {Address: listen.Address{Network: listen.TCP, Address: "127.0.0.1:1"}, Scheme: "http"},
		"https://localhost:1": {Address: listen.Address{Network: listen.TCP, Address: "localhost:1"}, Scheme: "https"},
		"unix:/run/s":         {Address: listen.Address{Network: listen.UNIX, Address: "/run/s"}},
		"systemd:status":      {Address: listen.Address{Network: listen.Systemd, Address: "status"}},
	} {
		got, err := listen.ParseStatus("status.listen", in)
		if err != nil || got != want || got.String() != in {
			t.Errorf("%s: %+v (%s), %v", in, got, got, err)
		}
	}
	for in, want := range map[string]string{
		"http://unix:/run/s":  "status.listen http://unix:/run/s: a scheme goes with HOST:PORT only: give unix:/run/s",
		"https://systemd:x":   "a scheme goes with HOST:PORT only",
		"http://127.0.0.1":    "status.listen http://127.0.0.1: not an address",
		"ftp://127.0.0.1:1":   "not an address",
		"http://127.0.0.1:1/": "not a port",
	} {
		if _, err := listen.ParseStatus("status.listen", in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

// Gap 22: the same port for two settings was accepted, and connections went to either.
func TestGap22OneAddressForTwoSettingsConflicts(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:http", "127.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.1:81", false},
		{"127.0.0.1:80", "[::1]:80", false},
		{"127.0.0.1:80", ":80", true},
		{"[::1]:80", ":80", true},
		{"[::1]:80", "[0:0::1]:80", true},
		{"[::]:80", "0.0.0.0:80", true},
		{"0.0.0.0:80", "[::1]:80", false},
		{"0.0.0.0:80", "[::ffff:127.0.0.1]:80", true},
		{"localhost:80", "127.0.0.1:80", true},
		{"localhost:80", "LocalHost:80", true},
		{"localhost:80", "0.0.0.0:80", true},
		{"a.test:80", "b.test:80", false},
		{":0", ":0", false},
		{"unix:/run/a", "unix:/run//a", true},
		{"unix:/run/a", "unix:/run/b", false},
		{"systemd:a", "systemd:a", true},
		{"systemd:a", "systemd:b", false},
		{"unix:a", "systemd:a", false},
	} {
		a, errA := listen.Parse("listen", tt.a)
		b, errB := listen.Parse("status", tt.b)
		if err := errors.Join(errA, errB); err != nil {
			t.Error(err)
			continue
		}
		if listen.Conflicts(a, b) != tt.want || listen.Conflicts(b, a) != tt.want {
			t.Errorf("%s and %s: want %v", a, b, tt.want)
		}
		if a.Key() == b.Key() && !tt.want && tt.a != ":0" {
			t.Errorf("%s and %s have one key, but do not conflict", a, b)
		}
	}
	if listen.Conflicts(listen.Address{}, listen.Address{}) {
		t.Error("no address conflicts with no address")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"127.0.0.1:80", "[::1%lo]:http", ":0", "unix:/run/s", "unix:@a", "systemd:web", "launchd:x", "http://a:1", "https://unix:/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := listen.ParseStatus("status", s)
		if err != nil {
			var wrong *setting.Error
			if !errors.As(err, &wrong) || wrong.Problem == "" {
				t.Fatalf("%v", err)
			}
			return
		}
		again, err := listen.ParseStatus("status", a.String())
		if err != nil || again != a {
			t.Fatalf("%q is %+v, printed as %q, read as %+v, %v", s, a, a, again, err)
		}
		if a.Key() == "" || a.Network == listen.UNIX && !listen.Conflicts(a.Address, a.Address) {
			t.Fatalf("%+v has key %q", a, a.Key())
		}
	})
}
