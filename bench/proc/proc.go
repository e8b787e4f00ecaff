// Package proc reads what processes have used: CPU time and memory. It adds up a program's processes, workers included,
// and starts and ends none.
package proc

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Tree is a process and its descendants, those that it has now.
func Tree(pid int) ([]int, error) {
	tree := []int{pid}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	if len(tasks) == 0 {
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that has ended has no children
		}
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", task, err)
			}
			below, err := Tree(child)
			if err != nil {
				return nil, err
			}
			tree = append(tree, below...)
		}
	}
	return tree, nil
}

// CPU is the CPU time these processes have used so far, in user mode and in the kernel, threads that ended included. It is
// read from each process's CPU clock, which counts nanoseconds where /proc/PID/stat counts hundredths of a second.
func CPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		var now unix.Timespec
		if err := unix.ClockGettime(cpuClock(pid), &now); err != nil {
			return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
		}
		sum += time.Duration(now.Nano())
	}
	return sum, nil
}

// cpuClock is what clock_getcpuclockid(3) returns: the scheduler's clock (2) of a process.
func cpuClock(pid int) int32 { return int32(^pid<<3 | 2) }

// Ticks are hundredths of a second in user mode and in the kernel, as /proc/PID/stat estimates them: good enough for the
// kernel's share, once many have passed.
type Ticks struct{ User, Kernel int64 }

// Share is the kernel's part of what has passed since before, in percent; 0 if nothing has.
func (t Ticks) Share(before Ticks) float64 {
	user, kernel := t.User-before.User, t.Kernel-before.Kernel
	if user+kernel == 0 {
		return 0
	}
	return 100 * float64(kernel) / float64(user+kernel)
}

// CPUTicks are those of these processes so far.
func CPUTicks(pids []int) (Ticks, error) {
	var sum Ticks
	for _, pid := range pids {
		name := fmt.Sprintf("/proc/%d/stat", pid)
		text, err := os.ReadFile(name)
		if err != nil {
			return Ticks{}, err
		}
		one, err := parseStat(string(text))
		if err != nil {
			return Ticks{}, fmt.Errorf("%s: %w", name, err)
		}
		sum = Ticks{sum.User + one.User, sum.Kernel + one.Kernel}
	}
	return sum, nil
}

// parseStat reads fields 14 and 15 (proc(5)), counted from behind the name, which may hold anything but ends in the last
// parenthesis.
func parseStat(text string) (Ticks, error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return Ticks{}, fmt.Errorf("%d fields after the name in %q", len(fields), text)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return Ticks{}, err
	}
	kernel, err := strconv.ParseInt(fields[12], 10, 64)
	return Ticks{user, kernel}, err
}

// Memory is resident memory in KiB.
type Memory struct {
	Resident  int64 // VmRSS
	Shared    int64 // PSS: a page that several processes have counts as its share
	Anonymous int64 // of Resident, what is no file's
}

// Sub is the difference.
func (m Memory) Sub(o Memory) Memory {
	return Memory{m.Resident - o.Resident, m.Shared - o.Shared, m.Anonymous - o.Anonymous}
}

// Resident is the memory of these processes now.
func Resident(pids []int) (Memory, error) {
	var sum Memory
	for _, pid := range pids {
		name := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
		text, err := os.ReadFile(name)
		if err != nil {
			return Memory{}, err
		}
		one, err := parseRollup(text)
		if err != nil {
			return Memory{}, fmt.Errorf("%s: %w", name, err)
		}
		sum = Memory{sum.Resident + one.Resident, sum.Shared + one.Shared, sum.Anonymous + one.Anonymous}
	}
	return sum, nil
}

func parseRollup(text []byte) (Memory, error) {
	var m Memory
	fields := map[string]*int64{"Rss:": &m.Resident, "Pss:": &m.Shared, "Anonymous:": &m.Anonymous}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 3 || fields[words[0]] == nil {
			continue
		}
		n, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil || words[2] != "kB" {
			return Memory{}, fmt.Errorf("line %q", lines.Text())
		}
		*fields[words[0]] = n
		delete(fields, words[0])
	}
	if len(fields) > 0 {
		return Memory{}, fmt.Errorf("no Rss, Pss or Anonymous in it")
	}
	return m, nil
}
