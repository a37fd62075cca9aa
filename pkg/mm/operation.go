package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"

	"sentrymm/pkg/vmatree"
)

// operation is the state of one change to the tree of vmas, from gather to
// complete (Linux: struct vma_munmap_struct). It is also the policy of its
// transaction, so that it knows of each reference on an identity that splitting
// takes and merging frees.
//
// An operation is begun and completed under mappingMu. Then, without locks,
// finish gives back what it holds, and does what is left to be done. After that
// the operation is over, and its memory serves the next one.
type operation struct {
	mm  *MemoryManager
	ctx context.Context

	// txn is the tree as it is going to be, and count its counters.
	txn   *vmaTxn
	count counters

	// before is the tree as it was.
	before vmaSnapshot

	// gone is what was gathered, range by range: most of the time one, or two.
	gone      []*gathered
	firstGone [2]*gathered
	gathered  [2]gathered // the first two

	// fresh is the new mapping, if there is one.
	fresh newMapping

	// maps is what the host is to map when activeMu is unlocked.
	maps mapping

	// moves are what moves: most of the time one vma.
	moves     []relocation
	firstMove [1]relocation

	// extra are references on identities that the transaction took, surplus those
	// that it frees. Dropping the transaction gives the former back; publishing it
	// makes the latter, and those of gathered vmas, to be released.
	extra   []memmap.MappingIdentity
	surplus []memmap.MappingIdentity

	// locked are ranges to be populated, when no lock is held any more, because they
	// are locked.
	locked []hostarch.AddrRange

	// undo are pmas of a new mapping that failed, to be dropped with the rest.
	undo []takenPMAs

	// freeze is what the operation keeps others out of. Nobody knows it after the thaw.
	freeze freeze
}

// gathered is a range that an operation empties, with what was in it.
type gathered struct {
	ar   hostarch.AddrRange
	vmas vmatree.Detached[*vma]

	// size is what vmas count for.
	size counters

	// pmas are taken out by install. fz is set if the range was frozen then.
	pmas takenPMAs
	fz   *frozenRange
}

// newMapping is a vma that an operation creates.
type newMapping struct {
	ar  hostarch.AddrRange
	vma *vma

	// pending is the space that the mapping is registered under at first, if not
	// the MemoryManager.
	pending *pendingSpace

	// covers is set if what the host is to map at once is all of it.
	covers bool

	// later, if not nil, is how it is to be populated when no lock is held any more.
	later *population

	// registered is set once the Mappable knows of the mapping.
	registered bool
}

// begin starts an operation.
//
// Preconditions: mappingMu is locked.
func (mm *MemoryManager) begin(ctx context.Context) *operation {
	mm.rememberLimits(ctx)
	op := mm.idle.Swap(nil)
	if op == nil {
		op = new(operation)
	}
	op.mm, op.ctx, op.before = mm, ctx, mm.vmas.Peek()
	op.txn = mm.vmas.BeginAlone(op)
	op.count = op.before.Meta()
	return op
}

// rememberLimits keeps the caller's limits for MProtect, see there.
func (mm *MemoryManager) rememberLimits(ctx context.Context) {
	// Without a task in the context there are limits made up on the spot, which
	// are nobody's.
	l, ok := ctx.Value(limits.CtxLimits).(*limits.LimitSet)
	if ok && l != nil && l != mm.limits.Load() {
		mm.limits.Store(l)
	}
}

// limitsOf returns the limits that ctx has to keep. Not all contexts have some: when the
// sentry delivers a signal, it writes to the stack with one that has nothing. Then they
// are the process's, as far as is known.
func (mm *MemoryManager) limitsOf(ctx context.Context) *limits.LimitSet {
	if l := limits.FromContext(ctx); l != nil {
		return l
	}
	if l := mm.limits.Load(); l != nil {
		return l
	}
	return limits.NewLimitSet()
}

// Split implements vmatree.Policy.
func (op *operation) Split(r vmatree.Range, v *vma, at uint64) (left, right *vma) {
	op.hold(v)
	return cutVMA(r, v, at)
}

// Merge implements vmatree.Policy.
func (op *operation) Merge(lr vmatree.Range, l *vma, rr vmatree.Range, r *vma) (*vma, bool) {
	if l.countsAttachments() && op.whole(vmatree.Range{Start: lr.Start, End: rr.End}) > 1 {
		return nil, false
	}
	joined, ok := joinVMAs(lr, l, r)
	if ok && l.id != nil {
		op.surplus = append(op.surplus, l.id)
	}
	return joined, ok
}

