package conformance

import (
	"encoding/json"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func joinChecks() []Check {
	return []Check{
		{"join/token", joinToken},
		{"join/token used again", tokenAgain},
		{"join/token with a malformed CSR", tokenBadCSR},
		{"join/token with a forged CSR", tokenForgedCSR},
		{"join/token expired", tokenExpired},
		{"join/create token", createToken},
		{"join/token with an agent ID", tokenAlias},
		{"join/malformed parameters", attestMalformed},
		{"join/unknown attestor", attestUnknown},
		{"join/x509pop", joinX509POP},
		{"join/x509pop again", rejoinX509POP},
		{"join/x509pop refused", refusedX509POP},
	}
}

const tokenSpent = "failed to attest: join token does not exist or has already been used"

// joinToken wants the SVID of an agent for a token, and the agent's ID made from it.
func joinToken(c *C) {
	token, key := c.token(), newKey(c)
	svid, err := c.attest("join_token", []byte(token), key)
	c.must(err)
	c.equal("agent ID", svid.ID.String(), c.id("/spire/agent/join_token/"+token).String())
	cert := svid.Certificates[0]
	if !key.PublicKey.Equal(cert.PublicKey) {
		c.Error("the SVID is for another key")
	}
	c.leafProfile(cert, svid.ID)
	c.validity(cert, time.Hour)
}

func tokenAgain(c *C) {
	token := []byte(c.token())
	_, err := c.attest("join_token", token, newKey(c))
	c.must(err)
	_, err = c.attest("join_token", token, newKey(c))
	c.refused(err, codes.InvalidArgument, tokenSpent)
	for _, other := range []string{"unheard-of", "../../spire/server", "\x00", string(make([]byte, 5000))} {
		_, err = c.attest("join_token", []byte(other), newKey(c))
		c.refused(err, codes.InvalidArgument, tokenSpent)
	}
}

// tokenBadCSR is whether a mistaken request costs the token.
func tokenBadCSR(c *C) {
	token := []byte(c.token())
	_, err := c.attestWith("join_token", token, []byte("not a CSR"), nil)
	c.refused(err, codes.InvalidArgument, "failed to parse CSR: …")
	_, err = c.attest("join_token", token, newKey(c))
	if c.Differs("join: malformed CSR") {
		c.must(err)
	} else {
		c.refused(err, codes.InvalidArgument, tokenSpent)
	}
}

func tokenForgedCSR(c *C) {
	_, err := c.attestWith("join_token", []byte(c.token()), forgedCSR(c), nil)
	if c.Differs("join: CSR signature") {
		c.refused(err, codes.InvalidArgument, "…")
	} else {
		c.must(err)
	}
}

func tokenExpired(c *C) {
	token, err := c.agents.CreateJoinToken(c.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 1})
	c.must(err)
	c.sleepUntil(time.Unix(token.ExpiresAt, 0).Add(time.Second))
	_, err = c.attest("join_token", []byte(token.Value), newKey(c))
	c.refused(err, codes.InvalidArgument, "join token expired")
	_, err = c.attest("join_token", []byte(token.Value), newKey(c))
	c.refused(err, codes.InvalidArgument, tokenSpent)
}

func createToken(c *C) {
	create := func(req *agentv1.CreateJoinTokenRequest) (*types.JoinToken, error) {
		return c.agents.CreateJoinToken(c.ctx, req)
	}
	for _, ttl := range []int32{0, -1} {
		_, err := create(&agentv1.CreateJoinTokenRequest{Ttl: ttl})
		c.refused(err, codes.InvalidArgument, "ttl is required, you must provide one")
	}
	_, err := create(&agentv1.CreateJoinTokenRequest{Ttl: 60, AgentId: c.pid("/spire/agent/x")})
	c.refused(err, codes.InvalidArgument, `invalid agent ID: "`+c.id("/spire/agent/x").String()+
		`" is not a workload in trust domain "`+c.td.Name()+`"; path is in the reserved namespace`)
	_, err = create(&agentv1.CreateJoinTokenRequest{Ttl: 60, AgentId: &types.SPIFFEID{TrustDomain: "other.test", Path: "/x"}})
	c.refused(err, codes.InvalidArgument, `invalid agent ID: "spiffe://other.test/x" is not a member of trust domain "`+c.td.Name()+`"`)

	made, err := create(&agentv1.CreateJoinTokenRequest{Ttl: 60})
	c.must(err)
	if left := time.Until(time.Unix(made.ExpiresAt, 0)); len(made.Value) != 36 || left < 55*time.Second || left > time.Minute {
		c.Errorf("a token of %d characters, %s left; want a UUID, a minute", len(made.Value), left)
	}
	chosen := c.unique("chosen-0123456789abcdef")
	got, err := create(&agentv1.CreateJoinTokenRequest{Ttl: 60, Token: chosen})
	c.must(err)
	c.equal("token", got.Value, chosen)
	_, err = create(&agentv1.CreateJoinTokenRequest{Ttl: 60, Token: chosen})
	if c.Differs("join: token exists") {
		c.refused(err, codes.AlreadyExists, "failed to create token: …")
	} else {
		c.refused(err, codes.Internal, "failed to create token: …")
	}
}

