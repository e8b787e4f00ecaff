package conformance

// entryDifferences are those of the Entry service.
func entryDifferences() []Difference {
	return []Difference{
		{
			Name: "entry: unknown federated domain", Checks: []string{"entry/federates with an unknown domain"},
			SPIRE:   "An entry that federates with a trust domain whose bundle is not there: Internal.",
			Lanyard: "The entry is taken; agents get the bundle once it is there.",
			Why:     "Entries come from files and controllers, which know no order; a bundle that comes later is no error of theirs.",
		},
		{
			Name: "update: similar entry", Checks: []string{"entry/update to be similar"},
			SPIRE:   "BatchUpdateEntry may make an entry the twin of another.",
			Lanyard: "AlreadyExists, as for BatchCreateEntry.",
			Why:     "Twins make two SVIDs of one identity for each workload, and which one it gets is chance.",
		},
		{
			Name: "list entries: page token", Checks: []string{"entry/list page token refused"},
			SPIRE:   "ListEntries with a page token that is none: Internal.",
			Lanyard: "InvalidArgument.",
			Why:     badTokenIsTheir,
		},
	}
}
