package store

import "testing"

func FuzzParseRuns(f *testing.F) {
	f.Add("")
	f.Add("0102030405060708 7\n")
	f.Add("0102030405060708 7\nffffffffffffffff 9\n")
	f.Add("0102030405060708 9\nffffffffffffffff 9\n")
	f.Add("01 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		runs, err := parseRuns(text)
		if err != nil {
			return
		}
		again, err := parseRuns(formatRuns(runs))
		if err != nil || len(again) != len(runs) {
			t.Errorf("%q: %v, %v", text, runs, err)
		}
	})
}
