package suggest

import "testing"

func TestClosestFindsWhatWasMeant(t *testing.T) {
	keys := []string{"trust_domain", "data_dir", "bind_port", "bind_address", "socket_path", "spiffeID", "run", "entry"}
	for typed, want := range map[string]string{
		"trust_domian":  "trust_domain",
		"trustDomain":   "trust_domain",
		"datadir":       "data_dir",
		"bindport":      "bind_port",
		"spiffe-id":     "spiffeID",
		"spifeID":       "spiffeID",
		"rnu":           "run",
		"entries":       "entry",
		"sock":          "socket_path",
		"federation":    "",
		"x":             "",
		"":              "",
		"bind_addresss": "bind_address",
	} {
		if got := Closest(typed, keys); got != want {
			t.Errorf("Closest(%q) = %q, want %q", typed, got, want)
		}
	}
}

func FuzzClosest(f *testing.F) {
	f.Add("trust_domian", "trust_domain")
	f.Add("", "")
	f.Add("é", "e")
	f.Fuzz(func(t *testing.T, a, b string) {
		if got := Closest(a, []string{b}); got != "" && got != b {
			t.Fatalf("Closest(%q, %q) = %q: neither empty nor a candidate", a, b, got)
		}
		if Closest(b, []string{b}) != b && len(fold(b)) > 0 {
			t.Fatalf("%q is not the closest to itself", b)
		}
	})
}
