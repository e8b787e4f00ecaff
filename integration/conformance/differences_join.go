package conformance

const (
	csrCheckedFirst = "A request that is not proven to come from the key's owner is no request; SPIRE's own agent signs all of its."
	badTokenIsTheir = "The caller made the mistake, not the server; alerts on internal errors stay quiet."
)

// joinDifferences are those of the Agent service.
func joinDifferences() []Difference {
	return []Difference{
		{
			Name: "renew: CSR signature", Checks: []string{"agent/renew refused"},
			SPIRE:   "RenewAgent signs a key whose request has a signature that does not fit.",
			Lanyard: "InvalidArgument.",
			Why:     csrCheckedFirst,
		},
		{
			Name: "join: CSR signature", Checks: []string{"join/token with a forged CSR"},
			SPIRE:   "AttestAgent signs a key whose request has a signature that does not fit.",
			Lanyard: "InvalidArgument.",
			Why:     csrCheckedFirst,
		},
		{
			Name: "join: malformed CSR", Checks: []string{"join/token with a malformed CSR"},
			SPIRE:   "A join token is spent by an attempt whose CSR is malformed.",
			Lanyard: "The CSR is looked at first, and the token stays good.",
			Why:     "A mistake of the caller costs nobody a new token.",
		},
		{
			Name: "join: token exists", Checks: []string{"join/create token"},
			SPIRE:   "CreateJoinToken with a token that exists: Internal, with the text of the database.",
			Lanyard: "AlreadyExists.",
			Why:     badTokenIsTheir,
		},
		{
			Name: "join: alias of a token", Checks: []string{"join/token with an agent ID"},
			SPIRE:   "CreateJoinToken with an agent ID creates the alias entry at once, and leaves it when the token is never used.",
			Lanyard: "The entry is made in the transaction that spends the token.",
			Why:     "The token is kept as a hash, so the agent's ID is not known before; and no dead entries pile up.",
		},
		{
			Name: "list agents: page token", Checks: []string{"agent/list refused"},
			SPIRE:   "ListAgents with a page token that is none: Internal.",
			Lanyard: "InvalidArgument.",
			Why:     badTokenIsTheir,
		},
		{
			Name: "list agents: malformed time", Checks: []string{"agent/list by a malformed time"},
			SPIRE:   "A by_expires_before that is no time is ignored: all agents match.",
			Lanyard: "InvalidArgument.",
			Why:     "A list that is deleted from, or banned, must not be all agents by a typing error.",
		},
		{
			Name: "limits: joins behind one address", Checks: []string{"limits/many agents behind one address"},
			SPIRE:   "One AttestAgent a second for each source address; further ones wait.",
			Lanyard: "Attempts are counted by token or claimed identity; the source network only has a high backstop.",
			Why:     "A thousand nodes behind one NAT join in seconds, not in seventeen minutes; a token that is guessed at is still slow.",
		},
		{
			Name: "tls: 1.2 without a certificate", Checks: []string{"tls/versions"},
			SPIRE:   "A caller without a certificate, such as an agent that joins, is let in by TLS 1.3 only.",
			Lanyard: "By TLS 1.2 too.",
			Why:     "TLS 1.2 is served, and to join is not to be allowed more.",
		},
	}
}
