package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// ErrNotFound says that the cluster has no such object.
var ErrNotFound = errors.New("not found")

// APIError is an answer of the API server other than what was asked for. It wraps ErrNotFound if it is that.
type APIError struct {
	Status  int    // of HTTP
	Message string // the API server's, one line
}

func (e *APIError) Error() string {
	text := fmt.Sprintf("API server answers %d %s", e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

func (e *APIError) Unwrap() error {
	if e.Status == http.StatusNotFound {
		return ErrNotFound
	}
	return nil
}

// statusMessage is the message of a Status, which the API server answers errors with.
func statusMessage(answer []byte) string {
	var status struct{ Message string }
	if json.Unmarshal(answer, &status) != nil {
		return ""
	}
	return oneLine(status.Message)
}

// oneLine is foreign text on one line of bounded length.
func oneLine(text string) string {
	const limit = 300
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}
