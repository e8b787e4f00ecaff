package workloadattest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// maxProcFile bounds what is read of a file in /proc/PID. A status line of 65536
// supplementary groups (NGROUPS_MAX) of ten digits is the longest there can be.
const maxProcFile = 1 << 20

// procStatus is what attestation needs of /proc/PID/status.
type procStatus struct {
	// UID and GID are the effective ones, as SPIRE's.
	UID, GID uint32
	Groups   []uint32
}

// parseStatus reads /proc/PID/status (proc_pid_status(5)). The process chooses
// its Name, in which the kernel escapes line ends; each field counts where it
// first stands at the beginning of a line, and must be well formed there.
func parseStatus(data []byte) (procStatus, error) {
	var st procStatus
	var seenUID, seenGID, seenGroups bool
	for line := range bytes.Lines(data) {
		key, value, found := bytes.Cut(line, []byte(":"))
		if !found {
			continue
		}
		var err error
		switch {
		case string(key) == "Uid" && !seenUID:
			seenUID = true
			st.UID, err = effective(string(value))
		case string(key) == "Gid" && !seenGID:
			seenGID = true
			st.GID, err = effective(string(value))
		case string(key) == "Groups" && !seenGroups:
			seenGroups = true
			st.Groups, err = parseIDs(string(value))
		}
		if err != nil {
			return procStatus{}, fmt.Errorf("field %s: %w", key, err)
		}
	}
	// Kernels without supplementary groups (CONFIG_MULTIUSER off) still print
	// all three.
	if !seenUID || !seenGID || !seenGroups {
		return procStatus{}, errors.New("fields Uid, Gid and Groups are not all there")
	}
	return st, nil
}

// effective returns the second of the real, effective, saved and file system ID.
func effective(value string) (uint32, error) {
	ids, err := parseIDs(value)
	if err != nil {
		return 0, err
	}
	if len(ids) != 4 {
		return 0, fmt.Errorf("%d IDs, want 4", len(ids))
	}
	return ids[1], nil
}

func parseIDs(value string) ([]uint32, error) {
	var ids []uint32
	for field := range strings.FieldsSeq(value) {
		id, err := strconv.ParseUint(field, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("ID %.20q is not a number of 32 bits", field)
		}
		ids = append(ids, uint32(id))
	}
	return ids, nil
}

// procStat is what pinning needs of /proc/PID/stat.
type procStat struct {
	// start is clock ticks from boot to the start of the process.
	start uint64
	// ended is true of a zombie.
	ended bool
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)): fields 3 and 22. The process
// chooses its name, field 2, with any bytes in it; fields are counted from the
// last ')'.
func parseStat(data []byte) (procStat, error) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return procStat{}, errors.New("/proc/PID/stat: no process name")
	}
	fields := strings.Fields(string(data[end+1:]))
	const startTime = 22 - 3 // field 3 is the first after the name
	if len(fields) <= startTime {
		return procStat{}, fmt.Errorf("/proc/PID/stat: %d fields after the name", len(fields))
	}
	ticks, err := strconv.ParseUint(fields[startTime], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("/proc/PID/stat: start time %.20q is not a number", fields[startTime])
	}
	return procStat{start: ticks, ended: fields[0] == "Z" || fields[0] == "X"}, nil
}

// parseFDInfoPID returns the PID that /proc/self/fdinfo of a pidfd names: -1
// once the process is gone, 0 if it has none in this PID namespace.
func parseFDInfoPID(data []byte) (int, error) {
	for line := range bytes.Lines(data) {
		value, found := strings.CutPrefix(string(line), "Pid:")
		if !found {
			continue
		}
		pid, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32)
		if err != nil {
			return 0, fmt.Errorf("PID %.20q is not a number", strings.TrimSpace(value))
		}
		return int(pid), nil
	}
	return 0, errors.New("not a pidfd: no field Pid")
}

// parseNSpid returns field NSpid of /proc/self/status: this process's numbers
// in the PID namespace of the mounted /proc and in each below, down to its own.
func parseNSpid(data []byte) ([]uint32, error) {
	for line := range bytes.Lines(data) {
		if value, found := strings.CutPrefix(string(line), "NSpid:"); found {
			return parseIDs(value)
		}
	}
	return nil, errors.New("no field NSpid")
}

// ownProc returns nil if /proc is of this process's own PID namespace, in which
// the kernel tells callers' numbers.
func ownProc() error {
	data, err := readProc("/proc/self/status")
	if err == nil {
		err = isOwn(data, os.Getpid())
	}
	if err != nil {
		return fmt.Errorf("callers cannot be looked up: %w: mount the /proc of the agent's own PID namespace, or let the agent run in the host's", err)
	}
	return nil
}

func isOwn(status []byte, pid int) error {
	pids, err := parseNSpid(status)
	if err != nil {
		return fmt.Errorf("/proc/self/status: %w", err)
	}
	if len(pids) != 1 || int64(pids[0]) != int64(pid) {
		return fmt.Errorf("/proc names this process pid %v, and it is %d", pids, pid)
	}
	return nil
}

// readProc reads a file in /proc, up to [maxProcFile] bytes.
func readProc(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, maxProcFile)
}

// readAll has room for most files of /proc at once: each read is a system call.
func readAll(f *os.File, limit int) ([]byte, error) {
	data := make([]byte, 0, min(limit+1, 4096))
	for len(data) <= limit {
		if len(data) == cap(data) {
			data = slices.Grow(data, len(data))
		}
		n, err := f.Read(data[len(data):min(cap(data), limit+1)])
		data = data[:len(data)+n]
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("it is longer than %d bytes", limit)
}
