package issuercli

import (
	"google.golang.org/protobuf/proto"
)

// batchSize is how many things go into one call.
const batchSize = 500

// batchBytes bounds what goes into one call: gRPC servers take 4 MiB at once.
const batchBytes = 3 << 20

// batches cuts what is to be sent into calls that every server takes.
func batches[M proto.Message](all []M) [][]M {
	var out [][]M
	start, size := 0, 0
	for i, m := range all {
		n := proto.Size(m) + 8
		if i > start && (i-start == batchSize || size+n > batchBytes) {
			out = append(out, all[start:i])
			start, size = i, 0
		}
		size += n
	}
	if start < len(all) {
		out = append(out, all[start:])
	}
	return out
}