// whole returns how many vmas the tree had in r before, not counting those that reach
// beyond it.
func (op *operation) whole(r vmatree.Range) (n int) {
	for part := range op.before.Within(r) {
		if part.Start >= r.Start && part.End <= r.End {
			n++
		}
	}
	return n
}

// hold takes a reference on v's identity for the transaction.
func (op *operation) hold(v *vma) {
	if v.id != nil {
		v.id.IncRef()
		op.extra = append(op.extra, v.id)
	}
}

// gather detaches all that ar holds, splitting vmas at the edges, and counts it.
// Nothing is visible yet.
//
// Preconditions: mappingMu is locked. ar is page-aligned.
func (op *operation) gather(ar hostarch.AddrRange) *gathered {
	g := op.addGone(gathered{ar: ar, vmas: op.txn.Detach(treeRange(ar))})
	for r, v := range g.vmas.All() {
		g.size.add(v, r.Len())
		op.count.sub(v, r.Len())
	}
	return g
}

// addGone adds g to what the operation empties.
func (op *operation) addGone(g gathered) *gathered {
	if op.gone == nil {
		op.gone = op.firstGone[:0]
	}
	var at *gathered
	if n := len(op.gone); n < len(op.gathered) {
		at = &op.gathered[n]
	} else {
		at = new(gathered)
	}
	*at = g
	op.gone = append(op.gone, at)
	return at
}

// insert puts the new vma v at ar, merging it with its neighbours.
//
// Preconditions: mappingMu is locked. The transaction has no vma in ar.
func (op *operation) insert(ar hostarch.AddrRange, v *vma) {
	op.hold(v)
	op.txn.InsertMerged(treeRange(ar), v)
	op.count.add(v, uint64(ar.Length()))
}

// replace puts v in the place of old at r, which may be a part of it, and merges it with its neighbours.
//
// Preconditions: mappingMu is locked. The two have the same identity.
func (op *operation) replace(r vmatree.Range, old, v *vma) {
	op.txn.Replace(r, v)
	op.count.sub(old, r.Len())
	op.count.add(v, r.Len())
}

// publish makes the transaction's tree and counters what everybody sees.
//
// Preconditions: mappingMu is locked; activeMu is locked for writing, so that nobody is reading the tree before, other than
// by a snapshot of his own.
func (op *operation) publish() {
	op.txn.SetMeta(op.count)
	op.mm.vmas.Commit(op.txn)
	op.extra = nil
	for _, g := range op.gone {
		for _, v := range g.vmas.All() {
			if v.id != nil {
				op.surplus = append(op.surplus, v.id)
			}
		}
	}
}

// publishAside is publish for changes that do not concern pages, so that they need not wait for activeMu.
//
// Preconditions: mappingMu is locked.
func (op *operation) publishAside() {
	op.txn.LeaveOld()
	op.publish()
}

// abort drops the transaction and undoes what the operation itself registered.
// Nothing was visible, so there is nothing to put back. finish still has to be
// called.
//
// Preconditions: mappingMu is locked. publish was not called.
func (op *operation) abort() {
	op.unregister()
	op.surplus, op.extra = op.extra, nil
	op.gone = nil
}

// install publishes the new tree, takes the old pmas out and freezes what
// cannot be finished at once. This is the moment at which the operation happens. It is all in memory.
//
// If now is not nil, it says how to populate the new mapping, which is no larger
// than one step, before anybody else gets there.
//
// Preconditions: mappingMu is locked.
func (op *operation) install(now *population) {
	mm := op.mm
	mm.activeMu.Lock()
	defer mm.activeMu.Unlock()
	op.publish()
	for _, g := range op.gone {
		g.pmas = mm.takePMAs(g.ar)
	}
	if op.fresh.pending != nil {
		op.fresh.pending.published.Store(true)
	}
	if now != nil && mm.as != nil {
		op.fillFresh(now)
	}
	for _, g := range op.gone {
		op.freezeGone(g)
	}
}

// fillFresh makes pmas for the new mapping, and notes what the host is to map. Errors mean that faults will try again.
//
// Preconditions: activeMu is locked for writing, and the tree is published.
func (op *operation) fillFresh(now *population) {
	mm, n := op.mm, &op.fresh
	end, err := mm.fill(op.ctx, mm.vmas.Peek(), n.ar, now.request(op))
	op.maps.mm, op.maps.as, n.covers = mm, mm.as, err == nil
	for c := mm.pmas.LowerBound(uint64(n.ar.Start)); c.Valid() && c.Range().Start < uint64(end); c.Next() {
		if !op.maps.addTouched(c.Entry(), addrRange(c.Range()).Intersect(n.ar), now.commits()) {
			n.covers = false
		}
	}
	if len(op.maps.parts) != 0 && len(op.gone) == 0 {
		op.addGone(gathered{ar: n.ar}) // nothing, but frozen like the rest
	}
}

