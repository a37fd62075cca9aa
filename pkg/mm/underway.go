package mm

import (
	"slices"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/pkg/sync"
)

// What a fault has the host map, it knows when activeMu is locked; the call takes longer than all that is done before, and nobody
// else needs to wait for it. So faults let go of activeMu first, and leave word of what they are about to map. Who
// changes pmas and then what the host has mapped for them, in this order, waits for what is under way there (awaitMaps). Nothing new comes meanwhile: the
// pmas are no longer there, or no longer allow it.

// mapping is what the host is to map: parts of pmas. It has no more references on their files than the pmas have.
type mapping struct {
	mm    *MemoryManager
	as    platform.AddressSpace // mm's, which lets go of it before m is done when its last user leaves
	parts []mappedPart
	one   [1]mappedPart // most of the time

	// spares is set if m is mapped only to spare faults: parts that others have mapped since need not be.
	spares bool

	// done is closed when it is no longer under way. It is nil as long as nobody waits. The list's mu guards it.
	done chan struct{}
}

// mappedPart is a part of a pma, or of several like it.
type mappedPart struct {
	start  hostarch.Addr
	file   memmap.File
	fr     memmap.FileRange
	perms  hostarch.AccessType
	commit bool

	// done is set if somebody else has the host map it. The list's mu guards it.
	done bool
}

// at returns where p is mapped.
func (p *mappedPart) at() hostarch.AddrRange {
	return hostarch.AddrRange{Start: p.start, End: p.start + hostarch.Addr(p.fr.Length())}
}

// hull returns the range that all parts lie in.
func (m *mapping) hull() hostarch.AddrRange {
	if len(m.parts) == 0 {
		return hostarch.AddrRange{}
	}
	hull := m.parts[0].at()
	for i := range m.parts {
		at := m.parts[i].at()
		hull.Start, hull.End = min(hull.Start, at.Start), max(hull.End, at.End)
	}
	return hull
}

// overlaps returns whether m maps any of ar.
func (m *mapping) overlaps(ar hostarch.AddrRange) bool {
	for i := range m.parts {
		if m.parts[i].at().Overlaps(ar) {
			return true
		}
	}
	return false
}

// add adds the part of the pma e that is at ar, unless it cannot be mapped. That is not all of it, then, and add returns false.
//
// Preconditions: activeMu is locked. e contains ar.
func (m *mapping) add(e pmaEntry, ar hostarch.AddrRange, commit bool) bool {
	p := e.Value
	if !p.effectivePerms.Any() {
		return false
	}
	if m.parts == nil {
		m.parts = m.one[:0]
	}
	for ar.Length() != 0 {
		chunk := ar
		chunk.End = min(ar.End, (ar.Start+mapChunk)&^(mapChunk-1))
		m.parts = append(m.parts, mappedPart{start: chunk.Start, file: p.file, fr: p.fileRange(e.Start, chunk), perms: p.effectivePerms, commit: commit})
		ar.Start = chunk.End
	}
	return true
}

// addTouched is add for what somebody is about to touch. Of few pages that the host has committed anyway it makes the page tables, too, which takes it less than a fault for each of
// them. Mapping, touching and unmapping 64 KiB, replacing them, and replacing a file by them, which touches nothing, to stock's time: 0.72, 0.61 and 0.65 without, and 0.38, 0.54 and 0.73 like this. (Who changes
// permissions to and fro and touches nothing took 1.55 instead of 0.9; so add does not.)
//
// Preconditions: as for add.
func (m *mapping) addTouched(e pmaEntry, ar hostarch.AddrRange, commit bool) bool {
	return m.add(e, ar, commit || e.Value.committed && ar.Length() <= spareMax)
}

// run has the host map m, for what is wanted of it. It returns how far from want.Start on that was done, if its parts are in address order; the error says
// why that is short of want.End.
//
// Preconditions: activeMu is locked for writing, or m is under way, or the caller has its range frozen.
func (m *mapping) run(ctx context.Context, want hostarch.AddrRange) (hostarch.Addr, error) {
	for i := range m.parts {
		p := &m.parts[i]
		if i != 0 {
			m.mm.turns.letOthersFirst()
		}
		if m.spares && m.mm.underWay.isDone(p) {
			continue
		}
		if err := m.mm.turns.mapFile(m.as, p); err != nil {
			return min(max(p.start, want.Start), want.End), err
		}
		if ctx.Killed() {
			return min(max(p.start+hostarch.Addr(p.fr.Length()), want.Start), want.End), linuxerr.EINTR
		}
	}
	return want.End, nil
}

// prepareMap sets m to what is to be mapped for the pmas in ar, as mapHost says.
//
// Preconditions: activeMu is locked. mm.as is not nil. m is empty.
func (mm *MemoryManager) prepareMap(m *mapping, ar, around hostarch.AddrRange, effect memmap.MMapPlatformEffect) {
	m.mm, m.as = mm, mm.as
	c := mm.pmas.LowerBound(uint64(ar.Start))
	if !c.Valid() {
		return
	}
	window := mm.mapWindow(c.Value(), ar, effect).Intersect(around)
	for ; c.Valid() && c.Range().Start < uint64(ar.End); c.Next() {
		m.addTouched(c.Entry(), addrRange(c.Range()).Intersect(window), effect == memmap.PlatformEffectCommit)
	}
}

// underWay is what the host is mapping without activeMu being locked.
type underWay struct {
	mu   sync.Mutex
	maps []*mapping
}

// add adds m.
//
// Preconditions: activeMu is locked for writing, and m is what the pmas say.
func (u *underWay) add(m *mapping) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, other := range u.maps {
		other.skip(m)
	}
	u.maps = append(u.maps, m)
}

// skip marks the parts of m that other maps.
//
// Preconditions: the list's mu is locked.
func (m *mapping) skip(other *mapping) {
	for i := range m.parts {
		for j := range other.parts {
			if other.parts[j].at().IsSupersetOf(m.parts[i].at()) {
				m.parts[i].done = true
			}
		}
	}
}

// isDone returns whether somebody else has the host map p, which is a part of something in u. If that fails, it faults again.
func (u *underWay) isDone(p *mappedPart) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return p.done
}

// remove removes m, and wakes who waits for it.
func (u *underWay) remove(m *mapping) {
	u.mu.Lock()
	i := slices.Index(u.maps, m)
	u.maps = slices.Delete(u.maps, i, i+1)
	done := m.done
	u.mu.Unlock()
	if done != nil {
		close(done)
	}
}

// on returns channels that are closed when what is under way in ar is over, one for each.
func (u *underWay) on(ar hostarch.AddrRange) (over []<-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, m := range u.maps {
		if m.overlaps(ar) {
			if m.done == nil {
				m.done = make(chan struct{})
			}
			over = append(over, m.done)
		}
	}
	return over
}

// awaitMaps waits for what the host is mapping in ar, which may be what pmas said that have changed since.
//
// Preconditions: activeMu is locked, so that nothing new comes; or mappingMu is locked.
func (mm *MemoryManager) awaitMaps(ar hostarch.AddrRange) {
	for _, over := range mm.underWay.on(ar) {
		<-over
	}
}
