package mm

import (
	"gvisor.dev/gvisor/pkg/atomicbitops"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/kernel/shm"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// pendingSpace is what a replacement is registered under with its Mappable until
// the mappings it replaces are deregistered.
//
// A memmap.MappingSet knows mappings by space, addresses and writability, and
// Mappables that are different here can share one set: hard links, descriptors of
// one special file, overlay dentries over one file. Adding, under the same space,
// a mapping that is there already, and then removing the old one, would erase
// both. And an invalidation of the new mapping that comes before it is published
// must not take away private pages of the old one, nor one of the old mapping that
// comes later private pages of the new one.
type pendingSpace struct {
	mm *MemoryManager

	// published is set when the mapping is. Until then it has no pages, so there
	// is nothing to invalidate.
	published atomicbitops.Bool

	// kept is set if the mapping stays registered under the space. To the operations
	// that come after its own it is a mapping like others, and may be an old one.
	kept atomicbitops.Bool
}

// Invalidate implements memmap.MappingSpace.
func (s *pendingSpace) Invalidate(ar hostarch.AddrRange, opts memmap.InvalidateOpts) {
	if s.published.Load() {
		s.mm.invalidate(ar, opts, !s.kept.Load() /* fresh */)
	}
}

// ask registers the new mapping of v at ar with its Mappable. If the Mappable
// refuses, nothing has changed.
//
// Preconditions: mappingMu is locked; activeMu is not. What is to be replaced has
// been gathered.
func (op *operation) ask(ar hostarch.AddrRange, v *vma) error {
	op.fresh = newMapping{ar: ar, vma: v}
	if v.mappable == nil {
		return nil
	}
	space := v.registeredWith(op.mm) // what grows has the space of what it grows from
	if op.needsPending(ar, v) {
		op.fresh.pending = &pendingSpace{mm: op.mm}
		space = op.fresh.pending
	}
	if err := v.mappable.AddMapping(op.ctx, space, ar, v.off, v.canWriteMappable()); err != nil {
		return err
	}
	op.fresh.registered = true
	return nil
}

// needsPending returns whether registering v at ar under the MemoryManager could
// be confused with what was gathered there.
func (op *operation) needsPending(ar hostarch.AddrRange, v *vma) bool {
	if neverInvalidates(v.mappable) {
		return false
	}
	shift := uint64(ar.Start) - v.off
	for _, g := range op.gone {
		for r, old := range g.vmas.All() {
			sameKeys := r.Start-old.off == shift && old.canWriteMappable() == v.canWriteMappable()
			if old.mappable != nil && (sameKeys || v.private) {
				return true
			}
			if old.private && (old.effectivePerms.Any() || op.mm.hasPrivatePMAs(addrRange(r))) {
				return true
			}
		}
	}
	return false
}

// neverInvalidates returns whether m is known to keep no account of its mappings,
// so that it matters to nobody what they are registered under. Segments of SysV
// shared memory would show a detour in their times of attaching and detaching.
func neverInvalidates(m memmap.Mappable) bool {
	switch m.(type) {
	case *shm.Shm, *SpecialMappable, *aioMappable:
		return true
	}
	return false
}

// hasPrivatePMAs returns whether there is private memory in ar.
func (mm *MemoryManager) hasPrivatePMAs(ar hostarch.AddrRange) bool {
	mm.activeMu.RLock()
	defer mm.activeMu.RUnlock()
	for _, p := range mm.pmas.Within(treeRange(ar)) {
		if p.private {
			return true
		}
	}
	return false
}

// unregister takes the registration of the new mapping back.
//
// Preconditions: mappingMu is locked; activeMu is not.
func (op *operation) unregister() {
	n := &op.fresh
	if !n.registered {
		return
	}
	n.registered = false
	n.vma.mappable.RemoveMapping(op.ctx, n.space(op.mm), n.ar, n.vma.off, n.vma.canWriteMappable())
}

// space returns what n is registered under.
func (n *newMapping) space(mm *MemoryManager) memmap.MappingSpace {
	if n.pending != nil {
		return n.pending
	}
	return n.vma.registeredWith(mm)
}

// settle moves the registration of the new mapping from its pending space, if it
// has one, to the MemoryManager.
//
// Preconditions: mappingMu is locked; activeMu is not. The old mappings are
// deregistered.
func (op *operation) settle() {
	n := &op.fresh
	if n.pending == nil {
		return
	}
	v := n.vma
	if err := v.mappable.AddMapping(op.ctx, op.mm, n.ar, v.off, v.canWriteMappable()); err != nil {
		op.keepPending()
		return
	}
	v.mappable.RemoveMapping(op.ctx, n.pending, n.ar, v.off, v.canWriteMappable())
	n.pending = nil
}

// keepPending records in the vma that it stays registered under the pending
// space, which passes invalidations on for as long as the vma lives. A Mappable
// that accepted a mapping has no reason to refuse it a moment later, but the
// interface lets it.
//
// Preconditions: as for settle.
func (op *operation) keepPending() {
	n := &op.fresh
	mark := op.mm.begin(op.ctx)
	r := treeRange(n.ar)
	e, _ := mark.txn.Find(r.Start)
	kept := *e.Value
	kept.off = kept.offsetAt(hostarch.Addr(e.Start), n.ar.Start)
	kept.space = n.pending
	n.pending.kept.Store(true)
	mark.replace(r, e.Value, &kept)
	mark.publishAside()
	op.surplus = append(op.surplus, mark.surplus...)
}
