package serverapi

import "github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"

// OperationsService is lanyard.issuer.v1.Operations.
type OperationsService struct {
	operationsv1.UnimplementedOperationsServer
	deps Deps
}

// NewOperationsService returns the service.
func NewOperationsService(d Deps) *OperationsService {
	d.setDefaults()
	return &OperationsService{deps: d}
}
