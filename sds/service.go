// Package sds owns Envoy's secret discovery service, version 3: the X.509-SVIDs
// and bundles of one Workload API caller as Envoy secrets, over state-of-the-world
// and delta streams. It does not decide who the caller is (its Source does),
// issue anything, or speak other discovery services.
package sds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"

	"github.com/lanyard-mtls/lanyard/internal/workload"
)

// Source has the identities of the caller of an SDS stream.
//
// WatchX509Context takes the stream's context, from which the caller may be
// attested. It calls update with the present X509Context at once, or as soon as
// there is one, and again with every later one, never two at a time, and blocks
// until ctx is done or the watch cannot go on. It may skip contexts that were
// replaced before update returned. An X509Context without SVIDs and bundles, and
// an error with the gRPC code PermissionDenied, mean that the caller has no
// identity (any more); every other error leaves what was handed out as it is.
// After an error the service watches again, with a backoff, for as long as its
// client stays; a source that knows when things change should rather block.
type Source interface {
	WatchX509Context(ctx context.Context, update func(*workload.X509Context) error) error
}

// The names that Options replaces, as in SPIRE's agent.
const (
	DefaultSVIDName       = "default"
	DefaultBundleName     = "ROOTCA"
	DefaultAllBundlesName = "ALL"
)

// Options are the keys of SPIRE's agent { sds { } } block. The zero value means
// SPIRE's defaults.
type Options struct {
	// SVIDName asks for the caller's default SVID; empty is "default".
	// Its key is default_svid_name.
	SVIDName string
	// BundleName asks for the bundle of the default SVID's trust domain; empty
	// is "ROOTCA". Its key is default_bundle_name.
	BundleName string
	// AllBundlesName asks for all bundles, each bound to its trust domain; empty
	// is "ALL". Its key is default_all_bundles_name.
	AllBundlesName string
	// DisableSPIFFECertValidation serves bundles as plain trusted_ca, for a
	// client whose node metadata does not say otherwise. AllBundlesName is then
	// never answered: a pool of several domains would let each sign for all.
	// Its key is disable_spiffe_cert_validation.
	DisableSPIFFECertValidation bool
	// Log gets one record a stream and NACK; nil discards.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	fill := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	fill(&o.SVIDName, DefaultSVIDName)
	fill(&o.BundleName, DefaultBundleName)
	fill(&o.AllBundlesName, DefaultAllBundlesName)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Validate reports names that stand for two things, or that no client could
// send (see maxNameBytes).
func (o Options) Validate() error {
	o = o.withDefaults()
	var errs []error
	seen := make(map[string]string)
	for _, n := range []struct{ key, name string }{
		{"default_svid_name", o.SVIDName},
		{"default_bundle_name", o.BundleName},
		{"default_all_bundles_name", o.AllBundlesName},
	} {
		if other, taken := seen[n.name]; taken {
			errs = append(errs, fmt.Errorf("sds: %s and %s are both %q: give each a name of its own", other, n.key, n.name))
		}
		seen[n.name] = n.key
		if len(n.name) > maxNameBytes || n.name == wildcard {
			errs = append(errs, fmt.Errorf("sds: %s %q: use a name other than %q of at most %d bytes", n.key, abbreviate(n.name), wildcard, maxNameBytes))
		}
	}
	return errors.Join(errs...)
}

// Register serves src's identities on reg. Where two of opts' names are equal,
// the SVID's goes first, then the own bundle's; Options.Validate reports that.
func Register(reg grpc.ServiceRegistrar, src Source, opts Options) {
	secretv3.RegisterSecretDiscoveryServiceServer(reg, newService(src, opts))
}

type service struct {
	src      Source
	opts     Options
	catalogs catalogs
}

func newService(src Source, opts Options) *service {
	opts = opts.withDefaults()
	return &service{src: src, opts: opts, catalogs: catalogs{names: opts}}
}

// StreamSecrets is the state-of-the-world variant (xDS transport protocol,
// "Basic Protocol Overview").
func (s *service) StreamSecrets(stream grpc.BidiStreamingServer[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]) error {
	st := newStateOfTheWorld(s.newSession("StreamSecrets"), stream.Send)
	return s.serve(stream.Context(), st.session, func() error {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		return st.receive(req)
	})
}

// DeltaSecrets is the incremental variant (xDS transport protocol, "Incremental
// xDS").
func (s *service) DeltaSecrets(stream grpc.BidiStreamingServer[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]) error {
	st := newDelta(s.newSession("DeltaSecrets"), stream.Send)
	return s.serve(stream.Context(), st.session, func() error {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		return st.receive(req)
	})
}

// serve receives requests until the client is gone or sends something
// unacceptable. The source is watched from the first good request on, beside
// it; both write to the stream under the session's lock. Nothing outlives it.
func (s *service) serve(ctx context.Context, ses *session, receive func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer func() {
		// Closed first, so that the watch cannot begin a send that would block
		// on a client that does not read.
		ses.close()
		cancel()
		watching.Wait()
	}()
	for started := false; ; started = true {
		switch err := receive(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if !started {
			watching.Go(func() { s.watch(ctx, ses) })
		}
	}
}
