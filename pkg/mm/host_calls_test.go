package mm

import (
	"fmt"
	"math/rand"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Claims of this file: operations call the host as seldom as can be, never for
// nothing, and never for more pages at once than one bounded step. What is replaced
// is mapped over, not unmapped first. (That no call is empty or unaligned, the
// recording address space checks in all tests.)

// hostCalls is what an operation asked of the host.
type hostCalls struct {
	mapFile, unmap int

	// mostMapped is the most bytes that one MapFile mapped, mostUnmapped the most
	// that the host had mapped in the range of one Unmap.
	mostMapped, mostUnmapped uint64
	precommitted             bool // all MapFile had precommit
	calls                    []asCall
}

// callsOf runs op and returns its calls.
func (m *testMM) callsOf(op func()) hostCalls {
	m.t.Helper()
	h := hostCalls{precommitted: true}
	counting := true
	m.as.on("Unmap", 0, nil, func(arg any) error {
		if counting {
			h.mostUnmapped = max(h.mostUnmapped, m.as.mappedPages(arg.(asCall).ar))
		}
		return nil
	})
	m.as.forget()
	op()
	counting = false
	m.check()
	h.calls = m.as.history()
	for _, c := range h.calls {
		if c.op == "Unmap" {
			h.unmap++
			continue
		}
		h.mapFile++
		h.mostMapped = max(h.mostMapped, uint64(c.ar.Length()))
		h.precommitted = h.precommitted && c.precommit
	}
	return h
}

// mustBe checks how often each was called.
func (h hostCalls) mustBe(t *testing.T, mapFile, unmap int) {
	t.Helper()
	if h.mapFile != mapFile || h.unmap != unmap {
		t.Errorf("MapFile was called %d times and Unmap %d times, want %d and %d:\n%s", h.mapFile, h.unmap, mapFile, unmap, callString(h.calls))
	}
	if h.mostUnmapped > pieceSize {
		t.Errorf("one Unmap removed %#x bytes of pages; a step is %#x", h.mostUnmapped, pieceSize)
	}
}

// mapPopulated maps n bytes of anonymous memory at addr and has the host map them.
func (m *testMM) mapPopulated(addr hostarch.Addr, n uint64, mods ...mmapMod) {
	m.t.Helper()
	m.mustMap(n, hostarch.ReadWrite, append(mods, fixedAt(addr), populated)...)
	if got := m.as.mappedPages(rangeAt(addr, n)); got != n {
		m.t.Fatalf("%#x of %#x bytes at %#x were populated", got, n, addr)
	}
}

func TestFixedOverPopulatedIsOneMapFileAndNoUnmap(t *testing.T) {
	for _, c := range []struct {
		name string
		most uint64
		mods []mmapMod
	}{
		{"left to faults", pieceSize, nil},
		{"populated", pieceSize, []mmapMod{populated}},
		{"committed", populateSize, []mmapMod{committedNow}},
		{"locked", pieceSize, []mmapMod{locked(memmap.MLockEager)}},
	} {
		for _, n := range []uint64{pageSize, 16 * pageSize, c.most - pageSize, c.most} {
			t.Run(fmt.Sprintf("%s, %#x bytes", c.name, n), func(t *testing.T) {
				m := newTestMM(t)
				m.mapPopulated(m.base, n)
				m.callsOf(func() {
					m.mustMap(n, hostarch.ReadWrite, append(c.mods, fixedAt(m.base))...)
				}).mustBe(t, 1, 0)
			})
		}
	}
}

// The same in the middle of a larger mapping, whose rest stays mapped.
//
//	old   |--------A--------|
//	new   |--A--|--B--|--A--|
func TestFixedInTheMiddleLeavesTheRestMapped(t *testing.T) {
	m := newTestMM(t)
	m.mapPopulated(m.base, 12*pageSize)
	h := m.callsOf(func() { m.mustMap(4*pageSize, hostarch.Read, fixedAt(m.base+4*pageSize)) })
	h.mustBe(t, 1, 0)
	if want := rangeAt(m.base+4*pageSize, 4*pageSize); h.calls[0].ar != want {
		t.Errorf("%v, want %v", h.calls[0], want)
	}
	if n := m.as.mappedPages(rangeAt(m.base, 12*pageSize)); n != 12*pageSize {
		t.Errorf("%#x bytes are mapped afterwards", n)
	}
}

// What nobody can access cannot be mapped over: there it is unmapped.
func TestReservationOverPopulatedIsOneUnmap(t *testing.T) {
	m := newTestMM(t)
	m.mapPopulated(m.base, 12*pageSize)
	m.callsOf(func() { m.mustMap(4*pageSize, hostarch.NoAccess, fixedAt(m.base+4*pageSize)) }).mustBe(t, 0, 1)
	if n := m.as.mappedPages(rangeAt(m.base, 12*pageSize)); n != 8*pageSize {
		t.Errorf("%#x bytes are mapped afterwards", n)
	}
}

func TestFileOverAnonymousIsOneUnmap(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, 16*pageSize)
	m.mapPopulated(m.base, 8*pageSize)
	m.callsOf(func() { m.mustMap(8*pageSize, hostarch.Read, fixedAt(m.base), sharedFile(f, 0)) }).mustBe(t, 0, 1)
}

