// Package upstream owns the agent's side of the issuer's API: joining, the
// agent's own key and SVID on disk, their renewal, and the connection that
// entries, bundles and signed SVIDs come over. It does not cache workload SVIDs
// and knows no workloads.
package upstream
