package conformance

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/debugv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/loggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func loggerChecks() []Check {
	return []Check{{"logger/levels", logLevels}, {"logger/refused", logRefused}}
}

func logLevels(c *C) {
	logger := loggerv1.NewLoggerClient(c.conn)
	launch, err := logger.GetLogger(c.ctx, &loggerv1.GetLoggerRequest{})
	c.must(err)
	c.equal("at launch", launch, &types.Logger{CurrentLevel: types.LogLevel_DEBUG, LaunchLevel: types.LogLevel_DEBUG})
	for _, level := range []types.LogLevel{
		types.LogLevel_PANIC, types.LogLevel_FATAL, types.LogLevel_ERROR, types.LogLevel_WARN, types.LogLevel_INFO,
		types.LogLevel_DEBUG, types.LogLevel_TRACE,
	} {
		got, err := logger.SetLogLevel(c.ctx, &loggerv1.SetLogLevelRequest{NewLevel: level})
		c.must(err)
		c.equal("set", got, &types.Logger{CurrentLevel: level, LaunchLevel: types.LogLevel_DEBUG})
		got, err = logger.GetLogger(c.ctx, &loggerv1.GetLoggerRequest{})
		c.must(err)
		c.equal("after it was set", got.CurrentLevel, level)
	}
	got, err := logger.ResetLogLevel(c.ctx, &loggerv1.ResetLogLevelRequest{})
	c.must(err)
	c.equal("reset", got, launch)
}

func logRefused(c *C) {
	logger := loggerv1.NewLoggerClient(c.conn)
	_, err := logger.SetLogLevel(c.ctx, &loggerv1.SetLogLevelRequest{})
	c.refused(err, codes.InvalidArgument, "newLevel value cannot be LogLevel_UNSPECIFIED")
	_, err = logger.SetLogLevel(c.ctx, &loggerv1.SetLogLevelRequest{NewLevel: 44})
	c.refused(err, codes.InvalidArgument, "unsupported log level")
}

func debugChecks() []Check { return []Check{{"debug/info", debugInfo}} }

// debugInfo may be five seconds old, so its counts are only bounded.
func debugInfo(c *C) {
	c.join()
	c.entry(c.child(c.pid("/node")))
	info, err := debugv1.NewDebugClient(c.conn).GetInfo(c.ctx, &debugv1.GetInfoRequest{})
	c.must(err)
	if info.AgentsCount < 1 || info.EntriesCount < 1 || info.FederatedBundlesCount < 1 || info.Uptime < 0 {
		c.Errorf("counts: %v", info)
	}
	if len(info.SvidChain) != 2 {
		c.Fatalf("a chain of %d, want the server's SVID and its root", len(info.SvidChain))
	}
	c.equal("the server's ID", info.SvidChain[0].Id, c.pid("/spire/server"))
	c.equal("the root's ID", info.SvidChain[1].Id, c.pid(""))
	if leaf, root := info.SvidChain[0], info.SvidChain[1]; leaf.ExpiresAt >= root.ExpiresAt || leaf.Subject == "" {
		c.Errorf("chain: %v", info.SvidChain)
	}
	entries, err := c.entries.CountEntries(c.ctx, &entryv1.CountEntriesRequest{})
	c.must(err)
	if info.EntriesCount > entries.Count {
		c.Errorf("%d entries, counted %d after it", info.EntriesCount, entries.Count)
	}
}

func healthChecks() []Check {
	return []Check{{"health/check", healthCheck}, {"health/streams", healthStreams}}
}

func healthCheck(c *C) {
	health := grpc_health_v1.NewHealthClient(c.conn)
	got, err := health.Check(c.ctx, &grpc_health_v1.HealthCheckRequest{})
	c.must(err)
	c.equal("status", got.Status, grpc_health_v1.HealthCheckResponse_SERVING)
	_, err = health.Check(c.ctx, &grpc_health_v1.HealthCheckRequest{Service: "spire.api.server.entry.v1.Entry"})
	c.refused(err, codes.InvalidArgument, "per-service health is not supported")
}

func healthStreams(c *C) {
	health := grpc_health_v1.NewHealthClient(c.conn)
	stream, err := health.Watch(c.ctx, &grpc_health_v1.HealthCheckRequest{})
	c.must(err)
	_, err = stream.Recv()
	c.refused(err, codes.Unimplemented, "method Watch not implemented")
	_, err = health.List(c.ctx, &grpc_health_v1.HealthListRequest{})
	c.refused(err, codes.Unimplemented, "method List not implemented")
}
