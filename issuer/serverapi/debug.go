package serverapi

import "github.com/lanyard-mtls/lanyard/internal/spireapi/debugv1"

// DebugService is spire.api.server.debug.v1.Debug.
type DebugService struct {
	debugv1.UnimplementedDebugServer
	deps Deps
}

// NewDebugService returns the service.
func NewDebugService(d Deps) *DebugService {
	d.setDefaults()
	return &DebugService{deps: d}
}
