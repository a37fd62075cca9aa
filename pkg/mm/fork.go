package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safecopy"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
)

// Fork returns a copy of mm with one user, as for fork(2). Private memory is shared
// until either writes to it; shared mappings are the child's too; what MADV_DONTFORK
// was set for is left out, and memory locks are not inherited.
//
// Errors: what creating an address space, AddMapping of a Mappable, or copying a
// pinned page fails with. Then nothing has changed.
func (mm *MemoryManager) Fork(ctx context.Context) (*MemoryManager, error) {
	as, err := mm.p.NewAddressSpace()
	if err != nil {
		return nil, err
	}
	mm.AddressSpace().PreFork()
	defer mm.AddressSpace().PostFork()

	child := newBare(mm.p, mm.mf, as)
	child.layout = mm.layout
	child.capture = &[]invalidation{}
	mm.meta.forkInto(&child.meta)

	mm.mappingMu.Lock()
	mm.rememberLimits(ctx)
	child.brk.Store(mm.brk.Load())
	root := mm.vmas.Snapshot()
	err = child.copyVMAs(ctx, root)
	if l := mm.limits.Load(); l != nil {
		// The child has the same, but they are its own: what the parent sets from now
		// on does not concern it.
		child.limits.Store(l.GetCopy())
	}
	if err == nil {
		err = child.copyPMAs(ctx, mm, root)
	}
	mm.validateIfEnabled()
	mm.mappingMu.Unlock()
	if err != nil {
		child.DecUsers(ctx)
		return nil, err
	}
	child.validateIfEnabled()
	return child, nil
}

// copyVMAs makes the child's vmas from the parent's tree. If it fails, the child has
// those it registered.
//
// Preconditions: the parent's mappingMu is locked. Nobody else knows the child, but
// for the Mappables.
func (child *MemoryManager) copyVMAs(ctx context.Context, root vmaSnapshot) error {
	child.mappingMu.Lock()
	defer child.mappingMu.Unlock()
	op := child.begin(ctx)
	op.before = root
	defer op.finish() // frees references that others hold too: nothing goes away
	defer op.publishAside()
	for r, v := range root.All() {
		if v.dontfork {
			continue
		}
		n := *v
		n.mlockMode = memmap.MLockNone
		n.space = nil
		n.hint = &faultHint{}
		n.hint.addr.Store(v.hint.addr.Load())
		v.hint.copied.Store(0)
		if n.mappable != nil {
			if err := n.mappable.AddMapping(ctx, child, addrRange(r), n.off, n.canWriteMappable()); err != nil {
				return err
			}
		}
		op.hold(&n)
		op.txn.InsertMerged(r, &n) // locks may have kept neighbours apart
		op.count.add(&n, r.Len())
	}
	return nil
}

// copyPMAs gives the child the parent's private pages, copy-on-write for both, and
// of pinned ones a copy. Translations the child can ask for itself: if it executes
// another program, which is likely, it never does (Linux: vma_needs_copy).
//
// The parent's activeMu is held all the while: a thread that writes to a page which
// the child already has, and then to one that it does not have yet, must not have
// only the second write in the child.
//
// Preconditions: the parent's mappingMu is locked. No range of the parent is frozen.
func (child *MemoryManager) copyPMAs(ctx context.Context, mm *MemoryManager, root vmaSnapshot) error {
	f := forker{ctx: ctx, parent: mm, child: child, root: root, cgID: pgalloc.MemoryCgroupIDFromContext(ctx)}
	mm.activeMu.Lock()
	child.activeMu.Lock()
	err := f.run()
	f.flush()

	// The Mappables know the child since copyVMAs, so they may have called its
	// Invalidate before there was anything to invalidate. They would not have had
	// to for private pages, to be safe, but a truncated file's should go.
	captured := *child.capture
	child.capture = nil
	child.activeMu.Unlock()
	mm.activeMu.Unlock()
	if err == nil {
		for _, inv := range captured {
			child.invalidate(inv.ar, inv.opts, false)
		}
	}
	return err
}

// forker copies pmas.
type forker struct {
	ctx           context.Context
	parent, child *MemoryManager
	root          vmaSnapshot
	cgID          uint32

	// protected are pmas, one after the other, that the host may have mapped for writing and now must not.
	protected []pmaEntry
}

