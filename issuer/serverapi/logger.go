package serverapi

import "github.com/lanyard-mtls/lanyard/internal/spireapi/loggerv1"

// LoggerService is spire.api.server.logger.v1.Logger.
type LoggerService struct {
	loggerv1.UnimplementedLoggerServer
	deps Deps
}

// NewLoggerService returns the service.
func NewLoggerService(d Deps) *LoggerService {
	d.setDefaults()
	return &LoggerService{deps: d}
}
