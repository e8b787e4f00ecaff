package rego

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	opa "github.com/open-policy-agent/opa/v1/rego"

	"github.com/lanyard-mtls/lanyard/sidecar/policy"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// maxSize is the most bytes of a policy: of a .rego file, and of each file in a bundle.
const maxSize = 16 << 20

// load reads the policy and prepares its query. It also returns what the policy was read as.
func load(ctx context.Context, source policy.Rego, options []func(*opa.Rego)) (*opa.PreparedEvalQuery, string, error) {
	options = append(options, opa.Query(source.Query))
	if !strings.HasSuffix(source.Path, bundle.RegoExt) {
		b, err := readBundle(source.Path)
		if err != nil {
			return nil, "", setting.Errorf("rego", source.Path, "not a bundle: give one, or a file that ends in .rego: %s", reason(source.Path, err))
		}
		query, err := prepare(ctx, append(options, opa.ParsedBundle(source.Path, b)))
		if err != nil {
			return nil, "", setting.Errorf("rego", source.Path, "%s", reason(source.Path, err))
		}
		return query, "bundle", nil
	}
	text, err := readFile(source.Path)
	if err != nil {
		return nil, "", setting.Errorf("rego", source.Path, "cannot be read: %s", reason(source.Path, err))
	}
	// Today's language first. Most policies written for ghostunnel, which reads files as the old one, are not in it, and those
	// that are mean the same in both.
	query, parsed, err := prepareFile(ctx, source.Path, text, ast.RegoV1, options)
	if err == nil {
		return query, "Rego v1", nil
	}
	query, parsedOld, errOld := prepareFile(ctx, source.Path, text, ast.RegoV0, options)
	if errOld == nil {
		return query, "Rego v0", nil
	}
	// The language it was written in is the one it can be read in.
	if !parsed && parsedOld {
		return nil, "", setting.Errorf("rego", source.Path, "as Rego v0: %s", reason(source.Path, errOld))
	}
	return nil, "", setting.Errorf("rego", source.Path, "%s", reason(source.Path, err))
}

// prepareFile also returns whether text is of that version of the language at all.
func prepareFile(ctx context.Context, path, text string, version ast.RegoVersion, options []func(*opa.Rego)) (*opa.PreparedEvalQuery, bool, error) {
	module, err := ast.ParseModuleWithOpts(path, text, ast.ParserOptions{RegoVersion: version, Capabilities: capabilities(version), ProcessAnnotation: true})
	if err != nil {
		return nil, false, err
	}
	query, err := prepare(ctx, append(options[:len(options):len(options)], opa.SetRegoVersion(version), opa.ParsedModule(module)))
	return query, true, err
}

func prepare(ctx context.Context, options []func(*opa.Rego)) (*opa.PreparedEvalQuery, error) {
	query, err := opa.New(options...).PrepareForEval(ctx)
	if err != nil {
		return nil, err
	}
	return &query, nil
}

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(text) > maxSize {
		err = fmt.Errorf("more than %d bytes", maxSize)
	}
	return string(text), err
}

// readBundle reads a directory or a .tar.gz file. The bundle's manifest says which version of Rego it is in; the default is v1.
func readBundle(path string) (*bundle.Bundle, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	directory, base := bundle.NewTarballLoaderWithBaseURL(f, path), ""
	if info.IsDir() {
		directory, base = bundle.NewDirectoryLoader(path), path
	}
	reader := bundle.NewCustomReader(directory.WithSizeLimitBytes(maxSize)).WithSizeLimitBytes(maxSize).WithBundleName(path).
		WithBaseDir(base).WithCapabilities(capabilities(ast.RegoV1)).WithProcessAnnotations(true)
	b, err := reader.Read()
	if err != nil {
		return nil, err
	}
	if len(b.Modules) == 0 {
		return nil, errors.New("there is no .rego file in it")
	}
	return &b, nil
}
