package crash

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// diary is what the issuer has acknowledged, and the one call that it may or may not have done when it was killed.
type diary struct {
	entries  map[string]string // ID to hint, which each update changes
	deleted  map[string]bool
	agents   map[string]*joined // by path
	bundle   [][]byte           // authorities that were published
	active   string             // X.509 authority
	underway string             // ID or path that the last call was about
	hint     string             // what it was to become
	calls    int
}

// joined is an agent that the issuer has admitted.
type joined struct {
	token  string
	csr    []byte // of the key that spent the token
	serial string
	banned bool
}

func newDiary() *diary {
	return &diary{entries: map[string]string{}, deleted: map[string]bool{}, agents: map[string]*joined{}}
}

// write makes calls that change something, one after the other, until the issuer is gone: the error is of the call then.
func (d *diary) write(ctx context.Context, admin *grpc.ClientConn, addr string, rounds int) error {
	for n := range rounds {
		for _, call := range []func(context.Context, *grpc.ClientConn, string, int) error{
			d.create, d.update, d.join, d.rotate, d.ban, d.remove,
		} {
			if err := call(ctx, admin, addr, n); err != nil {
				return err
			}
			d.underway, d.hint = "", ""
			d.calls++
		}
	}
	return nil
}

func entry(id, hint string) *types.Entry {
	return &types.Entry{
		Id: id, SpiffeId: &types.SPIFFEID{TrustDomain: trustDomain, Path: "/" + id},
		ParentId:  &types.SPIFFEID{TrustDomain: trustDomain, Path: "/node"},
		Selectors: []*types.Selector{{Type: "unix", Value: "uid:" + id}}, Hint: hint,
	}
}

func (d *diary) create(ctx context.Context, admin *grpc.ClientConn, _ string, n int) error {
	for _, id := range []string{fmt.Sprintf("stay-%d", n), fmt.Sprintf("go-%d", n)} {
		d.underway, d.hint = id, "new"
		resp, err := entryv1.NewEntryClient(admin).BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{entry(id, "new")}})
		if err != nil {
			return err
		}
		if st := resp.GetResults()[0].GetStatus(); st.GetCode() != 0 {
			return fmt.Errorf("create %s: %s", id, st.GetMessage())
		}
		d.entries[id] = "new"
	}
	return nil
}

func (d *diary) update(ctx context.Context, admin *grpc.ClientConn, _ string, n int) error {
	id := fmt.Sprintf("stay-%d", n)
	d.underway, d.hint = id, "changed"
	resp, err := entryv1.NewEntryClient(admin).BatchUpdateEntry(ctx, &entryv1.BatchUpdateEntryRequest{Entries: []*types.Entry{entry(id, "changed")}})
	if err != nil {
		return err
	}
	if st := resp.GetResults()[0].GetStatus(); st.GetCode() != 0 {
		return fmt.Errorf("update %s: %s", id, st.GetMessage())
	}
	d.entries[id] = "changed"
	return nil
}

func (d *diary) remove(ctx context.Context, admin *grpc.ClientConn, _ string, n int) error {
	id := fmt.Sprintf("go-%d", n)
	d.underway = id
	resp, err := entryv1.NewEntryClient(admin).BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{id}})
	if err != nil {
		return err
	}
	if st := resp.GetResults()[0].GetStatus(); st.GetCode() != 0 {
		return fmt.Errorf("delete %s: %s", id, st.GetMessage())
	}
	delete(d.entries, id)
	d.deleted[id] = true
	return nil
}

func (d *diary) join(ctx context.Context, admin *grpc.ClientConn, addr string, n int) error {
	token := fmt.Sprintf("token-%d", n)
	d.underway = "/spire/agent/join_token/" + token
	if _, err := agentv1.NewAgentClient(admin).CreateJoinToken(ctx, &agentv1.CreateJoinTokenRequest{Ttl: 600, Token: token}); err != nil {
		return err
	}
	csr, err := newCSR()
	if err != nil {
		return err
	}
	svid, err := attest(ctx, addr, token, csr)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(svid.GetCertChain()[0])
	if err != nil {
		return err
	}
	d.agents[d.underway] = &joined{token: token, csr: csr, serial: cert.SerialNumber.String()}
	return nil
}

// ban bans every second agent.
func (d *diary) ban(ctx context.Context, admin *grpc.ClientConn, _ string, n int) error {
	if n%2 == 0 {
		return nil
	}
	path := fmt.Sprintf("/spire/agent/join_token/token-%d", n)
	d.underway = path
	_, err := agentv1.NewAgentClient(admin).BanAgent(ctx, &agentv1.BanAgentRequest{Id: &types.SPIFFEID{TrustDomain: trustDomain, Path: path}})
	if err == nil {
		d.agents[path].banned = true
	}
	return err
}

func (d *diary) rotate(ctx context.Context, admin *grpc.ClientConn, _ string, _ int) error {
	authority := localauthorityv1.NewLocalAuthorityClient(admin)
	prepared, err := authority.PrepareX509Authority(ctx, &localauthorityv1.PrepareX509AuthorityRequest{})
	if err != nil {
		return err
	}
	bundle, err := bundlev1.NewBundleClient(admin).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return err
	}
	d.bundle = d.bundle[:0]
	for _, a := range bundle.GetX509Authorities() {
		d.bundle = append(d.bundle, a.GetAsn1())
	}
	id := prepared.GetPreparedAuthority().GetAuthorityId()
	d.underway = id
	if _, err := authority.ActivateX509Authority(ctx, &localauthorityv1.ActivateX509AuthorityRequest{AuthorityId: id}); err != nil {
		return err
	}
	d.active = id
	return nil
}

