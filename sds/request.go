package sds

import (
	"fmt"
	"strconv"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// secretType is the type URL of the only resource served here.
const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// What one stream may ask for. An Envoy opens a stream for each secret, and
// names one; the limits leave room for clients that share a stream.
const (
	maxNames     = 1000
	maxNameBytes = 2048      // the longest SPIFFE ID (SPIFFE-ID, section 2.3)
	maxAllBytes  = 64 * 1024 // of all names together
)

// What goes into a log record of text that a client chose.
const (
	maxLogged     = 5   // names
	maxLoggedText = 512 // bytes of each, and of a message
)

// checkType accepts the type of a secret, and none at all: the service has only
// one (discovery.proto, type_url).
func checkType(typeURL string) error {
	if typeURL == "" || typeURL == secretType {
		return nil
	}
	return status.Errorf(codes.InvalidArgument, "type_url %q is not served here, only %s", abbreviate(typeURL), secretType)
}

// checkNames bounds what a client has named on a stream, with what a request
// adds. What the wildcard covers is the caller's own, however much it is.
func checkNames(names []string, held ledger) error {
	count, bytes := 0, 0
	for name, w := range held.wants {
		if w.named {
			count++
			bytes += len(name)
		}
	}
	for _, name := range names {
		switch {
		case name == "":
			return status.Error(codes.InvalidArgument, "a resource name is empty")
		case len(name) > maxNameBytes:
			return status.Errorf(codes.InvalidArgument, "resource name %q is %d bytes long, the limit is %d", abbreviate(name), len(name), maxNameBytes)
		}
		if !held.wants[name].named {
			count++
			bytes += len(name)
		}
	}
	if count > maxNames {
		return status.Errorf(codes.InvalidArgument, "%d resource names on one stream, the limit is %d", count, maxNames)
	}
	if bytes > maxAllBytes {
		return status.Errorf(codes.InvalidArgument, "%d bytes of resource names on one stream, the limit is %d", bytes, maxAllBytes)
	}
	return nil
}

// rejection is the reason in a NACK.
type rejection struct {
	code    codes.Code
	message string
}

func rejectionFrom(detail *rpcstatus.Status) *rejection {
	if detail == nil {
		return nil
	}
	return &rejection{codes.Code(detail.GetCode()), abbreviate(detail.GetMessage())}
}

// node is what matters here of what a client says about itself.
type node struct {
	id string // for the log
	// override is the node metadata's disable_spiffe_cert_validation.
	override *bool
	// old is an Envoy before 1.18, which has no SPIFFE certificate validator.
	old bool
}

func nodeFrom(n *corev3.Node) node {
	out := node{id: abbreviate(n.GetId())}
	if v, ok := n.GetMetadata().GetFields()["disable_spiffe_cert_validation"]; ok {
		out.override = boolFrom(v)
	}
	if v := n.GetUserAgentBuildVersion().GetVersion(); v != nil {
		out.old = v.GetMajorNumber() < 1 || v.GetMajorNumber() == 1 && v.GetMinorNumber() < 18
	}
	return out
}

// plain says whether to do without the SPIFFE certificate validator.
func (n node) plain(byDefault bool) bool {
	if n.override != nil {
		byDefault = *n.override
	}
	return byDefault || n.old
}

// boolFrom reads a boolean or its text; anything else is as good as absent.
func boolFrom(v *structpb.Value) *bool {
	switch v := v.GetKind().(type) {
	case *structpb.Value_BoolValue:
		return &v.BoolValue
	case *structpb.Value_StringValue:
		if b, err := strconv.ParseBool(v.StringValue); err == nil {
			return &b
		}
	}
	return nil
}

// abbreviate cuts text from a client to a length fit for a log or an error.
func abbreviate(s string) string {
	if len(s) <= maxLoggedText {
		return s
	}
	cut := maxLoggedText
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

func abbreviateAll(names []string) []string {
	out := make([]string, 0, min(len(names), maxLogged)+1)
	for i, name := range names {
		if i == maxLogged {
			return append(out, fmt.Sprintf("and %d more", len(names)-maxLogged))
		}
		out = append(out, abbreviate(name))
	}
	return out
}
