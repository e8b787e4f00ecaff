// Package upstream owns the agent's side of the issuer's API: joining, the
// agent's own key and SVID on disk, their renewal, which of several issuers is
// asked, and how entries, bundles and signed SVIDs come from it: pushed where the
// issuer does that, polled elsewhere. It does not cache workload SVIDs and knows no
// workloads. DESIGN.md defends its choices.
package upstream
