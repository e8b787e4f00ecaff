package oidc

import (
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

type jwtKey = types.JWTKey

func TestConfigurationsThatAreRefused(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"no source of keys":                                  func(c *Config) { c.Keys = nil },
		"domains is missing":                                 func(c *Config) { c.Domains = nil },
		`"oidc_.test/x" is not a domain name`:                func(c *Config) { c.Domains = []string{"oidc_.test/x"} },
		"must be in Punycode":                                func(c *Config) { c.Domains = []string{"bücher.test"} },
		`jwt_issuer "http://a.test" is not of https`:         func(c *Config) { c.Issuer = "http://a.test" },
		`jwt_issuer "a.test" is not a URL of https`:          func(c *Config) { c.Issuer = "a.test" },
		`jwt_issuer "https://a.test?x" has more than a host`: func(c *Config) { c.Issuer = "https://a.test?x" },
		`jwks_uri "://" is not a URL`:                        func(c *Config) { c.JWKSURI = "://" },
		"server_path_prefix":                                 func(c *Config) { c.PathPrefix = "x" },
		"want host:port":                                     func(c *Config) { c.Listen = "443" },
		"an absolute path":                                   func(c *Config) { c.Listen = "unix:x" },
		"plain HTTP is for loopback":                         func(c *Config) { c.Listen = ":80" },
		"loopback addresses, such as":                        func(c *Config) { c.Listen = "192.0.2.1:80" },
		"a certificate is missing":                           func(c *Config) { c.Plaintext = false },
		"exclude each other":                                 func(c *Config) { c.CertFile = "cert.pem" },
		"allow_insecure_scheme is for plain HTTP only": func(c *Config) {
			c.Plaintext, c.AllowInsecureScheme, c.CertFile, c.KeyFile = false, true, "c", "k"
		},
	} {
		cfg := plain()
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want %q", err, want)
		}
	}
	if err := plain().Validate(); err != nil {
		t.Errorf("a configuration that is right: %v", err)
	}
}