func newCSR() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

// attest joins with a token. Who the issuer is doesn't matter here: it is this test's own.
func attest(ctx context.Context, addr, token string, csr []byte) (*types.X509SVID, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := agentv1.NewAgentClient(conn).AttestAgent(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: &agentv1.AttestAgentRequest_Params{
		Data:   &types.AttestationData{Type: "join_token", Payload: []byte(token)},
		Params: &agentv1.AgentX509SVIDParams{Csr: csr},
	}}}); err != nil {
		return nil, err
	}
	resp, err := stream.Recv()
	return resp.GetResult().GetSvid(), err
}

// check compares an issuer that runs again with the diary.
func (d *diary) check(ctx context.Context, admin *grpc.ClientConn, addr string) error {
	return errors.Join(d.checkEntries(ctx, admin), d.checkAgents(ctx, admin, addr), d.checkAuthorities(ctx, admin))
}

func (d *diary) checkEntries(ctx context.Context, admin *grpc.ClientConn) error {
	resp, err := entryv1.NewEntryClient(admin).ListEntries(ctx, &entryv1.ListEntriesRequest{})
	if err != nil {
		return err
	}
	var errs []error
	left := map[string]bool{}
	for _, e := range resp.GetEntries() {
		want, known := d.entries[e.GetId()]
		left[e.GetId()] = true
		whole := e.GetSpiffeId().GetPath() == "/"+e.GetId() && len(e.GetSelectors()) == 1 && e.GetSelectors()[0].GetValue() == "uid:"+e.GetId()
		switch {
		case !whole:
			errs = append(errs, fmt.Errorf("entry %s is not whole: %v", e.GetId(), e))
		case e.GetId() == d.underway && (e.GetHint() == d.hint || e.GetHint() == want):
		case !known:
			errs = append(errs, fmt.Errorf("entry %s is there and should not be", e.GetId()))
		case e.GetHint() != want:
			errs = append(errs, fmt.Errorf("entry %s is %q, acknowledged was %q", e.GetId(), e.GetHint(), want))
		}
	}
	for id := range d.entries {
		if !left[id] && id != d.underway {
			errs = append(errs, fmt.Errorf("entry %s was acknowledged and is lost", id))
		}
	}
	return errors.Join(errs...)
}

func (d *diary) checkAgents(ctx context.Context, admin *grpc.ClientConn, addr string) error {
	resp, err := agentv1.NewAgentClient(admin).ListAgents(ctx, &agentv1.ListAgentsRequest{})
	if err != nil {
		return err
	}
	var errs []error
	found := map[string]*types.Agent{}
	for _, a := range resp.GetAgents() {
		found[a.GetId().GetPath()] = a
		if d.agents[a.GetId().GetPath()] == nil && a.GetId().GetPath() != d.underway {
			errs = append(errs, fmt.Errorf("agent %s is there and never joined", a.GetId().GetPath()))
		}
	}
	for path, want := range d.agents {
		switch a := found[path]; {
		case a == nil:
			errs = append(errs, fmt.Errorf("agent %s joined and is lost", path))
			continue
		case path == d.underway && !want.banned: // the ban may have been done
		case a.GetBanned() != want.banned:
			errs = append(errs, fmt.Errorf("agent %s: banned is %v, acknowledged was %v", path, a.GetBanned(), want.banned))
		case !want.banned && a.GetX509SvidSerialNumber() != want.serial:
			errs = append(errs, fmt.Errorf("agent %s has serial %s, acknowledged was %s", path, a.GetX509SvidSerialNumber(), want.serial))
		}
		errs = append(errs, d.checkToken(ctx, addr, path, want))
	}
	return errors.Join(errs...)
}

// checkToken tries a token that was spent with another key.
func (d *diary) checkToken(ctx context.Context, addr, path string, a *joined) error {
	csr, err := newCSR()
	if err != nil {
		return err
	}
	_, err = attest(ctx, addr, a.token, csr)
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied:
		return nil
	}
	return fmt.Errorf("the token of %s was spent, and another key gets %w", path, errOrNone(err))
}

func errOrNone(err error) error {
	if err == nil {
		return errors.New("an SVID for it")
	}
	return err
}

func (d *diary) checkAuthorities(ctx context.Context, admin *grpc.ClientConn) error {
	state, err := localauthorityv1.NewLocalAuthorityClient(admin).GetX509AuthorityState(ctx, &localauthorityv1.GetX509AuthorityStateRequest{})
	if err != nil {
		return err
	}
	var errs []error
	if id := state.GetActive().GetAuthorityId(); d.active != "" && id != d.active && id != d.underway {
		errs = append(errs, fmt.Errorf("authority %s signs, acknowledged was %s", id, d.active))
	}
	bundle, err := bundlev1.NewBundleClient(admin).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return err
	}
	for _, want := range d.bundle {
		found := false
		for _, a := range bundle.GetX509Authorities() {
			found = found || bytes.Equal(a.GetAsn1(), want)
		}
		if !found {
			errs = append(errs, errors.New("an authority that was published is not in the bundle"))
		}
	}
	return errors.Join(errs...)
}
