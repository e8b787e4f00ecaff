package conformance

// bundleDifferences are those of the Bundle and TrustDomain services.
func bundleDifferences() []Difference {
	return []Difference{
		{
			Name: "append: empty certificate", Check: "bundle/append an empty certificate",
			SPIRE:   "AppendBundle stores an X.509 authority of no bytes, and answers OK.",
			Lanyard: "InvalidArgument, and nothing is stored.",
			Why:     "A bundle with an empty authority stops agents.",
		},
		{
			Name: "list bundles: page token", Check: "federated bundle/list refused",
			SPIRE:   "ListFederatedBundles with a page token that is none: Internal.",
			Lanyard: "InvalidArgument.",
			Why:     badTokenIsTheir,
		},
		{
			Name: "relationship: exists", Check: "relationship/create refused",
			SPIRE:   "BatchCreateFederationRelationship of one that exists: Internal, with the database's text.",
			Lanyard: "AlreadyExists.",
			Why:     badTokenIsTheir,
		},
		{
			Name: "list relationships: page token", Check: "relationship/list refused",
			SPIRE:   "ListFederationRelationships with a page token that is none: Internal.",
			Lanyard: "InvalidArgument.",
			Why:     badTokenIsTheir,
		},
		{
			Name: "relationship: update of none", Check: "relationship/update refused",
			SPIRE:   "BatchUpdateFederationRelationship of one that is not there: Internal, with the database's text.",
			Lanyard: "NotFound.",
			Why:     badTokenIsTheir,
		},
	}
}
