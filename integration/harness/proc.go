package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Held is what a program holds of the machine.
type Held struct {
	Files int // open descriptors
	RSS   int // resident memory in bytes
}

// Held is what the program holds now, by /proc.
func (p *Process) Held() (Held, error) {
	dir := "/proc/" + strconv.Itoa(p.PID())
	files, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return Held{}, err
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return Held{}, err
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	words := strings.Fields(rest)
	if len(words) < 2 || words[1] != "kB" {
		return Held{}, fmt.Errorf("no VmRSS in %s/status", dir)
	}
	kib, err := strconv.Atoi(words[0])
	return Held{Files: len(files), RSS: kib << 10}, err
}