func TestPopulatedFileOverAnonymousIsOneMapFile(t *testing.T) {
	for name, file := range map[string]func(*testMappable, uint64) mmapMod{"shared": sharedFile, "private": privateFile} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t)
			f := newTestMappable(t, m.mf, 16*pageSize)
			m.mapPopulated(m.base, 8*pageSize)
			m.callsOf(func() { m.mustMap(8*pageSize, hostarch.Read, fixedAt(m.base), file(f, 0), populated) }).mustBe(t, 1, 0)
		})
	}
}

func TestAnonymousOverFileIsOneMapFile(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, 16*pageSize)
	m.mapPopulated(m.base, 8*pageSize, sharedFile(f, 0))
	m.callsOf(func() { m.mustMap(8*pageSize, hostarch.ReadWrite, fixedAt(m.base)) }).mustBe(t, 1, 0)
}

// populatedInSteps is how many steps populate n bytes, from a multiple of populateSize on.
func populatedInSteps(n int) int { return (n + populateSize - 1) / populateSize }

// Memory use must not double, so the old pages of a large mapping go first.
func TestLargeReplacementGoesInPieces(t *testing.T) {
	const n = 3*pieceSize + 5*pageSize
	for name, test := range map[string]struct {
		mods    []mmapMod
		mapFile int
	}{
		"left to faults": {nil, 0},
		"populated":      {[]mmapMod{populated}, populatedInSteps(n)},
		"committed":      {[]mmapMod{committedNow}, populatedInSteps(n)},
		"required":       {[]mmapMod{committedNow, required}, populatedInSteps(n)},
		"locked":         {[]mmapMod{locked(memmap.MLockEager)}, populatedInSteps(n)},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t)
			m.mapPopulated(m.base, n)
			h := m.callsOf(func() { m.mustMap(n, hostarch.ReadWrite, append(test.mods, fixedAt(m.base))...) })
			h.mustBe(t, test.mapFile, 4)
			for i, c := range h.calls {
				if (c.op == "Unmap") != (i < 4) {
					t.Errorf("call %d is %v", i, c)
				}
			}
			if got := m.as.mappedPages(rangeAt(m.base, n)); test.mapFile != 0 && got != n {
				t.Errorf("%#x bytes are mapped afterwards, want %#x", got, n)
			}
		})
	}
}

func TestPopulatingGoesInPieces(t *testing.T) {
	const n = 3*pieceSize + 5*pageSize
	for name, test := range map[string]struct {
		precommit bool
		run       func(m *testMM)
	}{
		"MAP_POPULATE": {false, func(m *testMM) { m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), populated) }},
		"commit":       {true, func(m *testMM) { m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), committedNow) }},
		"required": {true, func(m *testMM) {
			m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), committedNow, required)
		}},
		"mlock": {true, func(m *testMM) {
			m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base))
			if err := m.MLock(m.ctx, m.base, n, memmap.MLockEager); err != nil {
				m.t.Fatal(err)
			}
		}},
		"mremap of locked memory": {true, func(m *testMM) {
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), locked(memmap.MLockEager))
			m.as.forget()
			if _, err := m.MRemap(m.ctx, m.base, pageSize, n, MRemapOpts{}); err != nil {
				m.t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t)
			h := m.callsOf(func() { test.run(m) })
			h.mustBe(t, populatedInSteps(n), 0)
			if h.mostMapped > populateSize {
				t.Errorf("one MapFile populated %#x bytes; a step is %#x", h.mostMapped, uint64(populateSize))
			}
			if h.precommitted != test.precommit {
				t.Errorf("precommit was %t", h.precommitted)
			}
		})
	}
}

