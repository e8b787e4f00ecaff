package conformance

// bundleDifferences are those of the Bundle and TrustDomain services.
func bundleDifferences() []Difference {
	return []Difference{
		{
			Name: "append: empty certificate", Checks: []string{"bundle/append an empty certificate"},
			SPIRE:   "AppendBundle stores an X.509 authority of no bytes, and answers OK.",
			Lanyard: "InvalidArgument, and nothing is stored.",
			Why:     "A bundle with an empty authority stops agents.",
		},
		{
			Name: "list bundles: page token", Checks: []string{"federated bundle/list refused"},
			SPIRE:   "ListFederatedBundles with a page token that is none: Internal.",
			Lanyard: "InvalidArgument.",
			Why:     badTokenIsTheir,
		},
		{
			Name: "relationship: exists", Checks: []string{"relationship/create refused"},
			SPIRE:   "BatchCreateFederationRelationship of one that exists: Internal, with the database's text.",
			Lanyard: "AlreadyExists.",
			Why:     badTokenIsTheir,
		},
		{
			Name: "list relationships: page token", Checks: []string{"relationship/list refused"},
			SPIRE:   "ListFederationRelationships with a page token that is none: Internal.",
			Lanyard: "InvalidArgument.",
			Why:     badTokenIsTheir,
		},
		{
			Name: "relationship: update of none", Checks: []string{"relationship/update refused"},
			SPIRE:   "BatchUpdateFederationRelationship of one that is not there: Internal, with the database's text.",
			Lanyard: "NotFound.",
			Why:     badTokenIsTheir,
		},
		{
			Name: "relationship: refresh", Checks: []string{"relationship/refresh"},
			SPIRE:   "RefreshBundle fetches the bundle from its endpoint at once.",
			Lanyard: "Unimplemented: this version keeps relationships and bundles, and fetches none by itself.",
			Why:     "Federation's endpoints come later; bundles are set by `bundle set` until then.",
		},
	}
}
