package rego

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"

	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// DefaultTimeout is how long one decision may take where nothing else is said.
const DefaultTimeout = 10 * time.Second

// Engine asks one query of one policy. It implements [policy.Engine].
type Engine struct {
	source  policy.Rego
	timeout time.Duration
	log     *slog.Logger
	query   atomic.Pointer[opa.PreparedEvalQuery] // nil until the first Reload
}

// New returns an engine for source, which may log to log. It does no I/O: until the first Reload it refuses everyone. Errors
// are *setting.Error.
func New(source policy.Rego, log *slog.Logger) (policy.Engine, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	body, err := ast.ParseBody(source.Query)
	if err == nil && len(body) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, setting.Errorf("query", source.Query, "not a query: give one such as data.lanyard.allow: %s", oneLine(err))
	}
	return &Engine{source: source, timeout: cmp.Or(source.Timeout, DefaultTimeout), log: log}, nil
}

// Reload implements [policy.Engine]. Decisions in progress finish with the policy they began with.
func (e *Engine) Reload(ctx context.Context) error {
	query, version, err := load(ctx, e.source, e.options())
	if err != nil {
		return err
	}
	e.query.Store(query)
	e.log.LogAttrs(ctx, slog.LevelInfo, "policy loaded", slog.String("path", e.source.Path), slog.String("query", e.source.Query),
		slog.String("language", version))
	return nil
}

// Allow implements [policy.Engine]: yes is the one result true.
func (e *Engine) Allow(ctx context.Context, r policy.Request) (allowed bool, err error) {
	// An evaluator is other people's code at work on strangers' certificates: where it fails, nobody is let in.
	defer func() {
		if p := recover(); p != nil {
			allowed, err = false, fmt.Errorf("failed: %v", p)
		}
	}()
	query := e.query.Load()
	if query == nil {
		return false, errors.New("has not been read yet")
	}
	limited, cancel := context.WithTimeoutCause(ctx, e.timeout, errSlow)
	defer cancel()
	results, err := query.Eval(limited, opa.EvalParsedInput(input(r)))
	switch {
	case limited.Err() != nil && ctx.Err() == nil:
		return false, fmt.Errorf("took longer than %s", e.timeout)
	case limited.Err() != nil:
		return false, fmt.Errorf("was cut off: %w", context.Cause(ctx))
	case err != nil:
		return false, fmt.Errorf("failed: %s", reason(e.source.Path, err))
	}
	return answer(results)
}

var errSlow = errors.New("the time for one decision passed")

// answer is what results mean. False without an error is the one result false.
func answer(results opa.ResultSet) (bool, error) {
	if len(results) == 0 {
		return false, errors.New("is undefined")
	}
	if len(results) > 1 || len(results[0].Expressions) != 1 || len(results[0].Bindings) > 0 {
		return false, errors.New("has more than one result: ask for one value, without variables")
	}
	value := results[0].Expressions[0].Value
	allowed, ok := value.(bool)
	if !ok {
		return false, fmt.Errorf("is %s, not true", shorten(fmt.Sprint(value)))
	}
	return allowed, nil
}
