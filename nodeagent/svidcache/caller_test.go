package svidcache

func caller(texts ...string) Caller { return Caller{Selectors: selectors(texts...)} }
