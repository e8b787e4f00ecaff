package report

import (
	"encoding/json"
	"io"
	"math"
)

// Figure is a peer's median in a row, as JSON has it.
type Figure struct {
	Section string  `json:"section"`
	Name    string  `json:"name"`
	Unit    string  `json:"unit"`
	Peer    string  `json:"peer"`
	Value   float64 `json:"value"`
	Ratio   float64 `json:"ratio,omitempty"` // to the base's; 0 where there is none
}

// JSON writes the same as the tables, as an array of [Figure].
func (r *Report) JSON(w io.Writer) error {
	figures := []Figure{}
	for _, rows := range r.bySection() {
		for _, row := range rows {
			for _, peer := range r.peers {
				value, ratio := r.Median(row, peer), r.Ratio(row, peer)
				if math.IsNaN(value) {
					continue
				}
				if math.IsNaN(ratio) || math.IsInf(ratio, 0) || row.Bare {
					ratio = 0
				}
				figures = append(figures, Figure{row.Section, row.Name, row.Unit, peer, value, ratio})
			}
		}
	}
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(figures)
}
