package mm

import (
	goctx "context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/usage"
	"gvisor.dev/gvisor/pkg/state"
)

// sharedSet is what file systems keep for an inode: its pages, and the set of its
// mappings. Any number of testMappables can stand for one, as hard links and
// overlay dentries do.
type sharedSet struct {
	w    *world
	name string
	mf   *pgalloc.MemoryFile

	// mapsMu guards maps. Like a file system's, it comes before activeMu in the
	// lock order and is held while mappings are invalidated.
	mapsMu sync.Mutex
	maps   memmap.MappingSet

	// dataMu guards size and pages. It comes after activeMu: Translate takes it.
	dataMu sync.Mutex
	size   uint64   // in bytes; what lies behind gets SIGBUS
	pages  []extent // in order, without holes up to size rounded up
}

// extent is a range of a sharedSet and where its pages are in the memory file.
type extent struct {
	memmap.MappableRange
	off uint64
}

// newSharedSet returns a set of size bytes of zeroes in mf.
func newSharedSet(t testing.TB, mf *pgalloc.MemoryFile, size uint64) *sharedSet {
	t.Helper()
	s := &sharedSet{w: worldOf(t), mf: mf}
	s.join()
	s.grow(size)
	return s
}

// join makes s a part of its world.
func (s *sharedSet) join() {
	enlist(s.w, &s.w.sets, s, &s.name, "set")
}

// newMappable returns a Mappable that stands for s, with an identity of its own.
func (s *sharedSet) newMappable() *testMappable {
	m := &testMappable{w: s.w, set: s}
	m.join()
	m.id = newTestIdentity(s.w.t, "/"+m.hooks.name)
	m.id.dev, m.id.ino = 1, uint64(len(m.hooks.name))
	return m
}

// newTestMappable returns a Mappable with size bytes of its own.
func newTestMappable(t testing.TB, mf *pgalloc.MemoryFile, size uint64) *testMappable {
	t.Helper()
	return newSharedSet(t, mf, size).newMappable()
}

// roundUp returns n rounded up to pages.
func roundUp(n uint64) uint64 {
	return hostarch.MustPageRoundUp(n)
}

// grow makes s size bytes long, if it is shorter.
func (s *sharedSet) grow(size uint64) {
	s.dataMu.Lock()
	defer s.dataMu.Unlock()
	if old := roundUp(s.size); old < roundUp(size) {
		s.allocateLocked(memmap.MappableRange{Start: old, End: roundUp(size)})
	}
	s.size = max(s.size, size)
}

// allocateLocked adds zero pages at mr, where none are.
func (s *sharedSet) allocateLocked(mr memmap.MappableRange) {
	fr, err := s.mf.Allocate(mr.Length(), pgalloc.AllocOpts{Kind: usage.Tmpfs})
	if err != nil {
		s.w.t.Fatalf("Allocate: %v", err)
	}
	s.pages = append(s.pages, extent{mr, fr.Start})
	slices.SortFunc(s.pages, func(a, b extent) int { return int(a.Start>>12) - int(b.Start>>12) })
}

// takeLocked takes the pages of mr out and returns them.
func (s *sharedSet) takeLocked(mr memmap.MappableRange) []memmap.FileRange {
	var kept []extent
	var gone []memmap.FileRange
	for _, e := range s.pages {
		both := e.Intersect(mr)
		if both.Length() == 0 {
			kept = append(kept, e)
			continue
		}
		if e.Start < both.Start {
			kept = append(kept, extent{memmap.MappableRange{Start: e.Start, End: both.Start}, e.off})
		}
		gone = append(gone, e.fileRange(both))
		if both.End < e.End {
			kept = append(kept, extent{memmap.MappableRange{Start: both.End, End: e.End}, e.off + both.End - e.Start})
		}
	}
	s.pages = kept
	return gone
}

// fileRange returns where mr, a part of e, lies.
func (e extent) fileRange(mr memmap.MappableRange) memmap.FileRange {
	off := e.off + mr.Start - e.Start
	return memmap.FileRange{Start: off, End: off + mr.Length()}
}

// truncate changes the size as ftruncate(2) does: what is cut off is invalidated,
// with private copies, before its pages are freed.
func (s *sharedSet) truncate(size uint64) {
	s.mapsMu.Lock()
	defer s.mapsMu.Unlock()
	s.grow(size)
	s.dataMu.Lock()
	cut := memmap.MappableRange{Start: roundUp(size), End: roundUp(s.size)}
	s.size = size
	gone := s.takeLocked(cut)
	s.dataMu.Unlock()
	if cut.Length() != 0 {
		s.maps.Invalidate(cut, memmap.InvalidateOpts{InvalidatePrivate: true})
	}
	s.free(gone)
}