// Without populating, mapping costs by call and not by size: a fault maps all of
// the pma around it, up to the next multiple of mapChunk.
func TestFaultMapsInChunks(t *testing.T) {
	const n = 2*mapChunk + 16*pageSize
	m := newTestMM(t)
	m.as.lax = true
	m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), sharedFile(newTestMappable(t, m.mf, n), 0))
	m.as.forget()
	m.mustFault(m.base+mapChunk, pageSize, hostarch.Write)
	calls := m.as.history()
	if len(calls) != 3 || m.as.mappedPages(everywhere) != n {
		t.Errorf("the fault made these calls:\n%s", callString(calls))
	}
	for _, c := range calls {
		if c.ar.Length() > mapChunk || c.ar.Start&^(mapChunk-1) != (c.ar.End-1)&^(mapChunk-1) {
			t.Errorf("%v is more than a chunk", c)
		}
	}
	m.exit() // checking each page of so many would take seconds
}

func TestUnmapIsOneCallPerPiece(t *testing.T) {
	for _, test := range []struct {
		bytes uint64
		unmap int
	}{
		{pageSize, 1}, {pieceSize, 1}, {pieceSize + pageSize, 2}, {2 * pieceSize, 2}, {5*pieceSize - pageSize, 5},
	} {
		t.Run(fmt.Sprintf("%#x bytes", test.bytes), func(t *testing.T) {
			m := newTestMM(t)
			m.mapPopulated(m.base, test.bytes)
			m.callsOf(func() { m.mustUnmap(m.base, test.bytes) }).mustBe(t, 0, test.unmap)
		})
	}
}

// Pieces are counted in pages, not in pmas or addresses: here are 8 pmas of half a
// piece each, which lie apart, and in the file the other way round.
func TestUnmapOfScatteredPagesIsOneCallPerPiece(t *testing.T) {
	const half = pieceSize / 2
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, 8*half)
	for i := range hostarch.Addr(8) {
		m.mapPopulated(m.base+i*(half+pageSize), half, sharedFile(f, uint64(7-i)*half))
	}
	if n := m.pmas.Len(); n != 8 {
		t.Fatalf("%d pmas", n)
	}
	m.callsOf(func() { m.mustUnmap(m.base, 1<<30) }).mustBe(t, 0, 4)
}

// When the host is told, the unmapping is published, and its range is frozen; activeMu is not locked.
func TestUnmapIsPublishedWhenTheHostIsTold(t *testing.T) {
	for _, bytes := range []uint64{pageSize, pieceSize, pieceSize + pageSize} {
		t.Run(fmt.Sprintf("%#x bytes", bytes), func(t *testing.T) {
			m := newTestMM(t)
			m.mapPopulated(m.base, bytes)
			p := m.as.pauseAt("Unmap", 1)
			unmap := spawn(t, "munmap", func() error { return m.MUnmap(m.ctx, m.base, bytes) })
			p.wait()
			if _, _, ok := m.vmaAt(m.base); ok {
				t.Error("the host unmaps before the unmapping is published")
			}
			if !m.activeMu.TryLock() {
				t.Fatal("the host unmaps with activeMu locked")
			}
			if !m.frozen.overlaps(rangeAt(m.base, pageSize)) {
				t.Error("nothing is frozen")
			}
			m.activeMu.Unlock()
			p.resume()
			unmap.mustSucceed()
			m.check()
		})
	}
}

func TestUnmapOfUntouchedRangesIsNoCall(t *testing.T) {
	for name, mods := range map[string]func(f *testMappable) []mmapMod{
		"large anonymous": func(*testMappable) []mmapMod { return nil },
		"shared file":     func(f *testMappable) []mmapMod { return []mmapMod{sharedFile(f, 0)} },
		"private file":    func(f *testMappable) []mmapMod { return []mmapMod{privateFile(f, 0)} },
	} {
		t.Run(name, func(t *testing.T) {
			const n = 2 * pieceSize
			m := newTestMM(t)
			m.mustMap(n, hostarch.ReadWrite, append(mods(newTestMappable(t, m.mf, n)), fixedAt(m.base))...)
			m.callsOf(func() { m.mustUnmap(m.base, n/2) }).mustBe(t, 0, 0)
			m.callsOf(func() { m.mustMap(n/2, hostarch.NoAccess, fixedAt(m.base+n/2)) }).mustBe(t, 0, 0)
			m.callsOf(func() { m.mustUnmap(m.base+n/2, n) }).mustBe(t, 0, 0)
		})
	}
}

// Pieces follow the pages: almost 2^47 bytes of addresses with 64 pages in them, each far
// from the next, are one piece.
func TestUnmapOfHugeSparseRangeIsOneCall(t *testing.T) {
	m := newTestMM(t)
	for i := range hostarch.Addr(64) {
		m.mapPopulated(m.base+i<<40, pageSize)
	}
	n := uint64(m.layout.MaxAddr - m.base) // more is EINVAL
	m.callsOf(func() { m.mustUnmap(m.base, n) }).mustBe(t, 0, 1)
	if left := m.vmas.Snapshot().Len(); left != 0 {
		t.Errorf("%d vmas are left", left)
	}
	m.callsOf(func() { m.mustUnmap(m.base, n) }).mustBe(t, 0, 0)
}

