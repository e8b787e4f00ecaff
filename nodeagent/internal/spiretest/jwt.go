package spiretest

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
)

// jwtKeys are the JWT part of the bundles, and what signs. Guarded by Server.mu.
type jwtKeys struct {
	signs *jwttest.Authority // nil: JWT-SVIDs are disabled
	keys  map[spiffeid.TrustDomain][]*types.JWTKey
}

// SignJWTs has JWT-SVIDs signed by a, whose key need not be in the bundle; nil: none are.
func (s *Server) SignJWTs(a *jwttest.Authority) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jwt.signs = a
}

func knowsTemplates(ctx context.Context) bool {
	return slices.Contains(metadata.ValueFromIncomingContext(ctx, "lanyard-templates"), "1")
}

// authorized is the entry of the ID, or the instance of a template; s.mu is held.
func (s *Server) authorized(caller spiffeid.ID, entryID string) (registration.Entry, bool) {
	id, path, instance := strings.Cut(entryID, "~")
	e, ok := s.entries[id]
	if ok && instance {
		var err error
		e.SPIFFEID, err = spiffeid.FromPath(s.CA.TrustDomain, path)
		ok = err == nil && !e.Template.IsZero()
	}
	return e, ok && e.ParentID == caller
}

// NewJWTSVID signs with an hour of life, or the entry's.
func (v svidService) NewJWTSVID(ctx context.Context, req *svidv1.NewJWTSVIDRequest) (*svidv1.NewJWTSVIDResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jwt.signs == nil {
		return nil, status.Error(codes.Unimplemented, "JWT functionality is disabled")
	}
	entry, ok := s.authorized(certID(clientCert(ctx)), req.EntryId)
	if !ok {
		return nil, status.Error(codes.NotFound, "entry not found or not authorized")
	}
	token, err := s.jwt.signs.Sign(jwttest.Claims(entry.SPIFFEID.String(), time.Now(), cmp.Or(entry.JWTSVIDTTL, time.Hour), req.Audience...))
	if err != nil {
		return nil, err
	}
	return &svidv1.NewJWTSVIDResponse{Svid: &types.JWTSVID{Token: token}}, nil
}
