package mm

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// grace decides when references on identities that the tree of vmas no longer
// holds may be released: not before every reader has left who may have found
// them there. If nobody is reading, that is at once; otherwise the last such
// reader does it. There is no goroutine and no delay.
//
// Readers belong to the generation that was current when they entered. Whoever
// drops references while readers are inside gives them to the current generation
// and starts another, which counts its predecessor as a reader: so generations
// end in order.
type grace struct {
	current atomic.Pointer[generation]
}

// generation is the readers that entered between two drops of references.
type generation struct {
	// members counts readers, plus one until the generation is closed, plus one
	// while the generation before it has members.
	members atomic.Int64

	// dropped and next are set before the generation is closed.
	dropped []memmap.MappingIdentity
	next    *generation
}

// enter makes the caller a reader.
func (g *grace) enter() *generation {
	for {
		gen := g.generation()
		for n := gen.members.Load(); n > 0; n = gen.members.Load() {
			if gen.members.CompareAndSwap(n, n+1) {
				return gen
			}
		}
		// It ended since it was loaded, so another is current.
	}
}

// generation returns the current generation.
func (g *grace) generation() *generation {
	if gen := g.current.Load(); gen != nil {
		return gen
	}
	gen := &generation{}
	gen.members.Store(1)
	g.current.CompareAndSwap(nil, gen)
	return g.current.Load()
}

// leave ends the caller's membership. The last one out releases what was dropped
// meanwhile.
func (gen *generation) leave(ctx context.Context) {
	for gen != nil && gen.members.Add(-1) == 0 {
		releaseIdentities(ctx, gen.dropped)
		gen.dropped = nil
		gen = gen.next
	}
}

// retire releases references on ids once no reader can be using them: before it
// returns if no reader is inside.
//
// Preconditions: the published tree does not hold these references any more. No
// locks are held that come after fs locks in the lock order. Calls are ordered by
// nothing but the caller; they may be concurrent.
func (g *grace) retire(ctx context.Context, ids []memmap.MappingIdentity) {
	if len(ids) == 0 {
		return
	}
	for {
		gen := g.generation()
		if g.nobodyIn(gen) {
			releaseIdentities(ctx, ids)
			return
		}
		next := &generation{}
		next.members.Store(2) // not closed, and gen is before it
		if g.current.CompareAndSwap(gen, next) {
			gen.dropped, gen.next = ids, next
			gen.leave(ctx) // close it
			return
		}
	}
}

// nobodyIn returns whether gen is current and there are no readers, in it or in an
// earlier one. A reader that enters later finds the tree without what was dropped
// before the call: loads and stores of atomics are in one order.
//
// One member of a generation that is open is no reader. The generation was open when
// its members were counted if it is still current after that, for none is so twice; if
// it is not, the one member may well be a reader.
func (g *grace) nobodyIn(gen *generation) bool {
	return gen.members.Load() == 1 && g.current.Load() == gen
}

// idle returns whether no reader is inside and nothing waits to be released.
func (g *grace) idle() bool {
	gen := g.current.Load()
	return gen == nil || gen.members.Load() == 1
}

func releaseIdentities(ctx context.Context, ids []memmap.MappingIdentity) {
	for _, id := range ids {
		id.DecRef(ctx)
	}
}

// testHookEntered, if not nil, runs between a reader's entering and its loading
// the tree.
var testHookEntered func()

// enter begins a lock-free reading of the vmas. Identities found in the returned
// tree may be used until leave is called, not after.
//
// The order matters: whoever loads the tree first may find an identity whose last
// reference was released before he entered.
func (mm *MemoryManager) enter() (root vmaSnapshot, leave func(ctx context.Context)) {
	gen := mm.readers.enter()
	if testHookEntered != nil {
		testHookEntered()
	}
	return mm.vmas.Snapshot(), gen.leave
}
