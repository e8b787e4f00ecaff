package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
)

// workloadVerb makes this binary a new workload: it connects, fetches, and says how long that took.
const workloadVerb = "be-workload"

// outcome is what a workload says.
type outcome struct {
	Took time.Duration
	ID   string
}

// beWorkload fetches the SVID of this process over a new connection. A health check over another one goes before it, so
// that the time is the agent's, and not that of this program's own first steps.
func beWorkload(ctx context.Context, socket string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	warm, err := dial(socket)
	if err != nil {
		return err
	}
	if _, err := grpc_health_v1.NewHealthClient(warm).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		return err
	}
	if err := warm.Close(); err != nil {
		return err
	}
	begin := time.Now()
	conn, err := dial(socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, resp, err := fetch(ctx, conn)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(outcome{time.Since(begin), resp.GetSvids()[0].GetSpiffeId()})
}

// first measures how long new workloads wait, each a process of a user that has not called before.
func (m *measurement) first(ctx context.Context, entries int) error {
	n := m.set.starts
	if m.polls && entries > 1000 {
		n /= 4
	}
	n = min(n, entries)
	samples := make([]time.Duration, n)
	for i := range samples {
		// Spread over all entries, an SVID is kept ready for few of which.
		took, err := m.workload(ctx, firstUID+entries-1-i*(entries/n))
		if err != nil {
			return err
		}
		samples[i] = took
	}
	m.times(secFirst, fmt.Sprintf("%d entries", entries), samples)
	return nil
}

func (m *measurement) workload(ctx context.Context, uid int) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", workloadVerb, m.programs.socket())
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}, Pdeathsig: syscall.SIGKILL}
	text, err := cmd.Output()
	if err != nil {
		if failed := new(exec.ExitError); errors.As(err, &failed) {
			err = fmt.Errorf("%w: %s", err, failed.Stderr)
		}
		return 0, fmt.Errorf("workload of user %d: %w", uid, err)
	}
	var said outcome
	if err := json.Unmarshal(text, &said); err != nil {
		return 0, err
	}
	i := uid - firstUID
	if want := fmt.Sprintf("spiffe://%s/ns/team-%d/sa/service-%d", trustDomain, i%100, i); said.ID != want {
		return 0, fmt.Errorf("user %d was given %s, want %s", uid, said.ID, want)
	}
	return said.Took, nil
}
