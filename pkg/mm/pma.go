package mm

import (
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/memmap"

	"sentrymm/pkg/vmatree"
)

// pma is a platform mapping area: the pages of a file that back a range of
// addresses. It holds a reference on each of them. Unlike a vma, a pma is
// changed in place, under activeMu.
type pma struct {
	// file is mapped from offset off on.
	file memmap.File
	off  uint64

	// translatePerms are what the Mappable's Translate allowed; everything if
	// private.
	translatePerms hostarch.AccessType

	// effectivePerms and maxPerms are the vma's of these names, as far as
	// translatePerms and needCOW allow. They stand here so that I/O to pages that
	// exist needs no vma.
	effectivePerms hostarch.AccessType
	maxPerms       hostarch.AccessType

	// needCOW is set if a write has to go to a copy of the pages.
	needCOW bool

	// private is set if the pages belong to this mapping alone (and to the
	// copies that fork made): file is then the MemoryManager's memory file, and
	// losing the pages loses data. If it is not set, the pma is a translation,
	// which can be asked for again.
	private bool

	// huge is set if the pages were allocated as huge pages. Implies private.
	huge bool

	// committed is set if the host had committed all the pages when the pma got them. It saves asking the host, see keepZeroed: 2 of the 14
	// microseconds that replacing 64 KiB takes beside the host's call.
	committed bool

	// mappings, if not empty, is where the sentry has the pages mapped.
	mappings safemem.BlockSeq
}

// pmaSet is the set of a MemoryManager's pmas.
type pmaSet = vmatree.Txn[*pma, struct{}]

// pmaEntry is a pma and its range.
type pmaEntry = vmatree.Entry[*pma]

// takenPMAs are pmas that were taken out of the set, in address order. Their
// references on files go with them.
type takenPMAs = vmatree.Detached[*pma]

func newPMASet() *pmaSet {
	return vmatree.Snapshot[*pma, struct{}]{}.Begin(pmaPolicy{})
}

// pmaPolicy splits and merges pmas.
type pmaPolicy struct{}

// Split implements vmatree.Policy.
func (pmaPolicy) Split(r vmatree.Range, p *pma, at uint64) (left, right *pma) {
	n := at - r.Start
	rest := *p
	rest.off += n
	if !p.mappings.IsEmpty() {
		rest.mappings = p.mappings.DropFirst64(n)
		p.mappings = p.mappings.TakeFirst64(n)
	}
	return p, &rest
}

// Merge implements vmatree.Policy.
func (pmaPolicy) Merge(lr vmatree.Range, l *pma, _ vmatree.Range, r *pma) (*pma, bool) {
	same := l.file == r.file &&
		l.off+lr.Len() == r.off &&
		l.translatePerms == r.translatePerms &&
		l.effectivePerms == r.effectivePerms &&
		l.maxPerms == r.maxPerms &&
		l.needCOW == r.needCOW &&
		l.private == r.private &&
		l.huge == r.huge &&
		l.committed == r.committed
	if !same {
		return nil, false
	}
	// Asking the file for the mappings of both may be free; gluing the two
	// sequences together allocates.
	l.mappings = safemem.BlockSeq{}
	return l, true
}

// limitTo sets the permissions of p to what v, p's file and copy-on-write
// allow.
func (p *pma) limitTo(v *vma) {
	p.effectivePerms = p.allowed(v)
	p.maxPerms = v.maxPerms.Intersect(p.translatePerms)
	if p.needCOW {
		p.maxPerms.Write = false
	}
}

// allowed returns the accesses that v, p's file and copy-on-write allow.
func (p *pma) allowed(v *vma) hostarch.AccessType {
	perms := v.effectivePerms.Intersect(p.translatePerms)
	if p.needCOW {
		perms.Write = false
	}
	return perms
}

// fileRange returns the offsets in p.file of ar, given that p begins at start.
//
// Preconditions: p covers ar.
func (p *pma) fileRange(start uint64, ar hostarch.AddrRange) memmap.FileRange {
	off := p.off + uint64(ar.Start) - start
	return memmap.FileRange{Start: off, End: off + uint64(ar.Length())}
}

// wholeFileRange returns all the offsets that e maps.
func wholeFileRange(e pmaEntry) memmap.FileRange {
	return memmap.FileRange{Start: e.Value.off, End: e.Value.off + e.Len()}
}

// internalMappings returns where the sentry has all of e's pages mapped, mapping
// them if need be.
//
// Preconditions: activeMu is locked for writing.
func internalMappings(e pmaEntry) (safemem.BlockSeq, error) {
	p := e.Value
	if p.mappings.IsEmpty() {
		// maxPerms, since I/O that ignores permissions uses these mappings too. The
		// sentry never runs application code through them.
		perms := p.maxPerms
		perms.Execute = false
		m, err := p.file.MapInternal(wholeFileRange(e), perms)
		if err != nil {
			return safemem.BlockSeq{}, err
		}
		p.mappings = m
	}
	return p.mappings, nil
}

