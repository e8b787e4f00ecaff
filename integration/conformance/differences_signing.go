package conformance

// signingDifferences are those of the SVID service.
func signingDifferences() []Difference {
	return []Difference{
		{
			Name: "entry: expired", Checks: []string{"svid/new X.509 of an expired entry"},
			SPIRE:   "An entry past its expires_at is served and signed for until a job deletes it, which may take five minutes.",
			Lanyard: "It is nobody's from that second on.",
			Why:     "An end that was set is an end.",
		},
		{
			Name: "WIT-SVID", Checks: []string{"svid/new WIT"},
			SPIRE:   "BatchNewWITSVID looks at its parameters before it says that WIT-SVIDs are off, which they are by default.",
			Lanyard: "Unimplemented, whatever the parameters.",
			Why:     "WIT-SVIDs come later; no client can get one from either.",
		},
	}
}
