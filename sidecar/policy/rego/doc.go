// Package rego owns asking Open Policy Agent about peers: reading a policy, the document it is shown, and what counts as yes.
// It does not decide by itself and reaches nothing but the policy's files: functions of the language that would are not there.
package rego
