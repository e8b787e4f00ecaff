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
		{
			Name: "sync: more than fits a message", Checks: []string{"sync/more than fits a message"},
			SPIRE:   "Up to 500 entries go to an agent in one message, even one that gRPC's clients refuse (4 MiB): the agent stays as it is.",
			Lanyard: "Where they would not fit, the entries' revisions are sent, as beyond 500, and the entries in messages that fit.",
			Why:     "SPIRE's agents know that form, and go on.",
		},
		{
			Name: "list: more than fits a message", Checks: []string{"sync/more than fits a message"},
			SPIRE:   "ListEntries without a page size sends all, even a message that clients refuse.",
			Lanyard: "It sends what fits, and a page token that leads on.",
			Why:     "A client that looks at the token gets all of it. Those that know no token: ask by pages, as SPIRE's own tools do.",
		},
	}
}
