package serverapi

import "github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"

// LocalAuthorityService is spire.api.server.localauthority.v1.LocalAuthority.
type LocalAuthorityService struct {
	localauthorityv1.UnimplementedLocalAuthorityServer
	deps Deps
}

// NewLocalAuthorityService returns the service.
func NewLocalAuthorityService(d Deps) *LocalAuthorityService {
	d.setDefaults()
	return &LocalAuthorityService{deps: d}
}
