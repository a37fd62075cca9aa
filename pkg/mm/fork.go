package mm

import (
	"cmp"
	"slices"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safecopy"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

// Fork returns a copy of mm with one user, as for fork(2). Private memory is shared
// until either writes to it; shared mappings are the child's too; what MADV_DONTFORK
// was set for is left out, and memory locks are not inherited.
//
// Errors: what creating an address space, AddMapping of a Mappable, or copying a
// pinned page fails with. Then nothing has changed.
//
// Preconditions: the caller holds a user reference on mm, and so does every other thread that runs in it, one of its own.
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
// of pinned and of hot ones a copy. Translations the child can ask for itself: if it executes
// another program, which is likely, it never does (Linux: vma_needs_copy).
//
// The child has what is there when activeMu is locked for the last time, and it stays locked until nobody can write to any of that: a thread that writes to a page which
// the child already has, and then to one that it does not have yet, must not have
// only the second write in the child. For the same reason nobody can write to hot
// pages while they are copied.
//
// Preconditions: the parent's mappingMu is locked. No range of the parent is frozen.
func (child *MemoryManager) copyPMAs(ctx context.Context, mm *MemoryManager, root vmaSnapshot) error {
	f := forker{ctx: ctx, parent: mm, child: child, root: root, ranges: forkedRanges(root), alone: mm.users.Load() == 1, cgID: pgalloc.MemoryCgroupIDFromContext(ctx)}
	f.makeRoom()
	defer f.leaveRoom()
	f.shareMuch()
	mm.activeMu.Lock()
	child.activeMu.Lock()
	outdated := f.endMuch()
	mine := mapping{mm: mm, as: mm.as, spares: true}
	err := f.run(&mine)

	// The Mappables know the child since copyVMAs, so they may have called its
	// Invalidate before there was anything to invalidate. They would not have had
	// to for private pages, to be safe, but a truncated file's should go.
	captured := *child.capture
	child.capture = nil
	child.activeMu.Unlock()
	mm.underWay.add(&mine)
	mm.activeMu.Unlock()
	mine.run(ctx, mine.hull()) // what could not be mapped faults
	mm.underWay.remove(&mine)
	for i := range outdated {
		dropFileRefs(&outdated[i])
	}
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
	cgID          uint32

	// root is the tree of both.
	root vmaSnapshot

	// ranges are those whose pages the child gets.
	ranges []hostarch.AddrRange

	// alone is set if the parent has no other threads, that could write to anything while it forks.
	alone bool

	// protected are pmas, in address order, that the host may have mapped for writing and now must not. bridged is set if it has others mapped in
	// between.
	protected []pmaEntry
	bridged   bool

	// runs are where hot pages are, in address order.
	runs []hostarch.AddrRange

	// hot are pages that are copied once nobody can write to anything any more that the child gets.
	hot []hotCopy

	// room is memory for these copies. The host has committed it before anybody waits.
	room memmap.FileRange

	// ahead is set if the child has got pages ahead of the others, and anew are ranges in which the parent has others since then, or none.
	ahead bool
	anew  []hostarch.AddrRange
}

// hotCopy are pmas of a vma, one after the other, and what they are going to be copied to.
type hotCopy struct {
	ar   hostarch.AddrRange
	vma  *vma
	pmas []pmaEntry
	to   memmap.FileRange
}

// makeRoom sets room for as much as is hot. If there is no memory, what is hot is shared like the rest.
//
// Preconditions: the parent's mappingMu is locked. activeMu is not.
func (f *forker) makeRoom() {
	mm := f.parent
	mm.activeMu.RLock()
	n := uint64(0)
	for _, r := range mm.hot.runs(f.gap()) {
		n += uint64(r.Length())
	}
	mm.activeMu.RUnlock()
	if n == 0 {
		return
	}
	fr, err := mm.mf.Allocate(n, pgalloc.AllocOpts{
		Kind:    usage.Anonymous,
		MemCgID: f.cgID,
		Mode:    pgalloc.AllocateAndWritePopulate,
		Dir:     pgalloc.BottomUp,
	})
	if err != nil {
		return
	}
	f.room = fr
	// A hypervisor that keeps page tables of its own makes them for who touches a page, whatever the host's say. Left to the copies, that was three quarters of the time that
	// they took: 32 of them 240 to 340 microseconds with activeMu locked, and 60 to 120 like this.
	if pages, err := mm.mf.MapInternal(fr, hostarch.Write); err == nil {
		safemem.ZeroSeq(pages)
	}
}

// gap is how many pages that are not hot are copied between two that are. If the parent has no other threads, nothing is mapped anew, and copying more spares it nothing.
func (f *forker) gap() int {
	if f.alone {
		return 0
	}
	return mostGap
}

// leaveRoom gives back what nothing was copied to.
func (f *forker) leaveRoom() {
	if f.room.Length() != 0 {
		f.parent.mf.DecRef(f.room)
	}
}

// takeRoom returns n bytes of room.
//
// Preconditions: there are that many.
func (f *forker) takeRoom(n uint64) memmap.FileRange {
	fr := f.room
	fr.End = fr.Start + n
	f.room.Start = fr.End
	return fr
}

// run copies all pmas of the parent, and sets mine to what it may go on writing to, and the host has not mapped for writing.
//
// Preconditions: activeMu of parent and child are locked for writing.
func (f *forker) run(mine *mapping) error {
	f.runs = f.parent.hot.runs(f.gap())
	var err error
	for i := 0; i < len(f.ranges) && err == nil; i++ {
		err = f.within(f.ranges[i])
	}
	f.flush()
	f.copyHot(mine)
	f.parent.hot.forked()
	for _, r := range f.ranges {
		f.parent.pmas.MergeWithin(treeRange(r))
	}
	return err
}

// within copies the pmas of the parent in r that the child has not got ahead.
//
// Preconditions: as for run.
func (f *forker) within(r hostarch.AddrRange) error {
	for r.Length() != 0 {
		c := f.parent.pmas.LowerBound(uint64(r.Start))
		if !c.Valid() || c.Range().Start >= uint64(r.End) {
			break
		}
		if todo := f.missing(addrRange(c.Range()).Intersect(r)); todo.Length() == 0 {
			r.Start = min(hostarch.Addr(c.Range().End), r.End)
		} else if next, err := f.one(c.Entry(), todo); err != nil {
			return err
		} else {
			r.Start = min(next, r.End)
		}
	}
	return nil
}

// missing returns the first part of ar that the child has not got ahead. It is empty if there is none.
//
// Preconditions: as for run.
func (f *forker) missing(ar hostarch.AddrRange) hostarch.AddrRange {
	for f.ahead && ar.Length() != 0 {
		c := f.child.pmas.LowerBound(uint64(ar.Start))
		if !c.Valid() || c.Range().Start >= uint64(ar.End) {
			break
		}
		if start := hostarch.Addr(c.Range().Start); start > ar.Start {
			ar.End = start
			break
		}
		ar.Start = min(hostarch.Addr(c.Range().End), ar.End)
	}
	return ar
}

// forkedRanges returns the ranges whose pages a child gets.
func forkedRanges(root vmaSnapshot) []hostarch.AddrRange {
	var rs []hostarch.AddrRange
	for r, v := range root.All() {
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

// forkAhead is how many bytes of pages, at least, the child gets ahead of the others, if they are one pma: it may take the host as long to take away the permission to write to them
// as a bounded step.
const forkAhead = 2 * pieceSize

// shareMuch gives the child what it takes the host long to make copy-on-write, and has the host do so, step by step, with no lock held that faults wait for. It is only a
// preparation: until a page is protected, whoever writes to it writes to the child's, too, and whoever writes to it then, or to a page that was not there, makes a pma,
// which the rest of the fork deals with (madeAnew, endMuch). Who copies pages then has the host unmap them first (copyOnWrite): nothing that others write may be missing in the copy.
//
// Preconditions: the parent's mappingMu is locked; activeMu is not.
func (f *forker) shareMuch() {
	mm := f.parent
	if f.alone {
		return // nobody would wait
	}
	var much []hostarch.AddrRange
	mm.activeMu.Lock()
	f.child.activeMu.Lock()
	// Pinned pages need a look at each, see one.
	if !mm.hasPinned && mm.holding.Load() == 0 {
		for _, r := range f.ranges {
			for c := mm.pmas.LowerBound(uint64(r.Start)); c.Valid() && c.Range().Start < uint64(r.End); {
				e := c.Entry()
				if ar := addrRange(e.Range).Intersect(r); f.isMuch(e, ar) {
					e = mm.isolatePMA(e, r)
					f.makeCOW(e)
					f.giveShared(e)
					much = append(much, ar)
				}
				c = mm.pmas.LowerBound(e.End)
			}
		}
	}
	f.ahead = len(much) != 0
	if f.ahead {
		mm.forking = f
	}
	f.child.activeMu.Unlock()
	mm.activeMu.Unlock()
	for _, ar := range much {
		mm.unmapInSteps(piecesOf(ar), &pace{}, freeStepTime)
	}
}

// isMuch returns whether shareMuch is for the part of e that is at ar.
//
// Preconditions: activeMu of the parent is locked.
func (f *forker) isMuch(e pmaEntry, ar hostarch.AddrRange) bool {
	p := e.Value
	if !p.private || p.needCOW || !p.effectivePerms.Write || ar.Length() < forkAhead {
		return false
	}
	_, hot := f.parent.hot.in(ar)
	return !hot
}

// madeAnew notes that the parent has other pages at ar, or none.
//
// Preconditions: the parent's activeMu is locked for writing. The child has got pages ahead.
func (f *forker) madeAnew(ar hostarch.AddrRange) {
	if n := len(f.anew); n != 0 && f.anew[n-1].End == ar.Start {
		f.anew[n-1].End = ar.End
		return
	}
	f.anew = append(f.anew, ar)
}

// endMuch takes from the child what the parent has other pages for by now, and returns it.
//
// Preconditions: as for run.
func (f *forker) endMuch() (outdated []takenPMAs) {
	f.parent.forking = nil
	for _, ar := range f.anew {
		if taken := f.child.takePMAs(ar); taken.Len() != 0 {
			outdated = append(outdated, taken)
		}
	}
	return outdated
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
	if run, ok := f.firstRun(addrRange(e.Range)); ok {
		if uint64(run.Start) > e.Start {
			return f.share(mm.isolatePMA(e, hostarch.AddrRange{Start: hostarch.Addr(e.Start), End: run.Start}))
		}
		v := vmaAt(f.root, run.Start)
		e = mm.isolatePMA(e, run.Intersect(v.ar))
		// If the parent cannot write to it anyway, a copy would spare it nothing.
		if v.vma.effectivePerms.Write && !e.Value.huge && e.Len() <= f.room.Length() {
			return f.copyLater(e, v.vma)
		}
	}
	return f.share(e)
}

// firstRun returns the first part of ar with hot pages.
//
// Preconditions: as for run.
func (f *forker) firstRun(ar hostarch.AddrRange) (hostarch.AddrRange, bool) {
	i, _ := slices.BinarySearchFunc(f.runs, ar.Start, func(r hostarch.AddrRange, start hostarch.Addr) int { return cmp.Compare(r.End-1, start) })
	if i == len(f.runs) {
		return hostarch.AddrRange{}, false
	}
	part := f.runs[i].Intersect(ar)
	return part, part.Length() != 0
}

// copyLater notes that e, which v has all of, is going to be copied, and nobody may write to it until then. Unless the parent is alone, it goes on with the copies, so the host must have nothing mapped there.
//
// Preconditions: as for run. There is room.
func (f *forker) copyLater(e pmaEntry, v *vma) (hostarch.Addr, error) {
	if !f.alone {
		e.Value.effectivePerms.Write = false
		f.protect(e)
		f.bridged = true
	}
	to := f.takeRoom(e.Len())
	if n := len(f.hot); n != 0 && uint64(f.hot[n-1].ar.End) == e.Start && f.hot[n-1].vma == v {
		h := &f.hot[n-1]
		h.ar.End, h.to.End = hostarch.Addr(e.End), to.End
		h.pmas = append(h.pmas, e)
	} else {
		f.hot = append(f.hot, hotCopy{addrRange(e.Range), v, []pmaEntry{e}, to})
	}
	return hostarch.Addr(e.End), nil
}

// copyHot makes copies of what is hot, and sets mine to what the host is to map for the parent. What cannot be copied, they share.
//
// The child gets the copies if the parent is alone. Otherwise the parent does: it has to be mapped anew in any case, and what are pmas here and there is one like this.
//
// Preconditions: as for run. Nobody can write to anything that the child gets.
func (f *forker) copyHot(mine *mapping) {
	if len(f.hot) == 0 {
		return
	}
	page := make([]byte, hostarch.PageSize)
	for _, h := range f.hot {
		if err := f.copyTo(h.to, h.pmas); err != nil {
			f.parent.mf.DecRef(h.to)
			for _, e := range h.pmas {
				f.share(e)
			}
			continue
		}
		f.noteCopied(h, page)
		copied := &pma{file: f.parent.mf, off: h.to.Start, translatePerms: hostarch.AnyAccess, private: true}
		copied.limitTo(h.vma)
		if f.alone {
			f.child.insertPMA(h.ar, copied)
			continue
		}
		old := f.parent.takePMAs(h.ar)
		for i := range old.Len() {
			old.At(i).Value.limitTo(h.vma)
		}
		f.child.putPMAs(&old, 0)
		f.parent.insertPMA(h.ar, copied)
		mine.add(pmaEntry{Range: treeRange(h.ar), Value: copied}, h.ar, false)
	}
	f.parent.hot.sort(mine.parts)
	f.flush()
}

// give gives the child a copy of e that is at off. The reference on it goes to the child.
//
// Preconditions: as for run.
func (f *forker) give(e pmaEntry, off uint64, huge bool) {
	copied := *e.Value
	copied.off, copied.huge, copied.mappings = off, huge, safemem.BlockSeq{}
	f.child.insertPMA(addrRange(e.Range), &copied)
}

// noteCopied tells the parent's hotPages what is in h, by way of page, which has room for one.
//
// Preconditions: as for run. h has been copied.
func (f *forker) noteCopied(h hotCopy, page []byte) {
	for _, e := range h.pmas {
		for addr := hostarch.Addr(e.Start); ; addr += hostarch.PageSize {
			hot, ok := f.parent.hot.in(hostarch.AddrRange{Start: addr, End: hostarch.Addr(e.End)})
			if !ok {
				break
			}
			addr = hot.Start
			r := safemem.BlockSeqReader{Blocks: blocksOf(e, hostarch.AddrRange{Start: addr, End: addr + hostarch.PageSize})}
			if _, err := r.ReadToBlocks(safemem.BlockSeqOf(safemem.BlockFromSafeSlice(page))); err != nil {
				break // it will be found idle
			}
			f.parent.hot.copied(addr, page)
		}
	}
}

// copyTo copies pmas to fr, which has the same length.
//
// Preconditions: as for run.
func (f *forker) copyTo(fr memmap.FileRange, pmas []pmaEntry) error {
	dst, err := f.parent.mf.MapInternal(fr, hostarch.Write)
	if err != nil {
		return err
	}
	for _, e := range pmas {
		src, err := internalMappings(e)
		if err != nil {
			return err
		}
		n, err := safemem.CopySeq(dst, src)
		if err != nil {
			return err
		}
		dst = dst.DropFirst64(n)
	}
	return nil
}

// share makes e copy-on-write and the child's too.
//
// Preconditions: as for run.
func (f *forker) share(e pmaEntry) (hostarch.Addr, error) {
	if f.makeCOW(e) {
		f.protect(e)
	}
	f.giveShared(e)
	return hostarch.Addr(e.End), nil
}

// makeCOW makes e copy-on-write, and returns whether the host may have it mapped for writing.
//
// Preconditions: as for run.
func (f *forker) makeCOW(e pmaEntry) bool {
	p := e.Value
	wrote := p.effectivePerms.Write
	p.needCOW = true
	p.maxPerms.Write, p.effectivePerms.Write = false, false
	return wrote
}

// giveShared gives the child e, which is copy-on-write.
//
// Preconditions: as for run.
func (f *forker) giveShared(e pmaEntry) {
	f.parent.mf.IncRef(wholeFileRange(e), f.cgID)
	shared := *e.Value
	f.child.insertPMA(addrRange(e.Range), &shared)
}

// mostBetween is how many bytes there may be, that nobody may write to, between two pmas that are unmapped together: then these are unmapped, too, and
// fault if they are read. What a process writes to after each fork lies close together, with pages in between that it
// rarely looks at; and all the while the host is asked, nobody gets on who faults.
const mostBetween = 1 << 20

// protect takes it from the host to write to e, together with the pmas before, if there are holes in between, or not much: a call costs more.
//
// Preconditions: as for run. pmas come in order.
func (f *forker) protect(e pmaEntry) {
	if n := len(f.protected); n != 0 {
		near, bridged := f.near(f.protected[n-1].End, e.Start)
		if !near {
			f.flush()
		} else if bridged {
			f.bridged = true
		}
	}
	f.protected = append(f.protected, e)
}

// near returns whether what lies in [start, end) may be unmapped too, and whether there is something. pmas end at start, and begin at end.
//
// If the parent has no other threads, nobody is kept waiting, and faults are all that it would get: stress-ng --fork took 1.05 of stock's time, and 0.97 like this.
//
// Preconditions: as for run.
func (f *forker) near(start, end uint64) (near, bridged bool) {
	for c := f.parent.pmas.LowerBound(start); c.Range().Start < end; c.Next() {
		p := c.Value()
		if f.alone || end-start > mostBetween || p.effectivePerms.Write || p.effectivePerms.Execute {
			return false, false
		}
		bridged = true
	}
	return true, bridged
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
	if f.bridged || all.Length() > mapChunk || !f.parent.remap(f.ctx, f.protected) {
		f.parent.unmapHost(all)
	}
	f.protected, f.bridged = f.protected[:0], false
}

// copyPinned gives the child a copy of e.
//
// Preconditions: as for run.
func (f *forker) copyPinned(e pmaEntry) (hostarch.Addr, error) {
	ar := addrRange(e.Range)
	huge := f.parent.copiesHuge(ar)
	src, err := internalMappings(e)
	if err != nil {
		return ar.Start, err
	}
	fr, err := f.parent.copyPages(src, huge, pgalloc.BottomUp, f.cgID)
	if err != nil {
		if fr.Length() != 0 {
			f.parent.mf.DecRef(fr)
		}
		if _, ok := err.(safecopy.BusError); ok {
			err = linuxerr.EHWPOISON // Linux: copy_mc_user_highpage
		}
		return ar.Start, err
	}
	f.give(e, fr.Start, huge)
	return ar.End, nil
}