// blocksOf returns the part of e's internal mappings that ar covers.
//
// Preconditions: e covers ar and has internal mappings.
func blocksOf(e pmaEntry, ar hostarch.AddrRange) safemem.BlockSeq {
	return e.Value.mappings.DropFirst64(uint64(ar.Start) - e.Start).TakeFirst64(uint64(ar.Length()))
}

// pmaOrHole returns the pma that contains addr; if there is none, it returns
// false and the hole around addr, within bounds. A hole does not reach into
// ranges frozen by an operation other than owner.
//
// Preconditions: activeMu is locked. bounds contains addr.
func (mm *MemoryManager) pmaOrHole(addr hostarch.Addr, bounds hostarch.AddrRange, owner *operation) (pmaEntry, bool, hostarch.AddrRange) {
	c := mm.pmas.LowerBound(uint64(addr))
	if c.Valid() && c.Range().Start <= uint64(addr) {
		return c.Entry(), true, hostarch.AddrRange{}
	}
	hole := bounds
	if c.Valid() {
		hole.End = min(hole.End, hostarch.Addr(c.Range().Start))
		c.Prev()
	} else {
		c = mm.pmas.Last()
	}
	if c.Valid() {
		hole.Start = max(hole.Start, hostarch.Addr(c.Range().End))
	}
	if f := mm.frozen; f != nil && f.op != owner {
		hole = f.clip(hole, addr)
	}
	return pmaEntry{}, false, hole
}

// hasPMA returns whether there is a pma at addr.
//
// Preconditions: activeMu is locked.
func (mm *MemoryManager) hasPMA(addr hostarch.Addr) bool {
	_, ok := mm.pmas.Find(uint64(addr))
	return ok
}

// isolatePMA cuts e to the part that lies within bounds and returns that.
//
// Preconditions: activeMu is locked for writing. e and bounds overlap.
func (mm *MemoryManager) isolatePMA(e pmaEntry, bounds hostarch.AddrRange) pmaEntry {
	b := treeRange(bounds)
	if e.Start >= b.Start && e.End <= b.End {
		return e
	}
	mm.pmas.SplitAt(b.Start)
	mm.pmas.SplitAt(b.End)
	e, _ = mm.pmas.Find(max(e.Start, b.Start))
	return e
}

// insertPMA adds p at ar. The caller's reference on p's file goes to the set.
//
// Preconditions: activeMu is locked for writing. No pma covers any of ar.
func (mm *MemoryManager) insertPMA(ar hostarch.AddrRange, p *pma) {
	mm.pmas.InsertMerged(treeRange(ar), p)
	mm.growRSS(uint64(ar.Length()))
}

// takePMAs takes all pmas in ar out of the set.
//
// Preconditions: activeMu is locked for writing.
func (mm *MemoryManager) takePMAs(ar hostarch.AddrRange) takenPMAs {
	taken := mm.pmas.Detach(treeRange(ar))
	mm.rss.Store(mm.rss.Load() - taken.Covered())
	if fork := mm.forking; fork != nil {
		fork.madeAnew(ar)
	}
	return taken
}

// putPMAs puts pmas back that takePMAs took out, shift bytes further up, and returns where each was put. What
// carries over from one address to another keeps the set's size.
//
// Preconditions: activeMu is locked for writing. No pma is in the way.
func (mm *MemoryManager) putPMAs(taken *takenPMAs, shift uint64) []pmaEntry {
	put := make([]pmaEntry, taken.Len())
	for i := range put {
		e := taken.At(i)
		put[i] = pmaEntry{Range: vmatree.Range{Start: e.Start + shift, End: e.End + shift}, Value: e.Value}
		mm.insertPMA(addrRange(put[i].Range), e.Value)
	}
	return put
}

// growRSS counts n more bytes of pmas.
//
// Preconditions: activeMu is locked for writing.
func (mm *MemoryManager) growRSS(n uint64) {
	rss := mm.rss.Load() + n
	mm.rss.Store(rss)
	if rss > mm.maxRSS.Load() {
		mm.maxRSS.Store(rss)
	}
}

// fileRef is a reference held on pages of a file.
type fileRef struct {
	file memmap.File
	fr   memmap.FileRange
}

// dropFileRefs releases the references of pmas that were taken out.
//
// Preconditions: nothing is mapped by the host through these pmas any more. No
// lock of mm needs to be held, and none should: freeing memory takes time.
func dropFileRefs(taken *takenPMAs) {
	for i := range taken.Len() {
		e := taken.At(i)
		e.Value.file.DecRef(wholeFileRange(e))
	}
}
