package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

const (
	svidLife     = 10 * time.Second
	perSecond    = 50 // requests, on each leg
	minRotations = 3  // on each leg
	minLoad      = 20 * time.Second
)

// stage is what the scenes share.
type stage struct {
	*harness.Domain
	*show
	set  settings
	web  string // address of the web server
	legs []*leg

	webID, userID, intruderID string
	refusals                  []string
}

// play shows everything, scene by scene. A scene that does not hold ends it.
func play(show *show, set settings) {
	show.print("1", "Lanyard: mutual TLS with rotating SPIFFE identities, for programs that know nothing of them.")
	if set.breaks != "" {
		show.bad("DEMO_BREAK=%s: that part is broken on purpose, and the demo must fail.", set.breaks)
	}
	s := &stage{show: show, set: set}
	show.Cleanup(s.nothingLeft) // cleanups run the youngest first, so this one is the last
	s.Domain = harness.NewDomain(show, set.bin, harness.Options{})
	s.webID, s.userID, s.intruderID = s.ID("/web"), s.ID("/curl"), s.ID("/intruder")

	s.identities()
	s.sidecars()
	s.envoys()
	s.intruder()
	s.underLoad()
	s.summary()
}

func (s *stage) say(format string, args ...any) { s.show.say(format, args...) }

// nothingLeft checks that the harness has cleaned up: it ends and waits for each process before it removes the directory.
func (s *stage) nothingLeft() {
	if s.Domain == nil {
		return
	}
	if _, err := os.Stat(s.Dir); err == nil {
		s.Fatalf("%s is still there", s.Dir)
	}
}

// identities starts issuer and agent.
func (s *stage) identities() {
	s.title("1. An issuer and an agent, for the trust domain %s", s.Name)
	s.Start()
	s.say("issuer  pid %-6d %s", s.Issuer.PID(), s.IssuerAddr)
	s.say("agent   pid %-6d %s, joined with a token that is spent now", s.Agent.PID(), s.WorkloadAPI())
}

// register gives a workload its own copy of a binary and an identity by that path and this user.
func (s *stage) register(spiffeID, binary, workload string) string {
	path := s.Copy(binary, workload)
	life := svidLife
	if s.set.breaks == "rotation" {
		life = time.Hour
	}
	s.Entry(spiffeID, path, life)
	s.say("entry   %-32s for unix:path:%s and unix:uid:%d", spiffeID, path, os.Getuid())
	return path
}

// sidecars is the first leg.
func (s *stage) sidecars() {
	s.title("2. python3 -m http.server behind a sidecar, curl through another")
	s.web = s.WebServer("Hello from python3 -m http.server, which speaks no TLS.\n")
	allow := []string{"--allow-uri", s.userID}
	if s.set.breaks == "policy" {
		allow = []string{"--allow-all"}
	}
	server := s.Sidecar(harness.SidecarSpec{
		Name: "web's sidecar", Binary: s.register(s.webID, s.SidecarBinary(), "web"), Mode: "server",
		Target: s.web, WorkloadAPI: s.WorkloadAPI(), Args: allow,
	})
	client := s.Sidecar(harness.SidecarSpec{
		Name: "curl's sidecar", Binary: s.register(s.userID, s.SidecarBinary(), "curl"), Mode: "client",
		Target: server.Listen, WorkloadAPI: s.WorkloadAPI(), Args: []string{"--verify-uri", s.webID},
	})
	s.legs = append(s.legs, &leg{name: "sidecars", plain: client.Listen, tls: server.Listen, refusal: s.sidecarRefusal(server)})
	s.curl(client.Listen)
	record, err := server.WaitFor(s.Context(), "peer_spiffe_id")
	if err != nil {
		s.Fatalf("%v", err)
	}
	s.say("one record of it, by web's sidecar:")
	s.quote(record)
}

// envoys is the second leg: the same two programs, with Envoy where the sidecars were.
func (s *stage) envoys() {
	s.title("3. The same two behind a pair of Envoys, fed by the agent's SDS")
	if s.set.envoy == "" {
		s.say("SKIP the Envoy leg: no Envoy for this system")
		return
	}
	spec := harness.EnvoySpec{SDSSocket: s.AgentSocket, Certificate: "default", Bundle: "ROOTCA", Delta: true, Printed: true}
	web, user := spec, spec
	web.Name, web.Server, web.Target, web.PeerID = "web-envoy", true, s.web, s.userID
	web.Binary = s.register(s.webID, s.set.envoy, web.Name)
	server := s.Envoy(web)
	user.Name, user.Target, user.PeerID = "curl-envoy", server.Listen, s.webID
	user.Binary = s.register(s.userID, s.set.envoy, user.Name)
	client := s.Envoy(user)
	s.say("both run on the configuration that `lanyard sds bootstrap` prints")
	s.legs = append(s.legs, &leg{name: "Envoys", plain: client.Listen, tls: server.Listen, refusal: s.envoyRefusal(server)})
	s.curl(client.Listen)
}

// curl shows a request and its answer.
func (s *stage) curl(addr string) {
	s.say("$ curl http://%s/", addr)
	answer, err := harness.Run(s.Context(), "curl", "-sS", "--max-time", "10", "http://"+addr+"/")
	if err != nil {
		s.Fatalf("not served: %v", err)
	}
	s.quote(answer)
}

// intruder tries each leg's server with a good SVID of another SPIFFE ID.
func (s *stage) intruder() {
	s.title("4. A workload with another SPIFFE ID")
	binary := s.register(s.intruderID, s.SidecarBinary(), "intruder")
	for _, leg := range s.legs {
		client := s.Sidecar(harness.SidecarSpec{
			Name: "the intruder's sidecar", Binary: binary, Mode: "client", Target: leg.tls, WorkloadAPI: s.WorkloadAPI(),
		})
		s.say("$ curl http://%s/    (to the %s' server)", client.Listen, leg.name)
		answer, err := harness.Run(s.Context(), "curl", "-sS", "--max-time", "10", "http://"+client.Listen+"/")
		if err == nil {
			s.quote(answer)
			s.Fatalf("policy: %s was served by the %s' server, which was to refuse it", s.intruderID, leg.name)
		}
		reason, err := leg.refusal(s.Context())
		if err != nil {
			s.Fatalf("policy: no word of why %s was refused: %v", s.intruderID, err)
		}
		s.say("refused, because")
		s.quote(reason)
		s.refusals = append(s.refusals, fmt.Sprintf("%s by the %s' server", s.intruderID, leg.name))
		if err := client.Stop(5 * time.Second); err != nil {
			s.Fatalf("the intruder's sidecar: %v", err)
		}
	}
}

// sidecarRefusal finds the server's record of a refused connection.
func (s *stage) sidecarRefusal(server *harness.Sidecar) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return server.WaitFor(ctx, s.intruderID)
	}
}

// envoyRefusal reads Envoy's counter of peers whose SAN it does not accept.
func (s *stage) envoyRefusal(server *harness.Envoy) func(context.Context) (string, error) {
	return func(ctx context.Context) (reason string, err error) {
		err = harness.Until(ctx, 5*time.Second, "Envoy's counter", func(ctx context.Context) error {
			reason, err = harness.Get(ctx, harness.NewConns(), "http://"+server.Admin+"/stats?usedonly&filter=ssl.fail_verify_san")
			if err == nil && reason == "" {
				err = fmt.Errorf("ssl.fail_verify_san is 0")
			}
			return err
		})
		return reason, err
	}
}
