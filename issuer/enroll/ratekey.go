package enroll

import (
	"crypto/sha256"
	"encoding/hex"
)

// RateKey names who an attempt to join claims to be, for attempts to be counted
// by: a hash of the token, or of the key or certificate that is shown. It costs
// little, proves nothing and gives no secret away.
func RateKey(method string, payload []byte) string {
	sum := sha256.Sum256(payload)
	return method + ":" + hex.EncodeToString(sum[:16])
}
