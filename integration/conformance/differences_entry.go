package conformance

func entryDifferences() []Difference { return nil }