// replace gives s new zero pages at mr, as fallocate(FALLOC_FL_PUNCH_HOLE) and
// then writing does. Private copies stay.
func (s *sharedSet) replace(mr memmap.MappableRange) {
	s.mapsMu.Lock()
	defer s.mapsMu.Unlock()
	s.dataMu.Lock()
	gone := s.takeLocked(mr)
	s.allocateLocked(mr)
	s.dataMu.Unlock()
	s.maps.Invalidate(mr, memmap.InvalidateOpts{})
	s.free(gone)
}

// invalidate tells all spaces that translations of mr are no longer valid.
func (s *sharedSet) invalidate(mr memmap.MappableRange, opts memmap.InvalidateOpts) {
	s.mapsMu.Lock()
	defer s.mapsMu.Unlock()
	s.maps.Invalidate(mr, opts)
}

func (s *sharedSet) free(frs []memmap.FileRange) {
	for _, fr := range frs {
		s.mf.DecRef(fr)
	}
}

// write copies data into the pages, which must exist.
func (s *sharedSet) write(off uint64, data []byte) {
	for _, fr := range s.find(off, uint64(len(data))) {
		fillFile(s.w.t, s.mf, fr.Start, data[:fr.Length()])
		data = data[fr.Length():]
	}
}

// read returns n bytes of the pages, which must exist.
func (s *sharedSet) read(off, n uint64) []byte {
	var out []byte
	for _, fr := range s.find(off, n) {
		out = append(out, fileBytes(s.w.t, s.mf, fr)...)
	}
	return out
}

// find returns where n bytes from off on lie in the memory file.
func (s *sharedSet) find(off, n uint64) []memmap.FileRange {
	s.dataMu.Lock()
	defer s.dataMu.Unlock()
	var frs []memmap.FileRange
	for _, e := range s.pages {
		if both := e.Intersect(memmap.MappableRange{Start: off, End: off + n}); both.Length() != 0 {
			frs = append(frs, e.fileRange(both))
		}
	}
	return frs
}

// registration is a mapping that a sharedSet knows of.
type registration struct {
	memmap.MappingOfRange
	off uint64
}

// registrations returns all mappings that s knows of, in the order of spaces and
// addresses, with neighbours merged.
func (s *sharedSet) registrations() []registration {
	s.mapsMu.Lock()
	defer s.mapsMu.Unlock()
	var all []registration
	for seg := s.maps.FirstSegment(); seg.Ok(); seg = seg.NextSegment() {
		for k := range seg.Value() {
			all = append(all, registration{k, seg.Start()})
		}
	}
	slices.SortFunc(all, func(a, b registration) int {
		as, bs := s.w.nameOf(a.MappingSpace), s.w.nameOf(b.MappingSpace)
		switch {
		case as != bs:
			return slices.Compare([]byte(as), []byte(bs))
		case a.Writable != b.Writable:
			if a.Writable {
				return 1
			}
			return -1
		case a.AddrRange.Start != b.AddrRange.Start:
			return int(a.AddrRange.Start>>12) - int(b.AddrRange.Start>>12)
		}
		return int(a.off>>12) - int(b.off>>12)
	})
	merged := all[:0]
	for _, r := range all {
		if n := len(merged); n != 0 {
			l := &merged[n-1]
			if l.MappingSpace == r.MappingSpace && l.Writable == r.Writable && l.AddrRange.End == r.AddrRange.Start && l.off+uint64(l.AddrRange.Length()) == r.off {
				l.AddrRange.End = r.AddrRange.End
				continue
			}
		}
		merged = append(merged, r)
	}
	return merged
}

// dump returns the registrations as text, a line for each.
func (s *sharedSet) dump() []string {
	var lines []string
	for _, r := range s.registrations() {
		lines = append(lines, fmt.Sprintf("%s %v offset %#x writable=%t", s.w.nameOf(r.MappingSpace), r.AddrRange, r.off, r.Writable))
	}
	return lines
}

// hasLocked returns whether the mapping is registered as a whole; if not, and
// some part of it is, part is true.
func (s *sharedSet) hasLocked(ms memmap.MappingSpace, ar hostarch.AddrRange, off uint64, writable bool) (whole, part bool) {
	mr := memmap.MappableRange{Start: off, End: off + uint64(ar.Length())}
	found := uint64(0)
	for seg := s.maps.LowerBoundSegment(mr.Start); seg.Ok() && seg.Start() < mr.End; seg = seg.NextSegment() {
		start := ar.Start + hostarch.Addr(seg.Start()-mr.Start) // may wrap around and back
		key := memmap.MappingOfRange{
			MappingSpace: ms,
			AddrRange:    hostarch.AddrRange{Start: start, End: start + hostarch.Addr(seg.Range().Length())},
			Writable:     writable,
		}
		if _, ok := seg.Value()[key]; ok {
			found += seg.Range().Intersect(mr).Length()
		}
	}
	return found == mr.Length(), found != 0
}