// run copies all pmas of the parent.
//
// Preconditions: activeMu of parent and child are locked for writing.
func (f *forker) run() error {
	for _, r := range f.ranges() {
		mm := f.parent
		for addr := r.Start; addr < r.End; {
			c := mm.pmas.LowerBound(uint64(addr))
			if !c.Valid() || c.Range().Start >= uint64(r.End) {
				break
			}
			next, err := f.one(c.Entry(), r)
			if err != nil {
				return err
			}
			addr = next
		}
		mm.pmas.MergeWithin(treeRange(r))
	}
	return nil
}

// ranges returns the ranges whose pages the child gets.
func (f *forker) ranges() []hostarch.AddrRange {
	var rs []hostarch.AddrRange
	for r, v := range f.root.All() {
		ar := addrRange(r)
		switch n := len(rs); {
		case v.dontfork:
		case n != 0 && rs[n-1].End == ar.Start:
			rs[n-1].End = ar.End
		default:
			rs = append(rs, ar)
		}
	}
	return rs
}

// one gives the child the first pages of e that are in bounds, and returns where to
// go on.
//
// Preconditions: as for run.
func (f *forker) one(e pmaEntry, bounds hostarch.AddrRange) (hostarch.Addr, error) {
	mm := f.parent
	if !e.Value.private {
		return hostarch.Addr(e.End), nil
	}
	e = mm.isolatePMA(e, bounds)
	if (mm.hasPinned || mm.holding.Load() != 0) && !e.Value.needCOW {
		// A pinned page must stay the parent's: what holds the pin goes on using it,
		// so the parent must not be the one who gets the copy (Linux:
		// folio_needs_cow_for_dma).
		if fr, ok := mm.mf.FirstSharedRange(wholeFileRange(e)); ok {
			pinned := hostarch.AddrRange{
				Start: hostarch.Addr(e.Start + fr.Start - e.Value.off),
				End:   hostarch.Addr(e.Start + fr.End - e.Value.off),
			}
			if uint64(pinned.Start) == e.Start {
				return f.copyPinned(mm.isolatePMA(e, pinned))
			}
			e = mm.isolatePMA(e, hostarch.AddrRange{Start: hostarch.Addr(e.Start), End: pinned.Start})
		}
	}
	return f.share(e)
}

// share makes e copy-on-write and the child's too.
//
// Preconditions: as for run.
func (f *forker) share(e pmaEntry) (hostarch.Addr, error) {
	p, ar := e.Value, addrRange(e.Range)
	if !p.needCOW {
		p.needCOW = true
		p.maxPerms.Write = false
		if p.effectivePerms.Write {
			p.effectivePerms.Write = false
			f.protect(e)
		}
	}
	f.parent.mf.IncRef(wholeFileRange(e), f.cgID)
	shared := *p
	f.child.insertPMA(ar, &shared)
	return ar.End, nil
}

// protect takes it from the host to write to e, together with the pmas before, if there is nothing in between: holes cost
// less than a call.
//
// Preconditions: as for run. pmas come in order.
func (f *forker) protect(e pmaEntry) {
	c := f.parent.pmas.LowerBound(e.Start)
	c.Prev()
	if n := len(f.protected); n != 0 && (!c.Valid() || c.Range().End != f.protected[n-1].End) {
		f.flush()
	}
	f.protected = append(f.protected, e)
}

// flush does what protect said.
//
// Preconditions: as for run.
func (f *forker) flush() {
	n := len(f.protected)
	if n == 0 {
		return
	}
	all := hostarch.AddrRange{Start: hostarch.Addr(f.protected[0].Start), End: hostarch.Addr(f.protected[n-1].End)}
	if all.Length() > mapChunk || !f.parent.remap(f.ctx, f.protected) {
		f.parent.unmapHost(all)
	}
	f.protected = f.protected[:0]
}

// copyPinned gives the child a copy of e.
//
// Preconditions: as for run.
func (f *forker) copyPinned(e pmaEntry) (hostarch.Addr, error) {
	ar := addrRange(e.Range)
	blocks, err := internalMappings(e)
	if err != nil {
		return ar.Start, err
	}
	fr, err := f.parent.copyPages(blocks, ar, pgalloc.BottomUp, f.cgID)
	if err != nil {
		if fr.Length() != 0 {
			f.parent.mf.DecRef(fr)
		}
		if _, ok := err.(safecopy.BusError); ok {
			err = linuxerr.EHWPOISON // Linux: copy_mc_user_highpage
		}
		return ar.Start, err
	}
	copied := *e.Value
	copied.off, copied.huge, copied.mappings = fr.Start, f.parent.copiesHuge(ar), safemem.BlockSeq{}
	f.child.insertPMA(ar, &copied)
	return ar.End, nil
}
