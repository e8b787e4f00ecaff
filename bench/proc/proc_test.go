package proc

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestCPU compares the clock with what getrusage says of this process, which is not the same to the nanosecond.
func TestCPU(t *testing.T) {
	before, err := CPU([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	for begun := before; begun < before+50*time.Millisecond; {
		if begun, err = CPU([]int{os.Getpid()}); err != nil {
			t.Fatal(err)
		}
	}
	both, err := CPU([]int{os.Getpid(), os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if both < 2*(before+50*time.Millisecond) {
		t.Errorf("CPU time of a process counted twice is %v, of which it used %v once before and 50ms since", both, before)
	}
	if _, err := CPU([]int{1<<22 + 1}); err == nil {
		t.Error("CPU time of a process that can't exist")
	}
}

func TestTreeHoldsWorkers(t *testing.T) {
	shell := exec.Command("sh", "-c", "sleep 60 & echo started; wait")
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	tree, err := Tree(shell.Process.Pid)
	for _, pid := range tree {
		process, findErr := os.FindProcess(pid)
		if findErr != nil {
			t.Fatal(findErr)
		}
		_ = process.Kill()
	}
	_ = shell.Wait()
	if err != nil || len(tree) != 2 || tree[0] != shell.Process.Pid {
		t.Errorf("tree of %d: %v, %v; want itself and one child", shell.Process.Pid, tree, err)
	}
}

func TestResident(t *testing.T) {
	now, err := Resident([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if now.Resident < 1024 || now.Shared > now.Resident || now.Anonymous > now.Resident || now.Anonymous == 0 {
		t.Errorf("this process has %+v KiB", now)
	}
}

const rollup = `55d0c0a00000-7ffd4b5f2000 ---p 00000000 00:00 0                          [rollup]
Rss:               25000 kB
Pss:               12000 kB
Pss_Dirty:          9000 kB
Anonymous:          8000 kB
`

func TestParseRollup(t *testing.T) {
	got, err := parseRollup([]byte(rollup))
	if diff := cmp.Diff(Memory{25000, 12000, 8000}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for _, bad := range []string{"", "Rss: 1 kB\nPss: 1 kB\n", "Rss: x kB\nPss: 1 kB\nAnonymous: 1 kB\n"} {
		if _, err := parseRollup([]byte(bad)); err == nil {
			t.Errorf("%q parsed", bad)
		}
	}
}

func TestParseStat(t *testing.T) {
	const text = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 31 7 0 0 20 0 9 0 1000 2000 300 1844"
	got, err := parseStat(text)
	if diff := cmp.Diff(Ticks{31, 7}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if share := got.Share(Ticks{1, 7}); share != 0 {
		t.Errorf("share of what was in user mode only: %v", share)
	}
	if share := got.Share(Ticks{28, 6}); share != 25 {
		t.Errorf("share %v, want 25", share)
	}
	if share := got.Share(got); share != 0 {
		t.Errorf("share of nothing: %v", share)
	}
	for _, bad := range []string{"", "42 (a) S 1", "42 (a) S 1 42 42 0 -1 4194560 100 0 0 0 x 7 0"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q parsed", bad)
		}
	}
	if own, err := CPUTicks([]int{os.Getpid()}); err != nil || own.User < 0 {
		t.Errorf("of this process: %+v, %v", own, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(rollup)
	f.Add("42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 31 7 0 0 20 0")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = parseStat(text)
		_, _ = parseRollup([]byte(text))
	})
}