func (s *sharedSet) takeDown() {
	for _, line := range s.dump() {
		s.w.t.Errorf("%s: at the end of the test, this is still registered: %s", s.name, line)
	}
	s.dataMu.Lock()
	defer s.dataMu.Unlock()
	s.free(s.takeLocked(memmap.MappableRange{End: ^uint64(0)}))
}

// testMappable is a memmap.Mappable that stands for a sharedSet. It fails the test
// if it is used against its contract, or after its identity was released.
//
// hooks know "AddMapping", "RemoveMapping" and "CopyMapping", with a mappingCall,
// "Translate", with a translateCall, and "InvalidateUnsavable", with nil. Those of
// AddMapping, CopyMapping, Translate and InvalidateUnsavable can make it fail.
// They run without locks of the set.
type testMappable struct {
	hooks
	w   *world
	set *sharedSet
	id  *testIdentity

	// perms are the permissions of translations; everything if zero.
	perms hostarch.AccessType

	// step, if not zero, is the largest single Translation in bytes.
	step uint64
}

// mappingCall is what a hook of a registration is given.
type mappingCall struct {
	space    memmap.MappingSpace
	ar       hostarch.AddrRange
	src      hostarch.AddrRange // CopyMapping only
	off      uint64
	writable bool
}

// translateCall is what a hook of Translate is given.
type translateCall struct {
	required, optional memmap.MappableRange
	at                 hostarch.AccessType
}

// join makes m a part of its world.
func (m *testMappable) join() {
	m.hooks.t = m.w.t
	enlist(m.w, &m.w.maps, m, &m.hooks.name, "mappable")
}

// complain reports a misuse.
func (m *testMappable) complain(format string, args ...any) {
	m.t.Errorf("%s: %s\n%s", m.hooks.name, fmt.Sprintf(format, args...), debug.Stack())
}

// begin is called by each method.
func (m *testMappable) begin(op string, arg any) error {
	if m.id.isReleased() {
		m.complain("%s was called after the last reference on %s was dropped", op, m.id.hooks.name)
	}
	return m.hit(op, arg)
}

// checkRange complains about arguments that no method allows.
func (m *testMappable) checkRange(op string, ar hostarch.AddrRange, off uint64) {
	if !ar.WellFormed() || ar.Length() == 0 || !ar.IsPageAligned() || !hostarch.IsPageAligned(off) || off+uint64(ar.Length()) < off {
		m.complain("%s(%v, offset %#x): bad range", op, ar, off)
	}
}

// AddMapping implements memmap.Mappable.
func (m *testMappable) AddMapping(_ context.Context, ms memmap.MappingSpace, ar hostarch.AddrRange, off uint64, writable bool) error {
	m.checkRange("AddMapping", ar, off)
	if err := m.begin("AddMapping", mappingCall{space: ms, ar: ar, off: off, writable: writable}); err != nil {
		return err
	}
	m.add("AddMapping", ms, ar, off, writable)
	return nil
}

// add registers a mapping. It must not be there yet, not even as that of another
// Mappable of the set: the set would take the two for one, and forget both when
// one is removed.
func (m *testMappable) add(op string, ms memmap.MappingSpace, ar hostarch.AddrRange, off uint64, writable bool) {
	m.set.mapsMu.Lock()
	defer m.set.mapsMu.Unlock()
	if _, part := m.set.hasLocked(ms, ar, off, writable); part {
		m.complain("%s: %s has %v at offset %#x registered already", op, m.w.nameOf(ms), ar, off)
	}
	m.set.maps.AddMapping(ms, ar, off, writable)
}

// RemoveMapping implements memmap.Mappable.
func (m *testMappable) RemoveMapping(_ context.Context, ms memmap.MappingSpace, ar hostarch.AddrRange, off uint64, writable bool) {
	m.checkRange("RemoveMapping", ar, off)
	m.begin("RemoveMapping", mappingCall{space: ms, ar: ar, off: off, writable: writable})
	m.set.mapsMu.Lock()
	defer m.set.mapsMu.Unlock()
	if whole, _ := m.set.hasLocked(ms, ar, off, writable); !whole {
		m.complain("RemoveMapping: %s has not (all of) %v at offset %#x registered", m.w.nameOf(ms), ar, off)
		return
	}
	m.set.maps.RemoveMapping(ms, ar, off, writable)
}