// tokenAlias wants the entry that gives the agent its other ID, and that entry gone with the agent.
func tokenAlias(c *C) {
	alias := c.pid("/" + c.unique("node"))
	token, err := c.agents.CreateJoinToken(c.ctx, &agentv1.CreateJoinTokenRequest{Ttl: 60, AgentId: alias})
	c.must(err)
	listed := func() []*types.Entry {
		list, err := c.entries.ListEntries(c.ctx, &entryv1.ListEntriesRequest{Filter: &entryv1.ListEntriesRequest_Filter{BySpiffeId: alias}})
		c.must(err)
		return list.Entries
	}
	early := len(listed())
	if c.Differs("join: alias of a token") {
		c.equal("entries before the token is used", early, 0)
	} else {
		c.equal("entries before the token is used", early, 1)
	}
	svid, err := c.attest("join_token", []byte(token.Value), newKey(c))
	c.must(err)
	a, entries := c.as(svid), listed()
	if len(entries) != 1 {
		c.Fatalf("alias entries: %v, want one", entries)
	}
	c.equal("parent of the alias", entries[0].ParentId, a.id)
	c.equal("selectors of the alias", entries[0].Selectors, []*types.Selector{{Type: "spiffe_id", Value: svid.ID.String()}})
	below := c.entry(c.child(alias))
	c.authorized(a, entries[0].Id, below.Id)
	_, err = c.agents.DeleteAgent(c.ctx, &agentv1.DeleteAgentRequest{Id: a.id})
	c.must(err)
	c.equal("alias entries after the agent was evicted", len(listed()), 0)
}

func attestMalformed(c *C) {
	csr := newCSR(c)
	attest := func(params *agentv1.AttestAgentRequest_Params) error {
		_, err := c.converse(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: params}}, nil)
		return err
	}
	data := func(kind, payload string) *types.AttestationData {
		return &types.AttestationData{Type: kind, Payload: []byte(payload)}
	}
	params := &agentv1.AgentX509SVIDParams{Csr: csr}
	_, err := c.converse(&agentv1.AttestAgentRequest{}, nil)
	c.refused(err, codes.InvalidArgument, "malformed param: missing params")
	for text, p := range map[string]*agentv1.AttestAgentRequest_Params{
		"missing attestation data":         {Params: params},
		"missing X509-SVID parameters":     {Data: data("join_token", "x")},
		"missing CSR":                      {Data: data("join_token", "x"), Params: &agentv1.AgentX509SVIDParams{}},
		"missing attestation data type":    {Data: data("", "x"), Params: params},
		"missing attestation data payload": {Data: data("join_token", ""), Params: params},
	} {
		c.refused(attest(p), codes.InvalidArgument, "malformed param: "+text)
	}
}

func attestUnknown(c *C) {
	_, err := c.attest("no_such_attestor", []byte("x"), newKey(c))
	c.refused(err, codes.FailedPrecondition, `error getting node attestor: could not find node attestor type "no_such_attestor"`)
}

// joinX509POP wants the selectors that the certificate earns.
func joinX509POP(c *C) {
	n := c.newNode()
	svid, err := n.prove(c)
	c.must(err)
	c.equal("agent ID", svid.ID.String(), c.id("/spire/agent/x509pop/"+sha1Hex(n.cert.Raw)).String())
	got, err := c.agents.GetAgent(c.ctx, &agentv1.GetAgentRequest{Id: c.as(svid).id})
	c.must(err)
	if got.AttestationType != "x509pop" || !got.CanReattest {
		c.Errorf("agent: %v", got)
	}
	want := []string{"x509pop:ca:fingerprint:" + sha1Hex(c.pop.Cert.Raw), "x509pop:serialnumber:" + serialHex(n.cert)}
	var selectors []string
	for _, s := range got.Selectors {
		selectors = append(selectors, s.Type+":"+s.Value)
	}
	slices.Sort(selectors)
	c.equal("selectors", selectors, want)
}

// rejoinX509POP wants a second attestation to void the SVID of the first at once.
func rejoinX509POP(c *C) {
	n := c.newNode()
	first, err := n.prove(c)
	c.must(err)
	a := c.as(first)
	c.must(a.post(c))
	second, err := n.prove(c)
	c.must(err)
	c.equal("agent ID", second.ID, first.ID)
	if got := reason(a.post(c)); got != types.PermissionDeniedDetails_AGENT_NOT_ACTIVE {
		c.Errorf("with the SVID of before: %s", got)
	}
	c.must(c.as(second).post(c))
}

// refusedX509POP is certificates of another CA, and another's key.
func refusedX509POP(c *C) {
	_, err := c.attest("x509pop", []byte("not JSON"), newKey(c))
	c.refused(err, codes.InvalidArgument, "nodeattestor(x509pop): failed to unmarshal data: …")
	other := testcaNew(c)
	cert, key := other.Leaf(c.T)
	_, err = node{cert, key}.prove(c)
	c.refused(err, codes.PermissionDenied, "nodeattestor(x509pop): certificate verification failed: …")
	stolen := c.newNode()
	stolen.key = newKey(c)
	_, err = stolen.prove(c)
	c.refused(err, codes.PermissionDenied, "nodeattestor(x509pop): challenge response verification failed: …")
	payload, err := json.Marshal(map[string]any{"certificates": [][]byte{}})
	c.must(err)
	_, err = c.attest("x509pop", payload, newKey(c))
	c.refused(err, codes.InvalidArgument, "nodeattestor(x509pop): no certificate to attest")
}
