package workloadattest

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const status = "Name:\tevil\\nUid:\t0\t0\t0\t0\nUmask:\t0022\nState:\tS (sleeping)\n" +
	"Uid:\t1000\t1001\t1002\t1003\nGid:\t50\t51\t52\t53\nFDSize:\t64\nGroups:\t4 27 4294967295 \nNStgid:\t7\n"

func TestParseStatus(t *testing.T) {
	got, err := parseStatus([]byte(status))
	if err != nil {
		t.Fatal(err)
	}
	want := procStatus{UID: 1001, GID: 51, Groups: []uint32{4, 27, 4294967295}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParseStatusRefuses(t *testing.T) {
	for name, edit := range map[string][2]string{
		"three IDs":     {"1000\t1001\t1002\t1003", "1000\t1001\t1002"},
		"negative":      {"1001", "-1"},
		"33 bits":       {"1001", "4294967296"},
		"no groups":     {"Groups:", "Group:"},
		"bad group":     {"27", "x"},
		"no uid":        {"\nUid:", "\nUld:"},
		"indented user": {"\nUid:", "\n Uid:"},
	} {
		t.Run(name, func(t *testing.T) {
			if st, err := parseStatus([]byte(strings.Replace(status, edit[0], edit[1], 1))); err == nil {
				t.Errorf("accepted as %+v", st)
			}
		})
	}
}

func TestParseStat(t *testing.T) {
	stat := "42 (a) S 1 2 3) R 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2 3\n"
	for state, want := range map[string]procStat{"R": {start: 987654}, "Z": {start: 987654, ended: true}} {
		got, err := parseStat([]byte(strings.Replace(stat, " R ", " "+state+" ", 1)))
		if err != nil || got != want {
			t.Errorf("state %s: %+v, %v", state, got, err)
		}
	}
}

func TestForeignProc(t *testing.T) {
	for name, test := range map[string]struct {
		status string
		want   string // "": it is ours
	}{
		"own":        {"Name:\tx\nNSpid:\t7\n", ""},
		"the host's": {"NSpid:\t4711\t7\n", "pid [4711 7], and it is 7"},
		"by chance":  {"NSpid:\t7\t7\n", "pid [7 7]"},
		"another":    {"NSpid:\t8\n", "pid [8]"},
		"none":       {"Name:\tx\n", "NSpid"},
	} {
		err := isOwn([]byte(test.status), 7)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(status))
	if own, err := os.ReadFile("/proc/self/status"); err == nil {
		f.Add(own)
	}
	f.Add([]byte("Uid:\nGid:\nGroups:\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := parseStatus(data)
		if err != nil {
			return
		}
		// Nothing after the fields can change what was read.
		again, err := parseStatus(append(data[:len(data):len(data)], "\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t0\n"...))
		if diff := cmp.Diff(st, again); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a) S 1 2 3) R 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2 3\n"))
	f.Add([]byte(")"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		parseStat(data)
		parseNSpid(data)
		parseFDInfoPID(data)
	})
}