// CopyMapping implements memmap.Mappable.
func (m *testMappable) CopyMapping(_ context.Context, ms memmap.MappingSpace, src, dst hostarch.AddrRange, off uint64, writable bool) error {
	m.checkRange("CopyMapping", dst, off)
	if err := m.begin("CopyMapping", mappingCall{space: ms, ar: dst, src: src, off: off, writable: writable}); err != nil {
		return err
	}
	if src.Length() != 0 {
		m.checkRange("CopyMapping", src, off)
		m.set.mapsMu.Lock()
		whole, _ := m.set.hasLocked(ms, src, off, writable)
		m.set.mapsMu.Unlock()
		if !whole {
			m.complain("CopyMapping: %s has not (all of) %v at offset %#x registered", m.w.nameOf(ms), src, off)
		}
	}
	m.add("CopyMapping", ms, dst, off, writable)
	return nil
}

// Translate implements memmap.Mappable.
func (m *testMappable) Translate(_ context.Context, required, optional memmap.MappableRange, at hostarch.AccessType) ([]memmap.Translation, error) {
	if err := m.begin("Translate", translateCall{required, optional, at}); err != nil {
		return nil, err
	}
	s := m.set
	s.dataMu.Lock()
	defer s.dataMu.Unlock()
	end := roundUp(s.size)
	var short error
	if required.End > end {
		short = &memmap.BusError{Err: linuxerr.EFAULT}
	}
	perms := hostarch.AnyAccess
	if m.perms.Any() {
		perms = m.perms.Union(at)
	}
	var ts []memmap.Translation
	want := optional.Intersect(memmap.MappableRange{End: end})
	for _, e := range s.pages {
		both := e.Intersect(want)
		for both.Length() != 0 {
			part := both
			if m.step != 0 {
				part.End = min(part.End, part.Start+m.step)
			}
			both.Start = part.End
			if part.Intersect(required).Length() != 0 {
				ts = append(ts, memmap.Translation{Source: part, File: s.mf, Offset: e.fileRange(part).Start, Perms: perms})
			}
		}
	}
	if required.Start >= end {
		ts = nil
	}
	if err := memmap.CheckTranslateResult(required, optional, at, ts, short); err != nil {
		m.complain("the harness translates badly: %v", err)
	}
	return ts, short
}

// InvalidateUnsavable implements memmap.Mappable.
func (m *testMappable) InvalidateUnsavable(context.Context) error {
	return m.begin("InvalidateUnsavable", nil)
}

// StateTypeName implements state.Type.
func (*testMappable) StateTypeName() string { return "pkg/sentry/mm.testMappable" }

// StateFields implements state.Type.
func (*testMappable) StateFields() []string {
	return []string{"world", "label", "set", "id", "perms", "step"}
}

// StateSave implements state.SaverLoader.
func (m *testMappable) StateSave(sink state.Sink) {
	sink.SaveValue(0, m.w.key)
	for i, field := range []any{&m.hooks.name, &m.set, &m.id, &m.perms, &m.step} {
		sink.Save(i+1, field)
	}
}

// StateLoad implements state.SaverLoader.
func (m *testMappable) StateLoad(_ goctx.Context, source state.Source) {
	for i, field := range []any{&m.hooks.name, &m.set, &m.id, &m.perms, &m.step} {
		source.Load(i+1, field)
	}
	source.LoadValue(0, new(int), func(key any) {
		m.w = worldNumber(key.(int))
		m.join()
	})
}

// StateTypeName implements state.Type.
func (*sharedSet) StateTypeName() string { return "pkg/sentry/mm.sharedSet" }

// StateFields implements state.Type.
func (*sharedSet) StateFields() []string { return []string{"world", "label", "maps", "size", "pages"} }

// StateSave implements state.SaverLoader.
func (s *sharedSet) StateSave(sink state.Sink) {
	sink.SaveValue(0, s.w.key)
	sink.Save(1, &s.name)
	sink.Save(2, &s.maps)
	sink.Save(3, &s.size)
	var flat []uint64
	for _, e := range s.pages {
		flat = append(flat, e.Start, e.End, e.off)
	}
	sink.SaveValue(4, flat)
}

// StateLoad implements state.SaverLoader.
func (s *sharedSet) StateLoad(ctx goctx.Context, source state.Source) {
	source.Load(1, &s.name)
	source.Load(2, &s.maps)
	source.Load(3, &s.size)
	source.LoadValue(4, new([]uint64), func(v any) {
		for flat := v.([]uint64); len(flat) != 0; flat = flat[3:] {
			s.pages = append(s.pages, extent{memmap.MappableRange{Start: flat[0], End: flat[1]}, flat[2]})
		}
	})
	source.LoadValue(0, new(int), func(key any) {
		s.w = worldNumber(key.(int))
		s.mf = pgalloc.MemoryFileFromContext(ctx)
		s.join()
	})
}

func init() {
	state.Register((*testMappable)(nil))
	state.Register((*sharedSet)(nil))
}
