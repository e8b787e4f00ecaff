package registry

import (
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

// TestNodeKeepsEveryField sets each field of an entry in turn, so that one that
// is added to it cannot be lost in the index.
func TestNodeKeepsEveryField(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("td.test")
	template, err := registration.ParseTemplate(td, "/docker/{{docker:label:app}}")
	if err != nil {
		t.Fatal(err)
	}
	values := map[reflect.Type]any{
		reflect.TypeFor[string]():                  "x",
		reflect.TypeFor[spiffeid.ID]():             spiffeid.RequireFromPath(td, "/x"),
		reflect.TypeFor[registration.Template]():   template,
		reflect.TypeFor[[]registration.Selector](): []registration.Selector{{Type: "unix", Value: "uid:1"}},
		reflect.TypeFor[time.Duration]():           90 * time.Second,
		reflect.TypeFor[[]spiffeid.TrustDomain]():  []spiffeid.TrustDomain{td},
		reflect.TypeFor[bool]():                    true,
		reflect.TypeFor[time.Time]():               time.Unix(1_900_000_000, 0).UTC(),
		reflect.TypeFor[[]string]():                []string{"a.test"},
		reflect.TypeFor[int64]():                   int64(7),
	}
	compare := cmp.Comparer(func(a, b registration.Entry) bool { return reflect.DeepEqual(a, b) })
	for i := range reflect.TypeFor[registration.Entry]().NumField() {
		var e registration.Entry
		field := reflect.ValueOf(&e).Elem().Field(i)
		name := reflect.TypeFor[registration.Entry]().Field(i).Name
		value, ok := values[field.Type()]
		if !ok {
			t.Fatalf("no value for field %s of type %s", name, field.Type())
		}
		field.Set(reflect.ValueOf(value))
		if diff := cmp.Diff(e, newNode(e).entry(), compare); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if _, expires := any(value).(time.Time); newNode(e).expires() != (expires && name == "ExpiresAt") {
			t.Errorf("%s: expires is %t", name, newNode(e).expires())
		}
	}
	if size := unsafe.Sizeof(node{}); size > 128 {
		t.Errorf("a node has %d bytes; over 128 the next size of Go's heap is 144", size)
	}
}
