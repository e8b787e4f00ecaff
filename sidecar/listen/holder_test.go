package listen

import (
	"strings"
	"testing"
)

func TestParseListening(t *testing.T) {
	for line, want := range map[string]string{
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000000000000000 100 0 0 10 0":                          "127.0.0.1:8080 4242",
		"   1: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0 0": "[::1]:443 7",
		"   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0000000000000000 100 0 0 10 0":                          "",
		"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode":                                                         "",
	} {
		local, inode, ok := parseListening(line)
		got := strings.TrimSpace(local.String() + " " + inode)
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func FuzzParseListening(f *testing.F) {
	f.Add("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1")
	f.Add("0: :1F90 0:0 0A 0 0 0 0 0 1")
	f.Fuzz(func(t *testing.T, line string) {
		if local, inode, ok := parseListening(line); ok && (!local.IsValid() || inode == "") {
			t.Fatalf("%q: %v %q", line, local, inode)
		}
	})
}

func FuzzParseInherited(f *testing.F) {
	f.Add("7", "2", "a:b")
	f.Add("7", "1", "")
	f.Fuzz(func(t *testing.T, pid, fds, names string) {
		if got, err := parseInherited(pid, fds, names, 7); err == nil && len(got) > maxFDs {
			t.Fatalf("%d names", len(got))
		}
	})
}
