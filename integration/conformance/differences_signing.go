package conformance

func signingDifferences() []Difference { return nil }