// freezeGone freezes g, if the host has work to do there, or Mappables have to be told.
//
// Preconditions: mappingMu is locked; activeMu is locked for writing.
func (op *operation) freezeGone(g *gathered) {
	filled := len(op.maps.parts) != 0
	host := op.mm.as != nil && g.pmas.Len() != 0 || filled
	tell := g.hasMappables()
	if !host && !tell {
		return
	}
	g.fz = op.mm.freezeRange(op, g.ar)
	g.fz.host, g.fz.filled, g.fz.register = host, filled, tell
}

// hasMappables returns whether a gathered vma has to be deregistered.
func (g *gathered) hasMappables() bool {
	for _, v := range g.vmas.All() {
		if v.mappable != nil {
			return true
		}
	}
	return false
}

// complete does what install left: the host's mappings, then the registrations
// of the old vmas and of the new one; then it thaws.
//
// Preconditions: mappingMu is locked.
func (op *operation) complete() {
	if !op.mapOver() {
		for _, g := range op.gone {
			op.unmapPieces(g)
		}
		op.mapFresh()
	}
	if op.tells() {
		op.mm.endHost()
		for _, g := range op.gone {
			op.deregister(g)
		}
		op.settle()
	}
	if op.froze() {
		op.mm.thaw()
	}
	op.mm.validateIfEnabled()
}

// froze returns whether op has ranges frozen.
func (op *operation) froze() bool {
	for _, g := range op.gone {
		if g.fz != nil {
			return true
		}
	}
	return false
}

// tells returns whether there are Mappables to be told. It must not be done while somebody may wait, with their locks held,
// for the host's work.
func (op *operation) tells() bool {
	for _, g := range op.gone {
		if g.fz != nil && g.fz.register {
			return true
		}
	}
	return op.fresh.pending != nil
}

// mapOver has the host map the new mapping over whatever it has there, and returns true, if that covers all of it.
//
// Preconditions: mappingMu is locked; activeMu is not. The new mapping is frozen.
func (op *operation) mapOver() bool {
	return op.fresh.covers && len(op.maps.parts) != 0 && op.mapFresh() == nil
}

// mapFresh has the host map what install made for the new mapping.
//
// Preconditions: as for mapOver.
func (op *operation) mapFresh() error {
	n := &op.fresh
	if len(op.maps.parts) == 0 {
		return nil
	}
	op.mm.awaitMaps(n.ar)
	_, err := op.maps.run(op.ctx, n.ar)
	return err
}

// unmapPieces removes the host's mappings of g's old pages, piece by piece.
//
// Preconditions: mappingMu is locked; activeMu is not. If there is something to unmap, g is frozen.
func (op *operation) unmapPieces(g *gathered) {
	if g.fz != nil && g.fz.host {
		op.mm.inSteps(&g.pmas, g.ar)
	}
}

// deregister tells the Mappables of g's vmas that they are gone.
//
// Preconditions: mappingMu is locked; activeMu is not. Nobody can reach the pages
// of these vmas any more.
func (op *operation) deregister(g *gathered) {
	for r, v := range g.vmas.All() {
		if v.mappable != nil {
			v.mappable.RemoveMapping(op.ctx, v.registeredWith(op.mm), addrRange(r), v.off, v.canWriteMappable())
		}
	}
}

// finish releases what the operation holds, the old pages and the identities of
// old vmas, and populates what is to be. It ends the operation.
//
// Preconditions: complete or abort was called. No locks of mm are held, and none
// that come after fs locks.
func (op *operation) finish() {
	for _, g := range op.gone {
		op.mm.keepOrDrop(op.ctx, &g.pmas)
	}
	for i := range op.undo {
		dropFileRefs(&op.undo[i])
	}
	op.mm.readers.retire(op.ctx, op.surplus)
	// Like mmap(2), populating reports no errors: whoever touches the pages gets them.
	if how := op.fresh.later; how != nil {
		op.mm.populate(op.ctx, op.fresh.ar, *how)
	}
	for _, ar := range op.locked {
		op.mm.populate(op.ctx, ar, population{effect: memmap.PlatformEffectCommit})
	}
	mm := op.mm
	*op = operation{}
	mm.idle.Store(op)
}
