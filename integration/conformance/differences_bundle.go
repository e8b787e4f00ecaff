package conformance

func bundleDifferences() []Difference { return nil }
