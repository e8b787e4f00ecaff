package integration

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

const (
	// watcherTTL is the life of the watchers' SVIDs, which are renewed at half of it.
	watcherTTL = 6 * time.Second
	// watchLimit is how long a watcher may take to see a change: clients wait up to some seconds before they try again.
	watchLimit = 45 * time.Second
)

// TestClientsKeepTheirIdentity has the clients of three languages fetch and watch through rotations, a killed agent, one that
// hangs, and one that is away.
func TestClientsKeepTheirIdentity(t *testing.T) {
	t.Parallel()
	watch(t, harness.Options{})
}

// TestInteropClientsKeepTheirIdentityUnderSPIREServer is the same below a real spire-server.
func TestInteropClientsKeepTheirIdentityUnderSPIREServer(t *testing.T) {
	t.Parallel()
	watch(t, harness.Options{SPIREServer: peer(t, "spire-server")})
}

// watched is a domain with a watcher of each language.
type watched struct {
	*testing.T
	domain *harness.Domain
	all    map[string]watcher // by the path of its ID
}

func watch(t *testing.T, options harness.Options) {
	t.Helper()
	python := pythonBinary(t)
	java, javaArgs := javaClient(t)
	d := harness.NewDomain(t, bin, options)
	d.Start()
	for id, path := range map[string]string{"/gopher": selfPath(t), "/snake": pythonPath(t, python), "/duke": java} {
		d.Entry(d.ID(id), path, watcherTTL)
	}
	fetchGo(t, d, d.ID("/gopher")) // with it the agent has them all
	w := watched{T: t, domain: d, all: map[string]watcher{
		"/snake":  startWatcher(t, d, "python", python, d.WriteFile("client.py", pythonWatcher), d.WorkloadAPI()),
		"/duke":   startWatcher(t, d, "java", java, append(javaArgs, "unix:"+d.AgentSocket)...),
		"/gopher": newGoWatcher(t, d),
	}}
	w.fetch()
	for range 2 {
		w.rotation(w.serials())
	}
	w.agentIsKilled()
	w.agentHangs()
	w.agentIsAway()
	w.bundleGrows()
	w.fetch()
}

// each asks every watcher at once, again and again until check is content with the answer.
func (w watched) each(question string, check func(id, answer string) error) {
	w.Helper()
	var asking sync.WaitGroup
	for path, watcher := range w.all {
		asking.Go(func() {
			err := harness.Until(w.Context(), watchLimit, path+": "+question, func(ctx context.Context) error {
				answer, err := watcher.ask(ctx, question)
				if err != nil {
					return err
				}
				return check(w.domain.ID(path), answer)
			})
			if err != nil {
				w.Error(err)
			}
		})
	}
	asking.Wait()
	if w.Failed() {
		w.FailNow()
	}
}

// fetch wants every kind of identity.
func (w watched) fetch() {
	w.Helper()
	w.each("jwt", func(id, answer string) error { return expect(answer, "jwt "+id) })
	w.serials()
}

// serials are those of the SVIDs that the watchers hold, by ID. They hold their own, or it is wrong at once.
func (w watched) serials() map[string]string {
	w.Helper()
	var mu sync.Mutex
	found := map[string]string{}
	w.each("x509", func(id, answer string) error {
		w.own(id, answer)
		mu.Lock()
		defer mu.Unlock()
		found[id] = answer
		return nil
	})
	return found
}

// own fails the test if an SVID is another's.
func (w watched) own(id, answer string) {
	if !strings.HasPrefix(answer, "x509 "+id+" ") {
		w.Errorf("an SVID of another: %s, want that of %s", answer, id)
	}
}

// rotation waits until every watcher holds another SVID than before.
func (w watched) rotation(before map[string]string) {
	w.Helper()
	w.each("x509", func(id, answer string) error {
		w.own(id, answer)
		if answer == before[id] {
			return fmt.Errorf("still %s", answer)
		}
		return nil
	})
}

func expect(got, want string) error {
	if got != want {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	return nil
}

func (w watched) agentIsKilled() {
	w.Helper()
	w.domain.Agent.Kill()
	before := w.serials() // they keep what they have
	w.domain.StartAgent("")
	w.rotation(before)
}

// agentHangs stops the agent for some time with SIGSTOP.
func (w watched) agentHangs() {
	w.Helper()
	w.domain.Agent.Pause()
	before := w.serials()
	wait(w.Context(), watcherTTL/3)
	w.domain.Agent.Resume()
	w.rotation(before)
}

// agentIsAway stops the agent for longer than an SVID's half life; in a soak, for longer than its life.
func (w watched) agentIsAway() {
	w.Helper()
	away := watcherTTL * 2 / 3
	if soak() {
		away = 2 * watcherTTL
	}
	before := w.serials()
	if err := w.domain.Agent.Stop(5 * time.Second); w.domain.Agent.Stuck() {
		w.Fatal(err)
	}
	wait(w.Context(), away)
	w.domain.StartAgent("")
	w.rotation(before)
}

// bundleGrows has the issuer prepare another authority.
func (w watched) bundleGrows() {
	w.Helper()
	var mu sync.Mutex
	before := map[string]string{}
	w.each("bundle", func(id, answer string) error {
		mu.Lock()
		defer mu.Unlock()
		before[id] = answer
		return nil
	})
	w.domain.Admin("localauthority", "x509", "prepare")
	w.each("bundle", func(id, answer string) error {
		if answer == before[id] {
			return fmt.Errorf("still %s", answer)
		}
		return nil
	})
}
