// Package conffile owns how a role's command finds and reads its configuration file. It does not know the keys; and it is no
// part of internal/cli, so that the commands without a file link no HCL.
package conffile

import (
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
)

// Source says which file to read.
type Source struct {
	// Named is the value of -config; empty without the flag.
	Named string
	// SPIRE is the file that SPIRE's command reads without the flag; it is read under SPIRE's name alone.
	SPIRE string
	// ExpandEnv replaces $VAR and ${VAR} by the environment's values before parsing.
	ExpandEnv bool
}

// Read decodes the file into content. It returns nil where there is none to read. Faults of the keys are kept in the file,
// for its Err; the error is one of reading.
func (s Source) Read(env *cli.Env, content any) (*hclconf.File, error) {
	path := s.Named
	if path == "" && env.Dialect.SPIRE() {
		path = s.SPIRE
	}
	if path == "" {
		return nil, nil
	}
	var expand func(string) string
	if s.ExpandEnv {
		expand = env.Getenv
	}
	conf, err := hclconf.Read(path, expand)
	switch {
	case err != nil && s.Named == "":
		return nil, cli.Hint(err, "name the file with -config")
	case err != nil:
		return nil, err
	}
	conf.Decode(content)
	return conf, nil
}
