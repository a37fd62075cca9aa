package mm

// The one moment in grace that no pause of the harness reaches: between the two
// loads of retire.

import (
	"testing"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// newHeldIdentity returns an identity with a reference besides the test's own.
func newHeldIdentity(t *testing.T, name string) *testIdentity {
	id := newTestIdentity(t, name)
	id.IncRef()
	return id
}

// Two operations retire at once while a reader is inside. The first has loaded the
// generation; the second closes it, and leaves it one member: the reader.
func TestReaderInClosedGenerationIsNotOverlooked(t *testing.T) {
	var g grace
	ctx := context.Background()
	early, late := newHeldIdentity(t, "early"), newHeldIdentity(t, "late")
	reader := g.enter()

	seen := g.generation() // the first one's load
	g.retire(ctx, []memmap.MappingIdentity{early})
	if n := seen.members.Load(); n != 1 {
		t.Fatalf("%d members; this test wants the reader alone", n)
	}
	if g.nobodyIn(seen) {
		t.Error("the first one would release what the reader may use")
	}
	g.retire(ctx, []memmap.MappingIdentity{late}) // as the first one goes on
	if early.count() != 2 || late.count() != 2 {
		t.Error("released under a reader")
	}
	reader.leave(ctx)
	if early.count() != 1 || late.count() != 1 {
		t.Error("the last reader out did not release what was dropped")
	}
}

// Generations end in the order in which they began, whatever the order of leaving.
func TestLaterGenerationWaitsForEarlierReader(t *testing.T) {
	var g grace
	ctx := context.Background()
	a, b := newHeldIdentity(t, "a"), newHeldIdentity(t, "b")
	first := g.enter()
	g.retire(ctx, []memmap.MappingIdentity{a})
	second := g.enter()
	g.retire(ctx, []memmap.MappingIdentity{b})
	second.leave(ctx)
	if a.count() != 2 || b.count() != 2 {
		t.Error("released while the first reader, who may have found both, is inside")
	}
	first.leave(ctx)
	if a.count() != 1 || b.count() != 1 || !g.idle() {
		t.Error("not released, or not idle, when nobody is inside")
	}
}