func TestProtectCallsTheHostOnlyToTighten(t *testing.T) {
	const n = 2*pieceSize + 3*pageSize
	m := newTestMM(t)
	m.mapPopulated(m.base, n)
	protect := func(n uint64, at hostarch.AccessType) func() {
		return func() {
			if err := m.MProtect(m.base, n, at, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.callsOf(protect(n, hostarch.ReadWrite)).mustBe(t, 0, 0)
	m.callsOf(protect(n, hostarch.Read)).mustBe(t, 0, 3)
	m.callsOf(protect(n, hostarch.ReadWrite)).mustBe(t, 0, 0) // faults map it again
	m.callsOf(func() { m.mustFault(m.base, pageSize, hostarch.Write) }).mustBe(t, 1, 0)
	m.callsOf(protect(4*pageSize, hostarch.NoAccess)).mustBe(t, 0, 1)
	if got := m.as.mappedPages(rangeAt(m.base, 4*pageSize)); got != 0 {
		t.Errorf("%#x bytes of inaccessible memory are mapped", got)
	}
}

// Little is mapped with its new permissions at once, whether these are fewer or more.
func TestProtectingLittleMapsItAnew(t *testing.T) {
	m := newTestMM(t)
	m.mapPopulated(m.base, 4*pageSize)
	protect := func(n uint64, at hostarch.AccessType) func() {
		return func() {
			if err := m.MProtect(m.base, n, at, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.callsOf(protect(4*pageSize, hostarch.Read)).mustBe(t, 1, 0)
	m.callsOf(func() { m.mustFault(m.base, pageSize, hostarch.Read) })
	m.callsOf(protect(4*pageSize, hostarch.ReadWrite)).mustBe(t, 1, 0)
	for _, h := range m.as.mapped(rangeAt(m.base, 4*pageSize)) {
		if h.perms != hostarch.ReadWrite {
			t.Errorf("the host has %v mapped as %v", h.AddrRange, h.perms)
		}
	}
	m.callsOf(protect(pageSize, hostarch.NoAccess)).mustBe(t, 0, 1)
	m.as.fail("MapFile", 1, linuxerr.ENOMEM)
	m.callsOf(protect(4*pageSize, hostarch.Read)).mustBe(t, 1, 1)
	m.check()
}

func TestDecommitIsOneCallPerPiece(t *testing.T) {
	const n = 2*pieceSize + 3*pageSize
	m := newTestMM(t)
	m.mapPopulated(m.base, n)
	decommit := func() {
		if err := m.Decommit(m.base, n); err != nil {
			t.Fatal(err)
		}
	}
	m.callsOf(decommit).mustBe(t, 0, 3)
	m.callsOf(decommit).mustBe(t, 0, 0)
}

// Fork takes write permission away from all pages in one section, and in one call from those that have nothing but
// holes between them. If these are few pmas, they stay mapped for reading.
func TestForkProtectsWithFewCalls(t *testing.T) {
	m := newTestMM(t)
	for _, i := range []hostarch.Addr{0, 2, 4, 6, 1, 3, 5, 7} { // pages of different pmas, next to each other, but not in the file
		m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+i*pageSize), populated, named(fmt.Sprint(i)))
	}
	m.mapPopulated(m.base+64*pageSize, 4*pageSize)
	m.mustMap(4*pageSize, hostarch.Read, fixedAt(m.base+128*pageSize), populated)
	m.mapPopulated(m.base+192*pageSize, 4*pageSize, sharedFile(newTestMappable(t, m.mf, 4*pageSize), 0))
	m.mapPopulated(m.base+256*pageSize, 4*pageSize)
	var child *testMM
	m.callsOf(func() { child = m.fork() }).mustBe(t, 1, 1)
	if calls := child.as.history(); len(calls) != 0 {
		t.Errorf("the child's address space was called:\n%s", callString(calls))
	}
	if got := m.as.mappedPages(rangeAt(m.base+128*pageSize, 128*pageSize)); got != 8*pageSize {
		t.Errorf("%#x bytes of read-only and shared memory are mapped after fork", got)
	}
	// What is protected stays so.
	m.callsOf(func() { m.fork() }).mustBe(t, 0, 0)
}

// Mapping much anew would take several calls.
func TestForkUnmapsMuchThatFewPMAsHold(t *testing.T) {
	for _, c := range []struct {
		apart            hostarch.Addr
		mapFiles, unmaps int
	}{
		{mapChunk - pageSize, 2, 0},
		{mapChunk, 0, 1},
	} {
		m := newTestMM(t)
		for i := range hostarch.Addr(2) {
			m.mapPopulated(m.base+i*c.apart, pageSize)
		}
		m.callsOf(func() { m.fork() }).mustBe(t, c.mapFiles, c.unmaps)
	}
}

// The copy is mapped over the pages that were there.
func TestCopyOnWriteBreakIsOneMapFile(t *testing.T) {
	m := newTestMM(t)
	m.mapPopulated(m.base, 4*pageSize)
	m.fork()
	m.mustFault(m.base, pageSize, hostarch.Read)
	h := m.callsOf(func() { m.mustFault(m.base+pageSize, pageSize, hostarch.Write) })
	h.mustBe(t, 1, 0)
	// Next time it stays the parent's, and the others stay mapped for reading.
	m.callsOf(func() { m.fork() }).mustBe(t, 2, 0)
}

// A write to pages that nobody else has any more takes them over: there is nothing
// to unmap.
func TestCopyOnWriteOfUniquePagesIsOneMapFile(t *testing.T) {
	m := newTestMM(t)
	m.mapPopulated(m.base, 4*pageSize)
	m.fork().exit()
	m.callsOf(func() { m.mustFault(m.base, pageSize, hostarch.Write) }).mustBe(t, 1, 0)
}

// What is little is mapped at the destination, too: who moves it is about to use it.
func TestMovingUnmapsTheSource(t *testing.T) {
	for _, test := range []struct {
		bytes            uint64
		mapped, unmapped int
	}{{4 * pageSize, 1, 1}, {2*pieceSize + pageSize, 0, 3}} {
		m := newTestMM(t)
		m.mapPopulated(m.base, test.bytes)
		m.callsOf(func() {
			if _, err := m.MRemap(m.ctx, m.base, test.bytes, test.bytes, MRemapOpts{Move: MRemapMustMove, NewAddr: m.base + 1<<30}); err != nil {
				t.Fatal(err)
			}
		}).mustBe(t, test.mapped, test.unmapped)
	}
}

// No call is larger than the design allows, whatever is done in whatever order.
func TestNoHostCallIsLargerThanAStep(t *testing.T) {
	rnd := rand.New(rand.NewSource(testSeed(t)))
	m := newTestMM(t)
	m.as.lax = true
	f := newTestMappable(t, m.mf, 8*pieceSize)
	const area = 8 * pieceSize
	perms := []hostarch.AccessType{hostarch.NoAccess, hostarch.Read, hostarch.ReadWrite, hostarch.ReadWrite}
	for i := range 150 {
		start := uint64(rnd.Intn(area/pageSize)) * pageSize
		n := min(area-start, uint64(rnd.Intn(3*pieceSize/pageSize)+1)*pageSize)
		addr, at := m.base+hostarch.Addr(start), perms[rnd.Intn(len(perms))]
		mods := []mmapMod{fixedAt(addr), []mmapMod{populated, committedNow, func(*memmap.MMapOpts) {}}[rnd.Intn(3)]}
		if rnd.Intn(2) == 0 {
			mods = append(mods, []mmapMod{sharedFile(f, start), privateFile(f, start)}[rnd.Intn(2)])
		}
		var what string
		h := m.callsOf(func() {
			switch rnd.Intn(7) {
			case 0, 1, 2:
				what = "mmap"
				m.mustMap(n, at, mods...)
			case 3:
				what = "munmap"
				m.mustUnmap(addr, n)
			case 4:
				what = "mprotect"
				m.MProtect(addr, n, at, false)
			case 5:
				what = "madvise"
				m.Decommit(addr, n)
			case 6:
				what = "mremap"
				m.MRemap(m.ctx, addr, n, n, MRemapOpts{Move: MRemapMustMove, NewAddr: m.base + area})
			}
		})
		if h.mostUnmapped > pieceSize {
			t.Fatalf("step %d, %s of %v: one Unmap removed %#x bytes", i, what, rangeAt(addr, n), h.mostUnmapped)
		}
		for _, c := range h.calls {
			// What is not committed may be mapped along with the pages asked for.
			if c.precommit && c.ar.Length() > pieceSize || c.ar.Length() > mapChunk && c.op == "MapFile" {
				t.Fatalf("step %d, %s of %v: %v", i, what, rangeAt(addr, n), c)
			}
		}
	}
}
