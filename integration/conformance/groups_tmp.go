package conformance

func bundleChecks() []Check      { return nil }
func federatedChecks() []Check   { return nil }
func entryChecks() []Check       { return nil }
func entryListChecks() []Check   { return nil }
func entryFilterChecks() []Check { return nil }
func authorizedChecks() []Check  { return nil }
func svidChecks() []Check        { return nil }
func mintChecks() []Check        { return nil }
func jwtChecks() []Check         { return nil }
func downstreamChecks() []Check  { return nil }
func relationChecks() []Check    { return nil }
func loggerChecks() []Check      { return nil }
func debugChecks() []Check       { return nil }
func healthChecks() []Check      { return nil }
func syncChecks() []Check        { return nil }
func authorityChecks() []Check   { return nil }
func upstreamChecks() []Check    { return nil }
func shortChecks() []Check       { return nil }
func noJWTChecks() []Check       { return nil }
func limitChecks() []Check       { return nil }
